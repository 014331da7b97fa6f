"""What a gateway knows of sessions that it follows: pure, and shared by both clients."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

from pdp.client.enumwords import session_state
from pdp.v1.session_pb2 import (
    SESSION_STATE_ACTIVE,
    SESSION_STATE_REQUESTED,
    Session,
    SessionChange,
    WatchSessionsResponse,
)

# Of so many sessions it is known how they are; of others it is read again.
_MOST_KNOWN = 1024
# A session whose call was allowed has been approved: a server that says that it is requested is behind.
_GOES_ON = frozenset({SESSION_STATE_ACTIVE, SESSION_STATE_REQUESTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """How a session is: `why` it is over, empty while it is not, and when it expires, in unix seconds of the server.

    `tenant` is empty while only changes have told of it.
    """

    epoch: int
    why: str
    expires_at: float
    tenant: str = ""

    @classmethod
    def of(cls, session: Session | SessionChange) -> Self:
        """Return what a session, or a message about its change, says."""
        # INVARIANT: any state but these is an end, also one that is not known here.
        return cls(
            epoch=session.epoch,
            why="" if session.state in _GOES_ON else f"its session is {session_state(session)}",
            expires_at=session.expire_time.ToMicroseconds() / 1e6 if session.HasField("expire_time") else 0.0,
            tenant=session.tenant if isinstance(session, Session) else "",
        )


class Followed:
    """The sessions that are followed, and the tenants that are frozen. Hold a lock while using it."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}
        self._frozen: frozenset[str] = frozenset()
        # How often something was forgotten.
        self.forgotten = 0

    def must_be_read(self, session_id: str, now: float) -> bool:
        """Say whether it is not known how a session is at `now`, in unix seconds.

        That it expires is no change, and the clock of a gateway may be wrong: then the server is asked.
        """
        known = self._known.get(session_id)
        if known is None or known.why:
            return known is None
        # Without its tenant it cannot be told whether it is frozen.
        return not known.tenant or 0.0 < known.expires_at <= now

    def forget(self) -> None:
        """Forget how sessions are: something may not have been told."""
        self._known.clear()
        self.forgotten += 1

    def note(self, session_id: str, found: Known) -> None:
        """Note how a session is, unless something later is known."""
        before = self._known.pop(session_id, None)
        if before is not None:
            later = before if before.epoch > found.epoch else found
            found = replace(later, tenant=found.tenant or before.tenant)
        self._known[session_id] = found

    def keep(self, needed: Collection[str]) -> None:
        """Forget sessions that are not needed, beyond a bound: those first of which nothing was noted for longest."""
        most = max(len(self._known) - _MOST_KNOWN, 0)
        for session_id in [one for one in self._known if one not in needed][:most]:
            del self._known[session_id]

    def take(self, message: WatchSessionsResponse) -> None:
        """Note what a message of a watch says."""
        self._frozen = frozenset(message.frozen_tenants)
        for change in message.changes:
            self.note(change.session_id, Known.of(change))

    def why_over(self, session_id: str) -> str:
        """Return why no call of a session may go on; empty when nothing of the kind is known."""
        known = self._known.get(session_id)
        if known is None or known.why:
            return known.why if known is not None else ""
        return "people have stopped all calls for now" if known.tenant in self._frozen else ""
