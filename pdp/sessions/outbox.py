"""What receivers outside are told: the closed table of topics, and which change of a session or request is an event.

A store that tells writes its events in the transaction of what they tell, so that none is lost and none is invented.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from pdp.errors import StoreUnavailableError
from pdp.foundation.ids import new_event_id
from pdp.model import Session, SessionState
from pdp.sessions.access import AccessRequest, AccessState
from pdp.sessions.freezes import Freeze
from pdp.sessions.values import Cut

# The ids that an event about many names.
FIRST_IDS: Final = 10
# The events that a store keeps for a sender that does not come; the oldest go.
MOST_EVENTS: Final = 10_000


class Topic(StrEnum):
    """What an event is about. The text is its name in messages and settings.

    INVARIANT: what happens to one session, request or freeze is in this order, so messages that are sorted by it tell
    each story from its beginning.
    """

    SESSION_REQUESTED = "session.requested"  # a session waits for a person
    SESSION_APPROVED = "session.approved"
    SESSION_DENIED = "session.denied"
    SESSION_REVOKED = "session.revoked"
    SESSION_EXPIRED = "session.expired"
    ACCESS_REQUESTED = "access.requested"  # a call waits for a person
    ACCESS_APPROVED = "access.approved"
    ACCESS_DENIED = "access.denied"
    ACCESS_REVOKED = "access.revoked"
    ACCESS_EXPIRED = "access.expired"
    FREEZE_SET = "freeze.set"  # a tenant was frozen, or all of them
    FREEZE_LIFT_CONFIRMED = "freeze.lift_confirmed"  # a freeze waits for the second of two who lift it
    FREEZE_LIFTED = "freeze.lifted"
    SIGNAL_HELD = "signal.held"  # the receiver of signals waits for a person; no store of sessions has it
    MESSAGES_MISSED = "messages.missed"  # events could not be kept
    MESSAGES_TEST = "messages.test"  # somebody tries a receiver; no store has it


_OF_SESSIONS: Final[Mapping[tuple[SessionState | None, SessionState], Topic]] = MappingProxyType(
    {
        (None, SessionState.REQUESTED): Topic.SESSION_REQUESTED,
        (None, SessionState.ACTIVE): Topic.SESSION_APPROVED,
        (SessionState.REQUESTED, SessionState.ACTIVE): Topic.SESSION_APPROVED,
        (SessionState.REQUESTED, SessionState.DENIED): Topic.SESSION_DENIED,
        (SessionState.REQUESTED, SessionState.REVOKED): Topic.SESSION_REVOKED,
        (SessionState.ACTIVE, SessionState.REVOKED): Topic.SESSION_REVOKED,
    }
)
_OF_REQUESTS: Final[Mapping[tuple[AccessState | None, AccessState], Topic]] = MappingProxyType(
    {
        (None, AccessState.OPEN): Topic.ACCESS_REQUESTED,
        (AccessState.OPEN, AccessState.APPROVED): Topic.ACCESS_APPROVED,
        (AccessState.OPEN, AccessState.DENIED): Topic.ACCESS_DENIED,
        (AccessState.APPROVED, AccessState.REVOKED): Topic.ACCESS_REVOKED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEvent:
    """One event, about one session, request or freeze, or about `count` of them, of which `ids` names the first.

    `at` is unix seconds. `by` is the caller that did it, and `was` the state in which something expired. `ends_at` is
    the end of the present state, unix seconds, 0.0 when that is over. `session_id` and `tool` are those of an access
    request, `purpose` that of a session. What differs between the many is empty.
    What concerns all tenants has none.
    """

    id: str
    topic: Topic
    at: float
    tenant: str = ""
    count: int = 1
    ids: tuple[str, ...] = ()
    user: str = ""
    agent: str = ""
    by: str = ""
    was: str = ""
    session_id: str = ""
    tool: str = ""
    purpose: str = ""
    ends_at: float = 0.0


class Untold(NamedTuple):
    """The oldest events that were not passed on, and how many were lost: there was no room for them."""

    events: tuple[OutboxEvent, ...] = ()
    missed: int = 0


class Outbox(Protocol):
    """The events of a store, for the one sender that passes them on; no decision rests on them.

    Only a store that was opened to tell has events. One is written in the transaction of what it tells: both happen or
    neither. Of what ends authority it takes reserved space, and where there is no room even there, the ending stands
    and the event is counted as missed. At most `MOST_EVENTS` wait; the oldest go, and are counted as missed.
    """

    def untold(self, *, limit: int) -> Untold:
        """Return the oldest events, at most `limit`, in the order in which they were written."""
        ...

    def forget_told(self, told: Untold, *, turn: str = "") -> None:
        """Remove events that were passed on, and as many missed ones; unknown ones change nothing.

        Where senders take turns, missed ones are removed only while the turn lasts in which they were told.
        """
        ...

    def note_expired(self, *, wall_at: float, limit: int) -> int:
        """Write the events of what has expired by `wall_at`, unix seconds, at most `limit`; return how many are noted.

        An expiry is noted once, and only of what was requested while the store told. What was revoked by a cut is noted
        without an event: the cut has told it.
        """
        ...


def session_event(before: SessionState | None, session: Session) -> OutboxEvent | None:
    """Return the event of a session that was written; `before` is its stored state until then, None for a new one."""
    topic = _OF_SESSIONS.get((before, session.state))
    if topic is None:
        return None
    at, by = {
        Topic.SESSION_REQUESTED: (session.requested_at, session.opened_by),
        Topic.SESSION_APPROVED: (session.approved_at, session.approved_by),
    }.get(topic, (session.ended_at, session.ended_by))
    waits_or_works = topic in (Topic.SESSION_REQUESTED, Topic.SESSION_APPROVED)
    return _of_session(topic, session, at, by=by, ends_at=session.deadline.wall_at if waits_or_works else 0.0)


def session_expiry(session: Session) -> OutboxEvent:
    """Return the event of a session whose time is over."""
    return _of_session(Topic.SESSION_EXPIRED, session, session.deadline.wall_at, was=session.state.value)


def cut_event(cut: Cut, count: int, newest: Sequence[Session]) -> OutboxEvent | None:
    """Return the event of a cut that revokes `count` live sessions, of which `newest` are the first; None for none."""
    if not count:
        return None
    return OutboxEvent(
        id=new_event_id(),
        topic=Topic.SESSION_REVOKED,
        at=cut.at,
        tenant=cut.tenant,
        count=count,
        ids=tuple(session.id for session in newest),
        user=cut.user,
        agent=cut.agent,
        by=cut.by,
    )


def freeze_event(before: Freeze | None, after: Freeze | None, *, at: float) -> OutboxEvent | None:
    """Return the event of a freeze that was set, changed or, with None for `after`, lifted at a time, unix seconds."""
    freeze = after or before
    if freeze is None or before == after:
        return None
    topic, by = Topic.FREEZE_LIFTED, ""
    if after is not None:
        set_now = before is None
        topic = Topic.FREEZE_SET if set_now else Topic.FREEZE_LIFT_CONFIRMED
        by = after.set_by if set_now else after.confirmed_by
    return OutboxEvent(id=new_event_id(), topic=topic, at=at, tenant=freeze.tenant, ids=(freeze.id,), by=by)


def request_event(before: AccessState | None, request: AccessRequest) -> OutboxEvent | None:
    """Return the event of an access request that was written, as `session_event` does."""
    topic = _OF_REQUESTS.get((before, request.state))
    if topic is None:
        return None
    if topic is Topic.ACCESS_REQUESTED:
        return _of_request(topic, request, request.asked_at, by=request.asked_by, ends_at=request.deadline.wall_at)
    ends_at = request.deadline.wall_at if topic is Topic.ACCESS_APPROVED else 0.0
    return _of_request(topic, request, request.answered_at, by=request.answered_by, ends_at=ends_at)


def request_expiry(request: AccessRequest) -> OutboxEvent:
    """Return the event of an access request whose time is over."""
    return _of_request(Topic.ACCESS_EXPIRED, request, request.deadline.wall_at, was=request.state.value)


def joined(first: OutboxEvent, second: OutboxEvent) -> OutboxEvent:
    """Return one event for two of a topic: both counts, the first ids, and of the rest what is equal."""
    differing: dict[str, Any] = {name: "" for name in _COMMON if getattr(first, name) != getattr(second, name)}
    return replace(
        first,
        count=first.count + second.count,
        ids=(*first.ids, *second.ids)[:FIRST_IDS],
        ends_at=first.ends_at if first.ends_at == second.ends_at else 0.0,
        **differing,
    )


def of_one_write(events: Iterable[OutboxEvent | None]) -> list[OutboxEvent]:
    """Return the events of one transaction, with one for all that the same caller did in a tenant.

    None stands for a change that is no event.
    """
    found: dict[tuple[str, ...], OutboxEvent] = {}
    for event in events:
        if event is None:
            continue
        key = (event.topic, event.tenant, event.by, event.was)
        found[key] = joined(found[key], event) if key in found else event
    return list(found.values())


def event_text(event: OutboxEvent) -> str:
    """Write an event as JSON."""
    return json.dumps({name: getattr(event, name) for name in _FIELDS}, separators=(",", ":"))


def event_from(text: str) -> OutboxEvent:
    """Return the event that a text holds. `StoreUnavailableError` when the text is damaged."""
    try:
        values = json.loads(text)
        return OutboxEvent(**{**values, "topic": Topic(values["topic"]), "ids": tuple(values["ids"])})
    except (ValueError, KeyError, TypeError):
        # `from None`: the inner message quotes what is stored.
        raise StoreUnavailableError("a stored event is damaged") from None


# By reflection, so that a new field cannot be forgotten here.
_FIELDS: Final = tuple(field.name for field in fields(OutboxEvent))
_COMMON: Final = ("user", "agent", "by", "was", "session_id", "tool", "purpose")


def _of_session(
    topic: Topic, session: Session, at: float, *, by: str = "", was: str = "", ends_at: float = 0.0
) -> OutboxEvent:
    return OutboxEvent(
        id=new_event_id(),
        topic=topic,
        at=at,
        tenant=session.tenant,
        ids=(session.id,),
        user=session.user,
        agent=session.agent,
        by=by,
        was=was,
        purpose=session.purpose,
        ends_at=ends_at,
    )


def _of_request(
    topic: Topic, request: AccessRequest, at: float, *, by: str = "", was: str = "", ends_at: float = 0.0
) -> OutboxEvent:
    return OutboxEvent(
        id=new_event_id(),
        topic=topic,
        at=at,
        tenant=request.tenant,
        ids=(request.id,),
        user=request.user,
        agent=request.agent,
        by=by,
        was=was,
        session_id=request.call.session_id,
        tool=request.call.action,
        ends_at=ends_at,
    )
