"""The checker finds each violation in the history of a campaign, and none in one that is as it should be."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.sessions.replicachecker import INVARIANTS, Terms, violations
from tests.sessions.replicafigures import figures
from tests.sessions.replicahistory import CUT, EVERYWHERE, LOSS, HistoryFile, Kind, Operation, Result

TERMS = Terms(lease=1.0, clock=0.5, fence=0.5, settling=3.0)


def at(moment: float, kind: Kind, session: str = "a", **more: Any) -> Operation:
    """Return an operation of one tenth of a second, at replica 1 unless said otherwise."""
    return Operation(kind=kind, session=session, **{"invoked": moment, "returned": moment + 0.1, "replica": 1} | more)


def allow(moment: float, session: str = "a", **more: Any) -> Operation:
    """Return an allow."""
    return at(moment, Kind.AUTHORIZE, session, **{"allowed": True, "epoch": 2, "tool": "write"} | more)


def deny(moment: float, session: str = "a", **more: Any) -> Operation:
    """Return a deny."""
    return allow(moment, session, allowed=False, **more)


def fault(begin: float, end: float, name: str = "stop", replica: int = 1) -> Operation:
    """Return a fault."""
    return Operation(kind=Kind.FAULT, name=name, replica=replica, invoked=begin, returned=end)


OPENED = (
    at(0.0, Kind.REQUEST, epoch=1),
    at(1.0, Kind.APPROVE, epoch=2, until=100.0),
)
CHILD = (
    at(2.0, Kind.REQUEST, "b", parent="a", epoch=1),
    at(3.0, Kind.APPROVE, "b", epoch=2, until=50.0),
)
LIMITED = (at(0.0, Kind.REQUEST, epoch=1, budget=1), OPENED[1])
REVOKED = at(10.0, Kind.REVOKE)
LOST = at(10.0, Kind.REVOKE, result=Result.UNKNOWN)
NARROWED = at(10.0, Kind.NARROW, tool="write", epoch=3)
LABELLED = at(10.0, Kind.LABEL, "b", tool="write")
NEW = (
    at(5.0, Kind.ACTIVATE, "", bundle="old"),
    at(10.0, Kind.ACTIVATE, "", bundle="new", returned=11.0),
    at(10.5, Kind.ACTIVATE, "", bundle="new", replica=2, returned=11.5),
)
CUT_OFF = fault(10.0, 20.0, CUT)
CALM = at(30.0, Kind.CALM, "", returned=31.0)
# What was acknowledged until then may be lost, and is over.
LOST_SOME = (NARROWED, fault(20.0, 22.0, LOSS, EVERYWHERE), at(21.0, Kind.WENT_BACK, "", name="00000002"))
NEXT = (at(23.0, Kind.REQUEST, "c", epoch=1), at(23.5, Kind.APPROVE, "c", epoch=2, until=100.0))


def read(**more: Any) -> Operation:
    """Return a session as it is shown at the end."""
    shown: dict[str, Any] = {"state": "active", "epoch": 2}
    return at(40.0, Kind.READ, **{**shown, **more})


def told(name: str, session: str = "a") -> Operation:
    """Return what a record says of a session."""
    return at(40.0, Kind.TOLD, session, name=name)


TOLD = told("approved")
VIOLATIONS = [
    pytest.param("I1", [REVOKED, allow(10.2)], id="I1: an allow after a revocation"),
    pytest.param("I1", [REVOKED, allow(10.2, replica=2)], id="I1: at another replica"),
    pytest.param("I1", [at(10.0, Kind.END), allow(10.2)], id="I1: after an end"),
    pytest.param("I1", [NARROWED, allow(10.2, epoch=3)], id="I1: of a tool that was taken away"),
    pytest.param("I1", [*CHILD, REVOKED, allow(10.2, "b")], id="I1: after a revocation of the parent"),
    pytest.param("I1", [LOST, at(11.0, Kind.REVOKE), allow(11.2)], id="I1: after a revocation that was repeated"),
    pytest.param("I1", [deny(1.2, epoch=1, replica=2)], id="I1: a deny that does not know the approval"),
    pytest.param("I1", [NARROWED, allow(10.2, tool="read")], id="I1: an allow that does not know a narrowing"),
    pytest.param("I1", [allow(5.0, least=3)], id="I1: an answer that does not know what its caller insists on"),
    pytest.param("I1", [*CHILD, LABELLED, allow(10.2, tool="read", least=4)], id="I1: more than a label is not known"),
    pytest.param("I1", [*NEW, allow(12.0, bundle="old")], id="I1: an answer by an older bundle"),
    pytest.param("I1", [*NEW, allow(12.0, bundle="first")], id="I1: by the bundle from before all activations"),
    pytest.param("I2", [allow(0.5)], id="I2: before the approval"),
    pytest.param("I2", [CHILD[0], allow(5.0, "b")], id="I2: without any"),
    pytest.param("I2", [allow(100.6)], id="I2: after the end"),
    pytest.param("I2", [*CHILD, allow(50.6, "b")], id="I2: after its own end, before that of the parent"),
    pytest.param("I3", [read(result=Result.FAILED)], id="I3: a request is lost"),
    pytest.param("I3", [read(state="requested")], id="I3: an approval is lost"),
    pytest.param("I3", [REVOKED, read()], id="I3: a revocation is lost"),
    pytest.param("I3", [*CHILD, REVOKED, read(session="b")], id="I3: a revocation is lost below"),
    pytest.param("I3", [NARROWED, read()], id="I3: a narrowing is lost"),
    pytest.param("I3", [*LOST_SOME[:2], read(state="revoked", epoch=3)], id="I3: no record of what may be lost"),
    pytest.param("I3", [*LOST_SOME, read()], id="I3: a session goes on whose narrowing may be lost"),
    pytest.param("I3", [*LOST_SOME, *NEXT, read(session="c", result=Result.FAILED)], id="I3: lost without a reason"),
    pytest.param("I4", [at(1.5, Kind.APPROVE, epoch=2)], id="I4: two win"),
    pytest.param("I4", [read(epoch=3)], id="I4: more epochs than changes"),
    pytest.param("I4", [*CHILD, LABELLED, read(session="b", epoch=4)], id="I4: more than changes and one label"),
    pytest.param("I5", [CUT_OFF, allow(11.1)], id="I5: an answer longer than a lease after the cut"),
    pytest.param("I5", [fault(10.0, 10.8, CUT), fault(10.5, 20.0, CUT), deny(11.1)], id="I5: of two cuts in a row"),
    pytest.param("I5", [fault(10.0, 20.0, CUT, EVERYWHERE), allow(11.1)], id="I5: all were cut off"),
    pytest.param("I6", [deny(5.0, epoch=3), allow(5.2)], id="I6: an earlier epoch after a later one"),
    pytest.param("I8", [allow(5.0, decision="d"), at(9.0, Kind.RECORDED, decision="e")], id="I8: no record"),
    pytest.param("I8", [allow(5.0, decision="d"), *2 * [at(9.0, Kind.RECORDED, decision="d")]], id="I8: two"),
    pytest.param("I9", [at(30.0, Kind.CALM, "", returned=34.0)], id="I9: silent for long after the last fault"),
    pytest.param("I9", [CALM, deny(32.0, result=Result.UNKNOWN)], id="I9: silent again"),
    pytest.param("I9", [read(), read(replica=2, state="revoked")], id="I9: replicas do not agree"),
    pytest.param(
        "I10", [at(10.0, Kind.REVOKE, fence_seconds=1.6, returned=12.0)], id="I10: a fence longer than a lease"
    ),
    pytest.param("I11", [*CHILD, LABELLED, allow(10.2, "b")], id="I11: an allow after the label that forbids it"),
    pytest.param("I12", [*CHILD, told("approved", "b"), read()], id="I12: no record of an approval"),
    pytest.param("I12", [REVOKED, TOLD, read(state="revoked", epoch=3)], id="I12: no record of a revocation"),
    pytest.param("I11", [*CHILD, LABELLED, allow(10.2)], id="I11: above the session that was labelled"),
]


@pytest.mark.parametrize(("invariant", "lines"), VIOLATIONS)
def test_a_violation_is_found(invariant: str, lines: list[Operation]) -> None:
    """Each in a history that is well but for it."""
    assert {invariant} == {one.invariant for one in violations([*OPENED, *lines], TERMS)}


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([allow(5.0, request_id="r", decision="d"), allow(6.0, decision="e")], id="two calls of one"),
        pytest.param(
            [allow(5.0, request_id="r", decision="d"), allow(6.0, request_id="r", decision="e")],
            id="two decisions about one request",
        ),
    ],
)
def test_a_budget_that_is_exceeded_is_found(lines: list[Operation]) -> None:
    """I7: by calls, or by repetitions of one."""
    assert {"I7"} == {one.invariant for one in violations([*LIMITED, *lines], TERMS)}


def test_each_invariant_has_a_violation() -> None:
    """The tables leave out none."""
    assert INVARIANTS == {"I7", *(str(one.values[0]) for one in VIOLATIONS)}


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(
            [allow(9.9), allow(10.05), REVOKED, deny(10.2, epoch=3)], id="asked for before it was acknowledged"
        ),
        pytest.param([LOST, allow(15.0), read()], id="a lost revocation that was not made"),
        pytest.param([LOST, deny(15.0, epoch=3), read(state="revoked", epoch=3)], id="a lost revocation that was made"),
        pytest.param([NARROWED, allow(10.2, tool="read", epoch=3), read(epoch=3)], id="a tool that was left"),
        pytest.param([*CHILD, at(10.0, Kind.REVOKE, "b"), allow(10.2)], id="above a session that was revoked"),
        pytest.param([at(1.0, Kind.APPROVE, result=Result.FAILED)], id="one of two approves"),
        pytest.param([*NEW, allow(10.9, bundle="old"), allow(10.1, bundle="new")], id="while a bundle is activated"),
        pytest.param([*NEW, allow(20.0, bundle="new")], id="by the latest bundle"),
        pytest.param([allow(5.0, least=2)], id="what its caller insists on is known"),
        pytest.param([*CHILD, LABELLED, allow(10.2, tool="read", least=3)], id="a label cannot be insisted on"),
        pytest.param([allow(1.05), allow(100.4)], id="within the bound of clocks"),
        pytest.param([CUT_OFF, allow(10.9), deny(19.0, result=Result.UNKNOWN), deny(19.9)], id="cut off in time"),
        pytest.param([CUT_OFF, allow(15.0, replica=2)], id="another is cut off"),
        pytest.param([deny(5.0, epoch=3, replica=2), allow(5.2)], id="one replica knows more than another"),
        pytest.param([deny(5.0, epoch=3), allow(5.05)], id="answers that overlap"),
        pytest.param([CALM, deny(30.5, result=Result.UNKNOWN), allow(32.0)], id="silent until all answer"),
        pytest.param([CALM, fault(33.0, 34.0), deny(33.5, result=Result.UNKNOWN)], id="silent after the next fault"),
        pytest.param(
            [*LOST_SOME, deny(25.0, least=3), read(state="revoked")], id="a server took over that lacks a narrowing"
        ),
        pytest.param([*LOST_SOME, read(result=Result.FAILED)], id="a server took over that lacks a session"),
        pytest.param(
            [*LOST_SOME, *NEXT, allow(24.0, "c"), read(state="revoked"), read(session="c")],
            id="one that was opened then",
        ),
        pytest.param([read(), read(replica=2, state="expired")], id="expired between two reads"),
        pytest.param(
            [fault(10.5, 10.6), at(10.0, Kind.REVOKE, fence_seconds=1.6, returned=12.0)], id="stopped meanwhile"
        ),
        pytest.param(
            [allow(5.0, request_id="r", decision="d"), *2 * [at(9.0, Kind.RECORDED, decision="d")]],
            id="recorded again when it was asked for again",
        ),
        pytest.param([*CHILD, LABELLED, allow(10.2, tool="read")], id="a tool that a label leaves"),
        pytest.param([*CHILD, LABELLED, read(epoch=3)], id="a label counts above"),
        pytest.param(
            [at(9.0, Kind.LABEL, tool="write"), NARROWED, allow(10.2, tool="read"), read(epoch=3)],
            id="a narrowing that changes nothing shows a label that the call does not depend on",
        ),
        pytest.param([REVOKED, TOLD, told("ended"), read(state="revoked", epoch=3)], id="what was closed is recorded"),
        pytest.param([*LOST_SOME, told("revoked", "b"), read(state="revoked")], id="no record of what is lost"),
        pytest.param([*CHILD, REVOKED, read(session="b", state="revoked", epoch=3)], id="a revocation counts below"),
    ],
)
def test_what_may_be_is_no_violation(lines: list[Operation]) -> None:
    """As long as some order explains what clients saw."""
    assert [] == list(violations([*OPENED, *lines], TERMS))


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Each time, and while it grows."""
    with closing(HistoryFile(tmp_path / "history")) as history:
        for line in (REVOKED, *OPENED):
            history.note(line)

        assert [REVOKED, *OPENED] == list(history) == list(history)


def test_lines_may_come_in_any_order() -> None:
    """As they were noted, which is later than they were asked for."""
    lines = [*OPENED, REVOKED, deny(5.0, epoch=3), allow(5.2), allow(10.2), deny(10.5, epoch=3)]
    found = [str(one) for one in violations(lines, TERMS)]

    assert 3 == len(found)
    assert found == [str(one) for one in violations(lines[::-1], TERMS)]


def test_figures_of_a_history() -> None:
    """What was answered, what was not, and how long changes were held back."""
    waits = [at(10.0 + number, Kind.REVOKE, fenced_by="waited", fence_seconds=number / 10) for number in range(1, 11)]
    found = figures(
        [
            *OPENED,
            CUT_OFF,
            allow(5.0),
            allow(5.5),
            deny(6.0),
            deny(7.0, result=Result.UNKNOWN),
            LOST,
            *waits,
            deny(12.0),
        ]
    )

    assert (4, 2, 0.2) == (found.answers, found.allows, round(found.unanswered, 6))
    assert (1, 0) == (found.late, found.late_allows)
    assert ({"request": 1, "approve": 1, "revoke": 10}, 1) == (found.acknowledged, found.unknown)
    assert ({CUT: 1}, {"waited": (10, [0.5, 0.9, 1.0, 1.0])}) == (found.faults, found.fences)
    assert "| waited | 10 | 0.500 | 0.900 | 1.000 | 1.000 |" in str(found)
