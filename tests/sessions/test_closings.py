"""What a machine has closed is closed again, once, and opens nothing; its notes are those of the last hour."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pdp.clock import Deadline, Instant
from pdp.model import Head, Session, SessionState
from pdp.sessions.access import AccessState, answered
from pdp.sessions.acknowledged import NOTHING, Known
from pdp.sessions.closings import AGAIN, Note, again, freeze_in, frozen, narrowed, over, refused, refused_again
from pdp.sessions.closingsfile import KEPT_SECONDS, ClosingsFile
from pdp.sessions.lifecycle import end, narrow
from pdp.sessions.values import Change
from pdp.testing.stores.access import request
from pdp.testing.stores.samples import make_freeze, make_scope, make_session, revoked

NOW = Instant(wall_at=1500.0, boot_at=0.0, boot_id="boot")
FIRST, SECOND = (Known(head=Head(revision=number, tag=f"tag {number}"), timeline="00000001") for number in (7, 8))
ACTIVE = make_session("a", scope=make_scope("git/log", "git/show"))
LATE = ACTIVE.deadline


def less(session: Session, *tools: str, deadline: Deadline = LATE, labels: tuple[str, ...] = ()) -> Session:
    """Return a narrowed session."""
    found = narrow(session, NOW, scope=make_scope(*tools), deadline=deadline, labels=labels)
    assert found is not None
    return found


def closed_by(change: Change) -> Session:
    """Return the session after a change that ends it."""
    found = change(ACTIVE)
    assert found is not None
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give where the notes of a machine are to be."""
    return tmp_path / "closings"


@pytest.fixture
def file(path: Path) -> Iterator[ClosingsFile]:
    """Give the notes of a machine that has closed nothing."""
    with closing(ClosingsFile(path, deployment="here", wall_at=lambda: 1000.0)) as file:
        yield file


ENDED, REVOKED = closed_by(end(NOW, by="gateway")), closed_by(revoked)


@pytest.mark.parametrize("before", [REVOKED, ENDED])
def test_a_live_session_is_closed_again_as_it_was(before: Session) -> None:
    """By the one who did it, then; the reason says that it was written again."""
    after = again([over(before)], at=2000.0)(ACTIVE)

    assert after is not None
    assert replace(before, reason="") == replace(after, reason="")
    assert after.reason.startswith(AGAIN)
    assert after.reason.endswith(before.reason)


@pytest.mark.parametrize("note", [over(REVOKED), narrowed(less(ACTIVE, "git/log"))])
def test_what_is_over_stays_as_it_is(note: Note) -> None:
    """Whatever was noted of it."""
    assert again([note], at=2000.0)(ENDED) is None


def test_a_session_of_which_nothing_was_noted_stays_as_it_is() -> None:
    """Notes are of others."""
    assert again([over(REVOKED)], at=2000.0)(make_session("b")) is None


def test_a_session_is_narrowed_again() -> None:
    """Fewer tools, an earlier end, more labels; a second time changes nothing."""
    earlier = Deadline(wall_at=1600.0, boot_at=0.0, boot_id="boot")
    narrower = less(ACTIVE, "git/log", deadline=earlier, labels=("secret",))
    change = again([narrowed(narrower)], at=2000.0)
    after = change(ACTIVE)

    assert narrower == after
    assert change(narrower) is None


def test_a_session_that_has_less_than_was_noted_keeps_that() -> None:
    """Nothing is given back."""
    most = make_session("a", scope=make_scope("git/log", "git/show", "git/diff"))
    noted = less(most, "git/log", "git/show")
    assert again([narrowed(noted)], at=2000.0)(less(most, "git/log")) is None


def test_a_session_whose_tools_cannot_be_known_is_revoked() -> None:
    """It has some that were not noted, and lacks some that were."""
    most = make_session("a", scope=make_scope("git/log", "git/show", "git/diff"))
    after = again([narrowed(less(most, "git/log", "git/show"))], at=2000.0)(less(most, "git/log", "git/diff"))

    assert after is not None
    assert (SessionState.REVOKED, 2000.0) == (after.state, after.ended_at)


def test_a_session_that_waits_for_approval_is_not_opened_by_what_was_noted_of_its_life() -> None:
    """Its approval was lost as well."""
    waiting = make_session("a", state=SessionState.REQUESTED, scope=None)
    assert again([narrowed(less(ACTIVE, "git/log"))], at=2000.0)(waiting) is None


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (AccessState.OPEN, [AccessState.DENIED]),
        (AccessState.APPROVED, [AccessState.REVOKED]),
        (AccessState.DENIED, []),
        (AccessState.USED, []),
        (AccessState.REVOKED, []),
    ],
)
def test_a_call_is_refused_again(stored: AccessState, expected: list[AccessState]) -> None:
    """Whatever is left of its request: what waits is denied, and an approval that was given is taken back."""
    note = refused(request(state=AccessState.DENIED, answered_at=1200.0, answered_by="lead", reason="no"))
    assert note is not None
    after = answered([request(state=stored)], refused_again([note]))

    assert expected == [one.state for one in after]
    assert all((one.answered_at, one.answered_by) == (1200.0, "lead") for one in after)


def test_only_a_no_to_a_call_is_noted() -> None:
    """An approval opens something."""
    assert refused(request(state=AccessState.APPROVED)) is None


def test_another_process_takes_what_was_noted(file: ClosingsFile, path: Path) -> None:
    """All of it, in its order, with the changes that made it."""
    freeze = make_freeze("default")
    file.keep(FIRST, [over(REVOKED), frozen(freeze)])
    file.keep(SECOND, [over(ENDED)])
    with closing(ClosingsFile(path, deployment="here", wall_at=lambda: 1000.0)) as other:
        noted = other.take("00000002")

    assert [(FIRST, over(REVOKED)), (FIRST, frozen(freeze)), (SECOND, over(ENDED))] == noted.notes
    assert (file.machine, NOTHING) == (noted.machine, noted.dropped)
    assert freeze == freeze_in(noted.notes[1][1])


def test_nothing_of_a_server_before_is_noted_once_the_notes_were_taken(file: ClosingsFile) -> None:
    """It would be acknowledged, and not be written again."""
    file.take("00000002")

    assert not file.keep(FIRST, [over(ENDED)])
    assert file.keep(replace(SECOND, timeline="00000002"), [over(ENDED)])
    assert 1 == len(file.take("00000002").notes)


def test_notes_that_are_older_than_an_hour_are_dropped(path: Path) -> None:
    """And the change that made the latest of them is kept, since a server that lacks it lacks them."""
    at = [1000.0]
    with closing(ClosingsFile(path, deployment="here", wall_at=lambda: at[0])) as file:
        file.keep(FIRST, [over(ENDED)])
        at[0] += KEPT_SECONDS
        file.keep(SECOND, [over(ENDED)])
        noted = file.take("00000002")

    assert [(SECOND, over(ENDED))] == noted.notes
    assert FIRST == noted.dropped


def test_what_was_noted_late_is_taken_in_the_order_of_changes(file: ClosingsFile) -> None:
    """A process can be stopped between its commit and its note."""
    file.keep(SECOND, [over(ENDED)])
    file.keep(FIRST, [over(REVOKED)])

    assert [FIRST, SECOND] == [known for known, _ in file.take("00000002").notes]


def test_the_latest_change_whose_notes_are_dropped_is_kept(path: Path) -> None:
    """Whichever was noted last, and is dropped last: a server that lacks it may lack what the other has closed, too."""
    at = [1000.0]
    with closing(ClosingsFile(path, deployment="here", wall_at=lambda: at[0])) as file:
        file.keep(SECOND, [over(ENDED)])
        at[0] += 1.0
        file.keep(FIRST, [over(ENDED)])
        at[0] += KEPT_SECONDS - 1.0
        file.keep(SECOND, [over(ENDED)])
        at[0] += 1.0
        file.keep(SECOND, [over(ENDED)])
        noted = file.take("00000002")

    assert [SECOND, SECOND] == [known for known, _ in noted.notes]
    assert SECOND == noted.dropped


def test_what_is_of_another_database_begins_anew(file: ClosingsFile, path: Path) -> None:
    """Under another id: so the machine of before is missed there."""
    file.keep(FIRST, [over(ENDED)])
    with closing(ClosingsFile(path, deployment="there")) as other:
        assert file.machine != other.machine
        assert [] == other.take("00000001").notes


@pytest.mark.parametrize("damage", ["lost", "cut", "overwritten"])
def test_notes_that_are_lost_or_damaged_begin_anew(file: ClosingsFile, path: Path, damage: str) -> None:
    """Under another id, too, instead of as a machine that has closed nothing."""
    file.keep(FIRST, [over(ENDED)])
    file.close()
    if damage == "lost":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[:5000] if damage == "cut" else b"\xff" * len(content))
    with closing(ClosingsFile(path, deployment="here", wall_at=time.time)) as other:
        assert file.machine != other.machine
        assert [] == other.take("00000001").notes
