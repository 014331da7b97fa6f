"""Where a time stands among what policies compare it with is all that they can see of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from random import Random
from typing import Any

import cedarpy
import pytest

from pdp.policy.moments import DAY, Moments, constant_milliseconds, milliseconds, moments
from pdp.policy.question import datetime_value

NEW_YEAR = 1767225600000
HOUR = 60 * 60 * 1000


def found(condition: str) -> list[tuple[int, bool, int]] | None:
    """Return the moments of a policy with one condition."""
    text = f"permit (principal, action, resource) when {{ {condition} }};"
    (policy,) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
    return moments([one["body"] for one in policy["conditions"]])


COMPARED = [
    ("true", []),
    ("context has now", []),
    ("context.input.now == 1", []),
    ('context.now < datetime("2026-01-01")', [(0, False, NEW_YEAR)]),
    ('datetime("2026-01-01T01:00:00Z") <= context.now', [(0, False, NEW_YEAR + HOUR)]),
    ('context.now != datetime("2026-01-01T00:00:00.007Z")', [(0, False, NEW_YEAR + 7)]),
    ('context.now >= datetime("2026-01-01T00:00:00+0130")', [(0, False, NEW_YEAR - HOUR - HOUR // 2)]),
    ('context.now > datetime("2026-01-01T00:00:00.500-0030")', [(0, False, NEW_YEAR + HOUR // 2 + 500)]),
    # Before the first year that Python knows.
    ('context.now > datetime("0001-01-01T00:00:00+0030")', [(0, False, -62135596800000 - HOUR // 2)]),
    ('context["now"].offset(duration("-1h")) == datetime("2026-01-01")', [(-HOUR, False, NEW_YEAR)]),
    (
        'context.now.offset(duration("1d")).offset(duration("2h3m4s5ms")).toTime() > duration("0ms")',
        [(93784005, True, 0)],
    ),
    (
        'context.now.toTime() >= duration("9h") && context.now.toTime() < duration("17h30m")',
        [(0, True, 9 * HOUR), (0, True, 17 * HOUR + HOUR // 2)],
    ),
    (
        'if context.now.toTime() == duration("0ms") then context.input.a else context.now < datetime("2026-01-01")',
        [(0, False, NEW_YEAR), (0, True, 0)],
    ),
]


@pytest.mark.parametrize(("condition", "expected"), COMPARED)
def test_what_the_time_is_compared_with(condition: str, expected: list[tuple[int, bool, int]]) -> None:
    """Comparisons with constants, either way round, of the time or of its time of day, shifted by constants."""
    assert expected == found(condition)


@pytest.mark.parametrize(
    "condition",
    [
        "context.now == context.now",
        "context.now < context.input.until",
        'context.now.toDate() == datetime("2026-01-01")',
        'context.now.durationSince(datetime("2026-01-01")) < duration("1h")',
        "context.now.toTime().toHours() == 9",
        'context.now.offset(context.input.by) < datetime("2026-01-01")',
        'context.now.offset(duration("1000000000000000ms")).offset(duration("1ms")) < datetime("2026-01-01")',
        # For a year like this one that is an error, and was none before 2022.
        'context.now.offset(duration("106751972000d")).offset(duration("-106751972000d")) < datetime("2100-01-01")',
        '[context.now].contains(datetime("2026-01-01"))',
        'context.now < datetime("2026-01-01") || context.now.toTime() == context.input.at',
        'context.now < (if true then datetime("2026-01-01") else datetime("2027-01-01"))',
        "context.now < datetime(context.input.text)",
        'context.now < datetime("2026-02-30")',
        'context.now.toTime() < duration("9 h")',
    ],
)
def test_a_time_that_is_read_otherwise(condition: str) -> None:
    """Whatever else is done with the time, or is not understood: nothing can be said."""
    assert found(condition) is None


def test_a_place_tells_before_at_and_after() -> None:
    """A time that is one of the moments stands between its neighbours, and times of day come back."""
    some = Moments([(0, False, NEW_YEAR), (HOUR, True, 9 * HOUR)])
    eight = NEW_YEAR + 8 * HOUR

    assert [(0, 0), (1, 0), (2, 0)] == [some.place(at) for at in (NEW_YEAR - 1, NEW_YEAR, NEW_YEAR + 1)]
    assert [(2, 0), (2, 1), (2, 2)] == [some.place(at) for at in (eight - 1, eight, eight + 1)]
    assert [(2, 0), (2, 1), (2, 2)] == [some.place(at + 3 * DAY) for at in (eight - 1, eight, eight + 1)]


def test_milliseconds_are_those_that_policies_see() -> None:
    """The same as the datetime that the engine gets, whatever the fraction: cut, not rounded."""
    for wall_at in (0.0, 0.0009999, 1767225600.0, 1767225599.9999996, 1767225600.0004, 1.1, 4102444799.9995):
        text = datetime_value(wall_at)["__extn"]["arg"]
        seen = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)

        assert (seen.days * 86400 + seen.seconds) * 1000 + seen.microseconds // 1000 == milliseconds(wall_at)


OPERATORS = ("==", "!=", "<", "<=", ">", ">=")


def random_condition(random: Random) -> str:
    """Return a condition about the time whose every moment is within hours of the new year."""
    at = f"2026-01-01T{random.randrange(3):02}:{random.choice([0, 30]):02}:00"
    moment = f'datetime("{at}{random.choice(["Z", ".001Z", "+0100", ".999-0130"])}")'
    sign, unit = random.choice(["", "-"]), random.choice(["1d", "1h", "23h59m", "90m", "1ms", "1d1h1m1s1ms"])
    now = random.choice(["context.now", f'context.now.offset(duration("{sign}{unit}"))'])
    of_day = f'duration("{random.choice(["0ms", "1h", "90m", "2h1ms", "23h59m59s999ms", "25h", "-1h"])}")'
    sides = random.choice([(now, moment), (f"{now}.toTime()", of_day)])
    if random.random() < 0.5:
        sides = (sides[1], sides[0])
    return f"({sides[0]} {random.choice(OPERATORS)} {sides[1]})"


def test_times_in_one_place_get_one_answer() -> None:
    """On random conditions and times at, beside and between the moments the engine never tells two of a place apart."""
    random, equal, told_apart = Random(20260101), 0, 0  # noqa: S311 - reproducible, not secret
    times = [NEW_YEAR + hours * HOUR // 2 + by for hours in range(-60, 60) for by in (-1, 0, 1)]
    for _ in range(300):
        condition = " && ".join(random_condition(random) for _ in range(random.randint(1, 2)))
        compared = found(condition)
        assert compared is not None, condition
        policies = cedarpy.PolicySet.from_str(f"permit (principal, action, resource) when {{ {condition} }};")
        answers: dict[tuple[int, ...], bool] = {}
        for now in sorted(random.sample(times, 40)):
            place = Moments(compared).place(now)
            uid = {"type": "A", "id": "a"}
            context = json.dumps({"now": datetime_value(now / 1000)})
            question = {"principal": uid, "action": {"type": "Action", "id": "a"}, "resource": uid, "context": context}
            allowed = cedarpy.is_authorized(question, policies, "[]").decision is cedarpy.Decision.Allow
            equal += place in answers

            assert answers.setdefault(place, allowed) == allowed, f"{condition} at {now}"

        told_apart += len(set(answers.values())) == 2

    assert equal > 3_000
    assert told_apart > 50


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"duration": [{"Value": "1h30m"}]}, 90 * 60 * 1000),
        ({"duration": [{"Value": "-1ms"}]}, -1),
        ({"duration": [{"Value": "0s"}]}, 0),
        ({"datetime": [{"Value": "1970-01-01"}]}, 0),
        ({"datetime": [{"Value": "1970-01-02T00:00:00.001Z"}]}, 24 * 60 * 60 * 1000 + 1),
        ({"duration": [{"Value": "soon"}]}, None),
        ({"duration": [{"Var": "context"}]}, None),
        ({"decimal": [{"Value": "1.0"}]}, None),
        ({"Value": 5}, None),
    ],
)
def test_constants_of_time_are_read_in_milliseconds(tree: dict[str, Any], expected: int | None) -> None:
    """A time and a duration that are written out; nothing else."""
    assert expected == constant_milliseconds(tree)
