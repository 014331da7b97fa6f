"""What goes on now, from the last records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from pdp.audit.activity import Activity, ActivityWindow
from pdp.audit.values import Found, Mark

NOW = 1_800_000_000.0


def _decision(ago: float, **changes: Any) -> Found:
    shown = {
        "kind": "decision",
        "session_id": "ses_a",
        "user": "alice",
        "agent": "coder",
        "server": "git",
        "tool": "log",
        "outcome": "allow",
        "basis": "permit",
        "cache": "hit",
        "duration_us": 10.0,
    }
    return _record(ago, **(shown | changes))


def _record(ago: float, **fields: Any) -> Found:
    mark = Mark(at=round((NOW - ago) * 1_000_000), segment="a", place=0)
    return Found(mark=mark, line=json.dumps(fields).encode())


def _activity(*records: Found, seconds: float = 60.0, most: int = 10) -> Activity:
    window = ActivityWindow(seconds)
    window.add(records)
    return window.activity(NOW, most=most)


def test_nothing() -> None:
    """An empty log is no error: nothing goes on."""
    activity = _activity()

    assert (0, 0.0, None, (), ()) == (
        activity.decisions,
        activity.per_second,
        activity.hit_rate,
        activity.slowest,
        activity.denied,
    )


def test_decisions_by_outcome_and_basis() -> None:
    """Decisions are counted by outcome and basis, and events by kind."""
    deny = {"outcome": "deny", "basis": "forbid"}
    activity = _activity(
        _decision(3),
        _decision(2, **deny),
        _record(2, kind="session.revoked"),
        _record(1, kind="checkpoint"),
        _decision(1),
    )

    assert {"allow": 2, "deny": 1} == activity.outcomes
    assert {"permit": 2, "forbid": 1} == activity.bases
    assert {"session.revoked": 1} == activity.events


@pytest.mark.parametrize(
    ("agos", "per_second", "seconds"),
    [((60, 30, 10), 0.1, 60.0), ((90, 10, 10), 0.2, 10.0), ((4, 3, 2), 0.8, 4.0), ((0.1, 0.1), 2.0, 1.0)],
)
def test_per_second(agos: tuple[float, ...], per_second: float, seconds: float) -> None:
    """The rate is over the window, or over as much of it as has been looked at."""
    activity = _activity(*(_decision(ago) for ago in agos))

    assert (per_second, seconds) == (activity.per_second, activity.seconds)


def test_what_is_old_is_forgotten() -> None:
    """A record leaves when the window has passed."""
    window = ActivityWindow(60)
    window.add([_decision(50), _decision(5)])

    assert (2, 1) == (window.activity(NOW).decisions, window.activity(NOW + 20).decisions)


def test_hit_rate() -> None:
    """Only decisions that asked the cache count."""
    activity = _activity(*(_decision(1, cache=cache) for cache in ("hit", "hit", "miss", "bypass", "none")))

    assert 0.5 == activity.hit_rate


def test_the_slowest_tools_come_first() -> None:
    """Tools stand by their median time, with how often they were asked about and denied."""
    activity = _activity(
        _decision(3, duration_us=500.0),
        _decision(2, tool="push", duration_us=90.0, outcome="deny"),
        _decision(2, tool="push", duration_us=80.0),
        _decision(2, tool="push", duration_us=85.0),
        _decision(1, duration_us=5.0),
        _decision(1, duration_us=6.0),
        most=1,
    )

    (slowest,) = activity.slowest
    assert ("push", 3, 1, 85.0, 90.0) == (
        slowest.tool,
        slowest.decisions,
        slowest.denied,
        slowest.median_us,
        slowest.longest_us,
    )


def test_denied_sessions() -> None:
    """The sessions with the most denies come first, with whose they are and what the last deny was about."""
    deny = {"outcome": "deny", "basis": "forbid"}
    activity = _activity(
        _decision(5, **deny),
        _decision(4, session_id="ses_b", user="bob", **deny),
        _decision(3, session_id="ses_b", user="bob", tool="push", **(deny | {"basis": "out_of_scope"})),
        _decision(2, session_id="ses_b", user="bob"),
        _decision(1, session_id="ses_c"),
    )

    assert [("ses_b", "bob", 3, 2, "push", "out_of_scope"), ("ses_a", "alice", 1, 1, "log", "forbid")] == [
        (one.session_id, one.user, one.decisions, one.denied, one.tool, one.basis) for one in activity.denied
    ]


@pytest.mark.parametrize("fields", [{}, {"kind": 5}, {"kind": "decision"}, {"kind": "decision", "duration_us": "x"}])
def test_strange_records_are_no_error(fields: Mapping[str, Any]) -> None:
    """What a later version writes otherwise does not end the view."""
    assert _activity(_record(1, **fields)).decisions in (0, 1)
