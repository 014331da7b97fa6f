"""The life cycle by itself: every state, every change, to the moment; whole sessions compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pdp.clock import Deadline, Instant, no_earlier
from pdp.errors import ConflictError, WrongStateError
from pdp.model import Scope, Session, SessionState
from pdp.sessions.lifecycle import (
    LIVE,
    approve,
    deny,
    earliest_end,
    end,
    narrow,
    over_at,
    recapture,
    revoke,
    state_of,
)
from pdp.sessions.succession import (
    BUNDLES_KEPT,
    VERSIONS_REMEMBERED,
    gives_authority,
    require_expected,
    require_new,
    require_successor,
    successors_of,
)
from pdp.sessions.values import ActiveBundle, Expected
from pdp.testing.stores.samples import make_session

NOW = Instant(wall_at=2000.0, boot_at=1000.0, boot_id="boot-1")
END = Deadline(wall_at=4600.0, boot_at=3600.0, boot_id="boot-1")
SCOPE = Scope(id="two", tools={"a/b": "1", "a/c": "2"})
SMALLER = Scope(id="one", tools={"a/b": "1"})
ACTIVE = make_session("s", scope=SCOPE, labels=("m",), deadline=END)
WAITING = make_session("w", state=SessionState.REQUESTED, duration=600.0, deadline=END)
OVER = [state for state in SessionState if state not in LIVE]


def at(wall_at: float = 2000.0, boot_at: float = 1000.0, boot_id: str = "boot-1") -> Instant:
    """Return a moment."""
    return Instant(wall_at=wall_at, boot_at=boot_at, boot_id=boot_id)


@pytest.mark.parametrize(
    ("now", "expired"),
    [
        (at(), False),
        (at(wall_at=4599.9), False),
        (at(wall_at=4600.0), True),
        (at(boot_at=3599.9), False),
        (at(boot_at=3600.0), True),
        (at(boot_at=9999.0, boot_id="boot-2"), False),
        (no_earlier(at(wall_at=4000.0, boot_id="boot-2"), 4599.9), False),
        (no_earlier(at(wall_at=3999.0, boot_id="boot-2"), 4599.0), False),
        (no_earlier(at(wall_at=3998.9, boot_id="boot-2"), 4599.0), True),
        (no_earlier(at(wall_at=0.0), 4599.0), False),
        (at(wall_at=4600.0, boot_id="boot-2"), True),
    ],
)
def test_a_live_session_expires_on_either_clock(now: Instant, *, expired: bool) -> None:
    """The moment of the end counts as passed; the boot clock counts within its boot; what is over stays what it is."""
    for state in SessionState:
        expected = SessionState.EXPIRED if expired and state in LIVE else state
        assert expected is state_of(replace(ACTIVE, state=state), now)


def test_two_states_are_live() -> None:
    """All others are for good."""
    assert {SessionState.REQUESTED, SessionState.ACTIVE} == LIVE


def test_since_when_a_session_is_over() -> None:
    """A live one from its deadline on, by the wall clock; any other since it ended."""
    for state in SessionState:
        expected = 4600.0 if state in LIVE else 2000.0
        assert expected == over_at(replace(ACTIVE, state=state, ended_at=2000.0))


def test_the_earliest_end_of_a_chain() -> None:
    """The first end on each clock counts; the clock of another boot has stopped and does not."""
    early = replace(ACTIVE, deadline=Deadline(wall_at=3000.0, boot_at=3500.0, boot_id="boot-1"))
    old = replace(ACTIVE, deadline=Deadline(wall_at=2900.0, boot_at=5.0, boot_id="boot-0"))

    assert END == earliest_end((ACTIVE,), NOW)
    assert Deadline(wall_at=3000.0, boot_at=3500.0, boot_id="boot-1") == earliest_end((ACTIVE, early), NOW)
    assert Deadline(wall_at=2900.0, boot_at=3600.0, boot_id="boot-1") == earliest_end((old, ACTIVE), NOW)
    assert Deadline(wall_at=2900.0, boot_at=float("inf"), boot_id="boot-1") == earliest_end((old,), NOW)


@pytest.mark.parametrize(
    ("bound", "deadline"),
    [
        (None, Deadline(wall_at=2600.0, boot_at=1600.0, boot_id="boot-1")),
        (END, Deadline(wall_at=2600.0, boot_at=1600.0, boot_id="boot-1")),
        (
            Deadline(wall_at=2100.0, boot_at=1100.0, boot_id="boot-1"),
            Deadline(wall_at=2100.0, boot_at=1100.0, boot_id="boot-1"),
        ),
    ],
)
def test_an_approval_begins_the_time(bound: Deadline | None, deadline: Deadline) -> None:
    """The whole approved session: scope, grants once and sorted, what its labels may open, a new epoch, its end."""
    waiting = replace(WAITING, labels=("l", "m", "n"))
    expected = replace(
        waiting,
        state=SessionState.ACTIVE,
        epoch=2,
        scope=SCOPE,
        grants=("a", "b", "c", "d", "e"),
        widening_labels=tuple("abcdefghijkl"),
        deadline=deadline,
        approved_at=2000.0,
        approved_by="ann",
    )
    grants = ("e", "b", "d", "a", "c", "b")

    # Some of them a tool can add later.
    widening = frozenset("lkjihgfedcba")

    found = approve(waiting, NOW, scope=SCOPE, grants=grants, widening=widening, by="ann", no_later_than=bound)

    assert expected == found


def test_a_refusal_ends_a_request() -> None:
    """The whole refused session."""
    expected = replace(WAITING, state=SessionState.DENIED, epoch=2, ended_at=2000.0, ended_by="ann", reason="too wide")

    assert expected == deny(WAITING, NOW, by="ann", reason="too wide")


@pytest.mark.parametrize("state", [state for state in SessionState if state is not SessionState.REQUESTED])
def test_only_a_request_is_approved_or_refused(state: SessionState) -> None:
    """Any other state is refused, and told."""
    session = replace(WAITING, state=state)

    with pytest.raises(WrongStateError, match=state.value):
        approve(session, NOW, scope=SCOPE, grants=(), widening=frozenset(), by="ann", no_later_than=None)
    with pytest.raises(WrongStateError, match=state.value):
        deny(session, NOW, by="ann", reason="")


def test_a_request_that_has_expired_is_not_approved() -> None:
    """Nor refused: it is over."""
    late = at(wall_at=4600.0)

    with pytest.raises(WrongStateError, match="expired"):
        approve(WAITING, late, scope=SCOPE, grants=(), widening=frozenset(), by="ann", no_later_than=None)
    with pytest.raises(WrongStateError, match="expired"):
        deny(WAITING, late, by="ann", reason="")


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        (lambda: end(NOW, by="bob"), SessionState.ENDED, ""),
        (lambda: revoke(NOW, by="bob", reason="stolen"), SessionState.REVOKED, "stolen"),
    ],
)
def test_a_live_session_ends(
    change: Callable[[], Callable[[Session], Session | None]], state: SessionState, reason: str
) -> None:
    """Ended by its owner or revoked by somebody else, a request too; what is over stays as it is."""
    for session in (ACTIVE, WAITING):
        expected = replace(session, state=state, epoch=2, ended_at=2000.0, ended_by="bob", reason=reason)
        assert expected == change()(session)
    assert {None} == {change()(replace(ACTIVE, state=one)) for one in OVER}


@pytest.mark.parametrize(
    ("now", "over"),
    [
        (at(wall_at=4599.9), False),
        (at(wall_at=4600.0), True),
        (at(wall_at=4600.1), True),
        (at(boot_at=9999.0), False),
    ],
)
def test_what_expired_on_the_boot_clock_alone_is_still_revoked(now: Instant, *, over: bool) -> None:
    """After a reboot it might come back, so the revocation and what the directory says must hold then."""
    assert over == (revoke(now, by="bob", reason="")(ACTIVE) is None)
    assert over == (end(now, by="bob")(ACTIVE) is None)
    assert over == (recapture(ACTIVE, now, "[1]", by="keeper") is None)
    assert over == (recapture(ACTIVE, now, None, by="keeper") is None)


def test_narrowing() -> None:
    """The whole narrowed session: fewer tools, an earlier end, labels that only grow, and a new epoch."""
    earlier = Deadline(wall_at=3000.0, boot_at=2000.0, boot_id="boot-1")
    expected = replace(ACTIVE, epoch=2, scope=SMALLER, deadline=earlier, labels=("a", "b", "c", "d", "m", "z"))
    labels = ("z", "c", "a", "d", "b")

    assert expected == narrow(ACTIVE, NOW, scope=SMALLER, deadline=earlier, labels=labels)


def test_narrowing_never_prolongs() -> None:
    """A later deadline is the present one."""
    later = Deadline(wall_at=9000.0, boot_at=9000.0, boot_id="boot-1")

    narrowed = narrow(ACTIVE, NOW, scope=SMALLER, deadline=later, labels=())

    assert narrowed == replace(ACTIVE, epoch=2, scope=SMALLER)


def test_narrowing_to_the_same_changes_nothing() -> None:
    """No new epoch for what stays as it is; each single change is one."""
    earlier = Deadline(wall_at=3000.0, boot_at=2000.0, boot_id="boot-1")

    assert narrow(ACTIVE, NOW, scope=SCOPE, deadline=END, labels=("m",)) is None
    assert narrow(ACTIVE, NOW, scope=SCOPE, deadline=END, labels=()) is None
    assert narrow(ACTIVE, NOW, scope=SCOPE, deadline=END, labels=("n",)) is not None
    assert narrow(ACTIVE, NOW, scope=SCOPE, deadline=earlier, labels=()) is not None
    assert narrow(ACTIVE, NOW, scope=SMALLER, deadline=END, labels=()) is not None


@pytest.mark.parametrize(
    "scope",
    [Scope(id="", tools={"a/d": "1"}), Scope(id="", tools={"a/b": "9"}), Scope(id="", tools={**SCOPE.tools, "x": "1"})],
)
def test_a_session_cannot_be_widened(scope: Scope) -> None:
    """Not by another tool, and not by another definition of a tool."""
    with pytest.raises(WrongStateError, match="narrowed"):
        narrow(ACTIVE, NOW, scope=scope, deadline=END, labels=())
    with pytest.raises(WrongStateError, match="narrowed"):
        narrow(replace(ACTIVE, scope=None), NOW, scope=SMALLER, deadline=END, labels=())


@pytest.mark.parametrize("state", [state for state in SessionState if state is not SessionState.ACTIVE])
def test_only_an_active_session_is_narrowed(state: SessionState) -> None:
    """Any other state is refused, and told; so is one that has expired."""
    with pytest.raises(WrongStateError, match=state.value):
        narrow(replace(ACTIVE, state=state), NOW, scope=SMALLER, deadline=END, labels=())
    with pytest.raises(WrongStateError, match="expired"):
        narrow(ACTIVE, at(END.wall_at), scope=SMALLER, deadline=END, labels=())


def test_recapturing() -> None:
    """The whole recaptured session; none when the directory says the same, or the session is over."""
    assert replace(ACTIVE, epoch=2, entities_json="[1]") == recapture(ACTIVE, NOW, "[1]", by="keeper")
    assert recapture(ACTIVE, NOW, ACTIVE.entities_json, by="keeper") is None
    assert {None} == {recapture(replace(ACTIVE, state=one), NOW, "[1]", by="keeper") for one in OVER}


def test_who_is_gone_from_the_directory_is_revoked() -> None:
    """With a reason, and only what is live."""
    expected = replace(
        ACTIVE,
        state=SessionState.REVOKED,
        epoch=2,
        ended_at=2000.0,
        ended_by="keeper",
        reason="its user or agent is no longer in the directory",
    )

    assert expected == recapture(ACTIVE, NOW, None, by="keeper")
    assert {None} == {recapture(replace(ACTIVE, state=one), NOW, None, by="keeper") for one in OVER}


# What may be written after what.

PARENT = make_session("p", make_session("g"))
CHILD = make_session("c", PARENT)


@pytest.mark.parametrize(
    ("session", "parent"),
    [
        (replace(ACTIVE, epoch=0), None),
        (replace(ACTIVE, epoch=2), None),
        (CHILD, None),
        (replace(CHILD, ancestor_ids=()), None),
        (replace(CHILD, ancestor_ids=(PARENT.id,)), PARENT),
        (replace(CHILD, ancestor_ids=PARENT.ancestor_ids), PARENT),
        (replace(ACTIVE, ancestor_ids=("ses_g",)), None),
        (ACTIVE, PARENT),
    ],
)
def test_what_cannot_be_new(session: Session, parent: Session | None) -> None:
    """Another epoch than the first, a parent that is not stored, a chain that is not the parent's."""
    with pytest.raises(ConflictError):
        require_new(session, parent)


def test_what_can_be_new() -> None:
    """A session of its own, and a child with its whole chain."""
    require_new(ACTIVE, None)
    require_new(CHILD, PARENT)


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 1},
        {"epoch": 0},
        {"epoch": 3},
        {"epoch": 2, "id": "ses_other"},
        {"epoch": 2, "handle_digest": b"other"},
        {"epoch": 2, "parent_id": "ses_other"},
        {"epoch": 2, "ancestor_ids": ("ses_other",)},
    ],
    ids=str,
)
def test_what_cannot_follow(changes: dict[str, Any]) -> None:
    """Any epoch but the next, and another id, handle, parent or chain; nothing follows what is not stored."""
    with pytest.raises(ConflictError):
        require_successor(CHILD, replace(CHILD, **changes))
    with pytest.raises(ConflictError):
        require_successor(None, replace(CHILD, epoch=2))


def test_what_can_follow() -> None:
    """The next epoch, with whatever else has changed."""
    require_successor(CHILD, replace(CHILD, epoch=2, user="other", state=SessionState.REVOKED))


@pytest.mark.parametrize(
    ("active", "expected", "holds"),
    [
        (None, None, True),
        (None, "", True),
        (None, "v", False),
        (ActiveBundle(version="v", activated_at=0.0, activated_by="ann"), None, True),
        (ActiveBundle(version="v", activated_at=0.0, activated_by="ann"), "v", True),
        (ActiveBundle(version="v", activated_at=0.0, activated_by="ann"), "", False),
        (ActiveBundle(version="v", activated_at=0.0, activated_by="ann"), "w", False),
    ],
)
def test_who_activates_has_seen_the_active_bundle(
    active: ActiveBundle | None, expected: str | None, *, holds: bool
) -> None:
    """None asks nothing, empty means that none is active."""
    seen = None if expected is None else Expected(version=expected)
    if holds:
        require_expected(active, seen)
    else:
        with pytest.raises(ConflictError):
            require_expected(active, seen)


def test_the_successors_of_many() -> None:
    """Those that a change leaves as they are do not count; a successor that cannot follow is refused."""
    change = revoke(NOW, by="bob", reason="r")
    over = replace(WAITING, state=SessionState.DENIED)

    assert [change(ACTIVE), change(CHILD)] == successors_of([ACTIVE, over, CHILD], change)
    with pytest.raises(ConflictError):
        successors_of([ACTIVE], lambda session: session)


def test_how_much_a_store_keeps() -> None:
    """The content of ten bundles, so that one can go back; that a version was active, of ten thousand."""
    assert (10, 10_000) == (BUNDLES_KEPT, VERSIONS_REMEMBERED)


@pytest.mark.parametrize("before", [None, *SessionState])
@pytest.mark.parametrize("after", SessionState)
def test_only_an_approval_gives_authority(before: SessionState | None, after: SessionState) -> None:
    """From waiting to active; any other change takes some or none, and a session that is not stored has none yet."""
    stored = None if before is None else make_session("s", state=before)

    given = gives_authority(stored, make_session("s", state=after))

    assert given == ((before, after) == (SessionState.REQUESTED, SessionState.ACTIVE))
