"""Many policies are asked about a part at a time, and answer as if they had been asked together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdp.policy import inparts
from pdp.policy.binding import NO_ENTITIES, Answer, Policies
from pdp.policy.inparts import PolicySets
from tests.machinery.servers.running import PATIENCE

KINDS = {
    "permits": "permit (principal, action, resource);",
    "permits nothing": 'permit (principal == User::"b", action, resource);',
    "forbids": "forbid (principal, action, resource);",
    "forbids nothing": 'forbid (principal == User::"b", action, resource);',
    "fails": "permit (principal, action, resource) when { context.none == 1 };",
}
REQUEST = {
    "principal": {"type": "User", "id": "a"},
    "action": {"type": "Action", "id": "a"},
    "resource": {"type": "Server", "id": "a"},
    "context": "{}",
}
SCHEMA = """
entity User; entity Server;
action "a" appliesTo { principal: User, resource: Server, context: { none?: Long } };
action "b" appliesTo { principal: User, resource: Server };
"""


def asked(kinds: Sequence[str], most: int, action: str = "a", schema: cedarpy.Schema | None = None) -> Answer:
    """Return the answer about policies of some kinds, `most` at a time, with the errors in order."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inparts, "AT_A_TIME", most)
        sets = PolicySets.of([KINDS[kind] for kind in kinds])
    answer = sets.ask(REQUEST | {"action": {"type": "Action", "id": action}}, NO_ENTITIES, schema)
    return answer._replace(errors=tuple(sorted(answer.errors)))


@settings(max_examples=60)
@given(st.lists(st.sampled_from([*KINDS]), max_size=9), st.integers(1, 4))
def test_parts_answer_like_the_whole(kinds: list[str], most: int) -> None:
    """Whatever is in which part: a forbid, a permit, a policy that fails, or nothing that matches."""
    assert asked(kinds, 100) == asked(kinds, most)


def test_every_answer_is_one_that_parts_give() -> None:
    """The comparison above compares all answers that there are."""
    found = Counter((one.allowed, len(one.decisive), len(one.errors)) for one in (asked([kind], 1) for kind in KINDS))

    assert {(True, 1, 0): 1, (False, 1, 0): 1, (False, 0, 0): 2, (False, 0, 1): 1} == found
    assert "`policy2`" in asked(["permits", "permits", "fails"], 1).errors[0]


def test_a_request_that_no_part_takes_is_not_decided() -> None:
    """One that does not fit the schema is an error in each part, and so in the whole."""
    schema = cedarpy.Schema.from_str(SCHEMA)
    answers = [asked(["permits", "forbids"], most, "c", schema) for most in (1, 2)]

    assert {(False, False)} == {(one.decided, one.allowed) for one in answers}


def test_others_have_their_turn_between_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """When policies are asked; a slice of the usual size has one part, and no pause."""
    pauses: list[None] = []
    monkeypatch.setattr(inparts, "give_way", lambda: pauses.append(None))
    sets = PolicySets.of([KINDS["permits"]] * (2 * inparts.AT_A_TIME + 1))
    sets.ask(REQUEST, NO_ENTITIES)
    asked(["permits"] * 3, 3)

    assert (3, 2) == (len(sets.sets), len(pauses))


def test_others_have_the_interpreter_while_policies_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine lets go of it for each part: parsing takes five times as long as answering."""
    lets_go: list[bool] = []

    def noted(text: str, *, release_gil: bool = False) -> cedarpy.PolicySet:
        lets_go.append(release_gil)
        return cedarpy.PolicySet.from_str(text, release_gil=release_gil)

    monkeypatch.setattr(inparts, "cedarpy", SimpleNamespace(PolicySet=SimpleNamespace(from_str=noted)))
    PolicySets.of([KINDS["permits"]] * (inparts.AT_A_TIME + 1))

    assert [True, True] == lets_go


def test_one_thread_at_a_time_asks_about_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a thread that waits for the interpreter waits for one part, however many threads ask."""
    asking, found = list[None](), list[int]()
    ask = Policies.ask

    def counted(*asked: Any) -> Answer:
        asking.append(None)
        for _ in range(20):
            time.sleep(0)
        found.append(len(asking))
        asking.pop()
        return ask(*asked)

    monkeypatch.setattr(Policies, "ask", counted)
    monkeypatch.setattr(inparts, "AT_A_TIME", 1)
    sets = PolicySets.of([KINDS["permits"]] * 5)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: sets.ask(REQUEST, NO_ENTITIES), range(8)))

    assert [1] * 40 == found
    assert {frozenset(range(5))} == {one.decisive for one in answers}


def test_a_slice_in_one_part_needs_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop asks about one while other threads ask about many parts."""
    with ThreadPoolExecutor(1) as other:
        small = PolicySets.of([KINDS["permits"]])
        answers: list[Answer] = []

        def pause() -> None:
            answers.append(other.submit(small.ask, REQUEST, NO_ENTITIES).result(PATIENCE))

        monkeypatch.setattr(inparts, "give_way", pause)
        asked(["permits"] * 3, 1)

    assert [True, True] == [one.allowed for one in answers]
