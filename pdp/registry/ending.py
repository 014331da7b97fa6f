"""Ends and revokes sessions, and reports that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pdp.clock import Instant
from pdp.errors import InvalidRequestError, NotFoundError, PermissionDeniedError
from pdp.foundation.ids import handle_digest
from pdp.model import Caller, Session
from pdp.observer import Event, EventKind
from pdp.registry.events import closed_event
from pdp.registry.outwaiting import outwaiting
from pdp.registry.requirements import require_endable
from pdp.registry.views import SessionViews
from pdp.registry.words import Revocable, Selector, SessionView
from pdp.sessions import lifecycle
from pdp.sessions.lifecycle import LIVE
from pdp.sessions.unrecorded import Account
from pdp.sessions.values import Cut, SessionFilter
from pdp.sessions.writes import Write

# The number of sessions that are written at a time when many are revoked.
_AT_ONCE = 500
_MOST_REVOCABLE = 100
# Longer than it takes to revoke many sessions.
_UNFINISHED_SECONDS = 60.0


class SessionEnding(SessionViews):
    """Ends the sessions of gateways and revokes those of anybody, beside their views. Safe for threads.

    What ends authority needs no bundle, and works while the record takes nothing else. Every method raises
    `UnavailableError` when it cannot answer.
    """

    def end(self, handle: str, *, caller: Caller, write: Write | None = None) -> SessionView:
        """End a session and all below it. Raise `WrongStateError` when it is already over.

        Who has opened it in one of its tenants can end it, also when it may no longer ask for its user or agent.
        """
        now = self._now()
        chain = self._endable(self._sessions.find(handle_digest(handle)), caller)
        with outwaiting(self._sessions, chain[0].id):
            require_endable(chain[0], now)
        change = lifecycle.end(now, by=caller.id)
        account = _closed(EventKind.SESSION_ENDED, caller, now)
        with self._sessions.fencing(account):
            self._tell(account(self._sessions.change_tree(chain[0].id, change, wall_at=now.wall_at, write=write)))
        return self.again(chain[0].id, caller=caller)

    def revoke(self, selector: Selector, *, reason: str, caller: Caller, write: Write | None = None) -> tuple[str, ...]:
        """Revoke the live sessions that the selector names and all below them; return their ids, sorted.

        Raise `NotFoundError` for an unknown session id, `PermissionDeniedError` for a foreign tenant, and
        `InvalidRequestError` when a caller of several tenants does not say of which one a user or agent is.
        """
        now = self._now()
        account = _closed(EventKind.SESSION_REVOKED, caller, now)
        if selector.kind == "session":
            session, change = self._named(selector, caller), lifecycle.revoke(now, by=caller.id, reason=reason)
            with self._sessions.fencing(account):
                changed = self._sessions.change_tree(session.id, change, wall_at=now.wall_at, write=write)
                self._tell(account(changed))
            return tuple(sorted(session.id for session in changed))
        which = _selected(selector, caller)
        cut = Cut(tenant=which.tenant, user=which.user, agent=which.agent, at=now.wall_at, by=caller.id, reason=reason)
        with self._sessions.fencing(account):
            # At once by one row, and then each session: thousands take seconds.
            self._sessions.cut(cut)
            return self._carry_out(cut, account, now, write)

    def finish_revocations(self) -> int:
        """Finish what processes began to revoke, and were killed; return how many sessions they had left.

        All read these sessions as revoked already; now they are stored and recorded as that.
        """
        count, now_at = 0, self._now().wall_at
        for cut in self._sessions.cuts():
            if now_at - cut.at < _UNFINISHED_SECONDS:
                continue
            account = _closed(EventKind.SESSION_REVOKED, Caller(id=cut.by, kind="", roles=frozenset()), cut.made)
            with self._sessions.fencing(account):
                count += len(self._carry_out(cut, account, cut.made))
        return count

    def revocable(self, selector: Selector, *, caller: Caller) -> Revocable:
        """Return what `revoke` would revoke, and change nothing. Raise what that raises."""
        now = self._now()
        if selector.kind == "session":
            which = SessionFilter(id=self._named(selector, caller).id)
        else:
            which = replace(_selected(selector, caller), ends_after=now.wall_at, requested_until=now.wall_at)
        count, newest = self._sessions.live_families(which, wall_at=now.wall_at, limit=_MOST_REVOCABLE)
        return Revocable(count=count, newest=tuple(self._summary(session, now) for session in newest))

    def _carry_out(self, cut: Cut, account: Account, now: Instant, write: Write | None = None) -> tuple[str, ...]:
        """Revoke each session of a cut and all below them, and lift it; return their ids, sorted."""
        # Later requests are not included: otherwise a gateway that keeps requesting would keep this loop running.
        live, ids = cut.live(), list[str]()
        change = lifecycle.revoke(now, by=cut.by, reason=cut.reason)
        while changed := self._sessions.change_where(live, change, wall_at=cut.at, limit=_AT_ONCE):
            self._tell(account(changed))
            ids += [session.id for session in changed]
        self._sessions.lift(cut, write=write, session_ids=tuple(sorted(ids)))
        return tuple(sorted(ids))

    def _named(self, selector: Selector, caller: Caller) -> Session:
        session = self._chain(selector.value, caller)[0]
        # INVARIANT: one of another tenant than is said gets the error of an unknown one.
        if selector.of_tenant not in ("", session.tenant):
            raise NotFoundError("no such session")
        return session

    def _tell(self, events: Iterable[Event]) -> None:
        for event in events:
            self._observer.event(event)


def _closed(kind: EventKind, caller: Caller, now: Instant) -> Account:
    """Return what says of each session that it is over."""
    return lambda sessions: [closed_event(kind, session, caller, now.wall_at) for session in sessions]


def _selected(selector: Selector, caller: Caller) -> SessionFilter:
    states = LIVE
    match selector.kind:
        case "user":
            return SessionFilter(tenant=_tenant(selector.of_tenant, caller), user=selector.value, states=states)
        case "agent":
            return SessionFilter(tenant=_tenant(selector.of_tenant, caller), agent=selector.value, states=states)
        case _:
            return SessionFilter(tenant=_tenant(selector.value, caller), states=states)


def _tenant(named: str, caller: Caller) -> str:
    """Return the tenant that is named, or else the caller's only one."""
    # The same user can be in many tenants, as many people.
    if not named and len(caller.tenants) > 1:
        raise InvalidRequestError("selector.of_tenant", "is required, because this caller has several tenants")
    tenant = named or caller.tenant
    if tenant not in caller.tenants:
        raise PermissionDeniedError("another tenant's sessions cannot be revoked")
    return tenant
