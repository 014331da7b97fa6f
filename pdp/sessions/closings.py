"""What ends or narrows authority, as a machine notes it before it is acknowledged, to write it again after a failover.

What is written again opens nothing, and is written once: a session that is over stays as it is, one that has less
already keeps that, and a tenant that is frozen keeps its freeze. There is no secret in it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

from pdp.clock import Deadline
from pdp.errors import WrongStateError
from pdp.model import Scope, Session, SessionState
from pdp.sessions.access import AccessRequest, AccessState
from pdp.sessions.freezes import Freeze
from pdp.sessions.lifecycle import LIVE
from pdp.sessions.values import Change, Cut

# What the reason of what was written again begins with.
AGAIN: Final = "written again after a failover"


class Closing(StrEnum):
    """What was noted of a session, a cut, a freeze, a no to a call or approval, or a key of call tokens."""

    OVER = "over"
    NARROWED = "narrowed"
    CUT = "cut"
    FROZEN = "frozen"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One closing of the session, freeze, request or key with this id; a cut has none. `text` is JSON: how it was."""

    closing: Closing
    id: str
    text: str


def over(session: Session) -> Note:
    """Return the note of a session that was revoked, ended or denied."""
    facts = {"state": session.state.value, "at": session.ended_at, "by": session.ended_by, "reason": session.reason}
    return _note(Closing.OVER, session.id, facts)


def narrowed(session: Session) -> Note:
    """Return the note of an active session that has less authority than before."""
    facts = {
        "scope": None if session.scope is None else {"id": session.scope.id, "tools": dict(session.scope.tools)},
        "deadline": asdict(session.deadline),
        "labels": session.labels,
    }
    return _note(Closing.NARROWED, session.id, facts)


def cut_off(cut: Cut) -> Note:
    """Return the note of a cut: of all sessions that it revokes, whoever was first to write each."""
    return _note(Closing.CUT, "", asdict(cut))


def frozen(freeze: Freeze) -> Note:
    """Return the note of a freeze that was set."""
    return _note(Closing.FROZEN, freeze.id, asdict(freeze))


def refused(request: AccessRequest) -> Note | None:
    """Return the note of an access request that was denied, or whose approval was taken back; None for another one."""
    if request.state not in (AccessState.DENIED, AccessState.REVOKED):
        return None
    facts = {"at": request.answered_at, "by": request.answered_by, "reason": request.reason}
    return _note(Closing.REFUSED, request.id, facts)


def withdrawn(key_id: str) -> Note:
    """Return the note of a key of call tokens that was withdrawn."""
    return _note(Closing.WITHDRAWN, key_id, {})


def cut_in(note: Note) -> Cut:
    """Return the cut that a note holds."""
    return Cut(**json.loads(note.text))


def cut_again(cut: Cut) -> Change:
    """Return the change that revokes again what a cut has revoked, and leaves any other session as it is."""

    def change(session: Session) -> Session | None:
        if session.state not in LIVE or not cut.covers(session):
            return None
        after = _over(session, SessionState.REVOKED, cut.at, cut.by, cut.reason)
        return replace(after, epoch=session.epoch + 1)

    return change


def freeze_in(note: Note) -> Freeze:
    """Return the freeze that a note holds."""
    return Freeze(**json.loads(note.text))


def again(notes: Iterable[Note], *, at: float) -> Change:
    """Return the change that closes sessions again as notes say, in their order, and leaves any other as it is.

    `at` is now, unix seconds.
    """
    of_session: dict[str, list[Note]] = defaultdict(list)
    for note in notes:
        of_session[note.id].append(note)

    def change(session: Session) -> Session | None:
        closed = session
        for note in of_session.get(session.id, ()):
            closed = _closed(closed, note, at)
        return None if closed == session else replace(closed, epoch=session.epoch + 1)

    return change


def refused_again(notes: Iterable[Note]) -> Callable[[AccessRequest], AccessRequest]:
    """Return the change that refuses access requests again as notes say.

    It raises `WrongStateError` for one that waits for no answer and has no approval.
    """
    facts_of = {note.id: json.loads(note.text) for note in notes}

    def change(request: AccessRequest) -> AccessRequest:
        after = {AccessState.OPEN: AccessState.DENIED, AccessState.APPROVED: AccessState.REVOKED}.get(request.state)
        if after is None:
            raise WrongStateError(f"the access request is {request.state.value}")
        facts = facts_of[request.id]
        return replace(
            request, state=after, answered_at=facts["at"], answered_by=facts["by"], reason=_why(facts["reason"])
        )

    return change


def _closed(session: Session, note: Note, at: float) -> Session:
    facts = json.loads(note.text)
    if note.closing is Closing.OVER and session.state in LIVE:
        return _over(session, SessionState(facts["state"]), facts["at"], facts["by"], facts["reason"])
    if note.closing is Closing.NARROWED and session.state is SessionState.ACTIVE:
        return _narrowed(session, facts, at)
    return session


def _over(session: Session, state: SessionState, at: float, by: str, reason: str) -> Session:
    return replace(session, state=state, ended_at=at, ended_by=by, reason=_why(reason))


def _narrowed(session: Session, facts: dict[str, Any], at: float) -> Session:
    noted, present = facts["scope"], session.scope
    if noted is None or present is None:
        return session
    scope = Scope(id=noted["id"], tools=noted["tools"])
    if present.tools.items() <= scope.tools.items():
        scope = present
    elif not scope.tools.items() <= present.tools.items():
        # Each was narrowed to what the other does not have, so what is left was never written.
        return _over(session, SessionState.REVOKED, at, "", "its tools are not known")
    deadline = Deadline(**facts["deadline"]).earliest(session.deadline)
    labels = tuple(sorted({*session.labels, *facts["labels"]}))
    less = replace(session, scope=scope, deadline=deadline, labels=labels)
    # A deadline that is as late by the wall clock is the same.
    same = less.scope is present and deadline.wall_at == session.deadline.wall_at and labels == session.labels
    return session if same else less


def _why(reason: str) -> str:
    return f"{AGAIN}: {reason}" if reason else AGAIN


def _note(closing: Closing, id: str, facts: dict[str, Any]) -> Note:  # noqa: A002 - the name of the field
    return Note(closing=closing, id=id, text=json.dumps(facts, separators=(",", ":")))
