"""Sessions as people and PEPs see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

from pdp.clock import Clock, Instant, no_earlier, utc_text
from pdp.errors import (
    BundleUnavailableError,
    NotFoundError,
)
from pdp.foundation.paging import Position, filled_page, page_size_of, page_start_of, rows_of
from pdp.limits import Limits
from pdp.model import Caller, Head, Scope, Session, SessionState
from pdp.observer import Event, EventKind, Observer
from pdp.policy.bundle import Bundle
from pdp.registry.budgets import budget_states
from pdp.registry.narrowing import Narrowing, narrowed
from pdp.registry.past import past_of_agent, past_of_user
from pdp.registry.requirements import require_waiting
from pdp.registry.review import review
from pdp.registry.scope import (
    expansion,
    request_digest_of,
    scoped_tools,
)
from pdp.registry.seeing import sees, sees_all, tenant_seen
from pdp.registry.unusual import Asked, Unusual, unusual
from pdp.registry.usergroups import owned
from pdp.registry.words import Review, SessionView
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.lifecycle import LIVE, state_of
from pdp.sessions.store import Sessions
from pdp.sessions.values import SessionFilter

# The number of sessions that are read at a time for a list.
_STEP = 100


class SessionViews:
    """Shows sessions to those who may see them. Safe for threads.

    The store keeps a session that is over for `kept_seconds`. Every method raises `UnavailableError` when it cannot
    answer.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        history: SessionHistory,
        bundle: Callable[[], Bundle],
        clock: Clock,
        observer: Observer,
        limits: Limits,
        kept_seconds: float = inf,
    ) -> None:
        self._sessions = sessions
        self._history = history
        self._bundle = bundle
        self._clock = clock
        self._observer = observer
        self._limits = limits
        self._kept_seconds = kept_seconds

    def again(self, session_id: str, *, caller: Caller) -> SessionView:
        """Return a session as the answer about a change of it does, as it is now."""
        return self._shown(self._endable(self._sessions.get(session_id), caller), self._now(), caller)

    def get(self, session_id: str, *, caller: Caller, least: Head | None = None) -> SessionView:
        """Return one session, as it is after the change `least` or later.

        Raise `NotFoundError` for an unknown id, and for one that the caller may not see; and `UnknownRevisionError`
        when the store does not have the change.
        """
        if least is not None:
            # What is read after a view that has it, has it too. No session has this digest.
            self._sessions.view(b"", least, labels=False)
        bundle, now = self._bundle(), self._now()
        chain = self._chain(session_id, caller)
        view = self._view(chain, bundle, now, caller)
        if view.state not in LIVE:
            return view
        counted = view.state is SessionState.ACTIVE and bundle.takes_values
        kept = self._history.values().count(chain[-1].id) if counted else 0
        return replace(view, budgets=budget_states(view.session, self._history, now), values_kept=kept)

    def proposal(
        self, session_id: str, *, grants: tuple[str, ...], caller: Caller, narrowing: Narrowing | None = None
    ) -> SessionView:
        """Return a waiting session as an approval with these grants and this narrowing would make it, or an active one.

        Raise `WrongStateError` when it is over, or when it is active and grants or a narrowing are passed: nothing is
        approved any more. Raise `InvalidRequestError` for a narrowing that is none.
        """
        chain = self._chain(session_id, caller)
        return self._proposal(chain, grants, narrowing, self._bundle(), self._now(), caller)[0]

    def review(
        self, session_id: str, *, grants: tuple[str, ...], caller: Caller, narrowing: Narrowing | None = None
    ) -> Review:
        """Return what `proposal` does, and what the policies say about each tool of it. Raise what that raises."""
        bundle, now = self._bundle(), self._now()
        chain = self._chain(session_id, caller)
        view, scope = self._proposal(chain, grants, narrowing, bundle, now, caller)
        return Review(
            view=view,
            tools=review((view.session, *chain[1:]), scope, bundle, wall_at=now.wall_at),
            unusual=self._unusual(view.session, scope, bundle, now),
            known_grants=bundle.grants,
            bundle_version=bundle.version,
        )

    def list(
        self,
        *,
        state: SessionState | None,
        user: str,
        agent: str,
        tenant: str = "",
        summaries: bool = False,
        page_size: int,
        page_token: str,
        caller: Caller,
        fits: Callable[[SessionView], bool] = lambda _: True,
    ) -> tuple[tuple[SessionView, ...], str]:
        """Return a page of sessions, newest first, and the token of the next page (empty at the end).

        `fits` is called for each session in turn; the first that does not fit begins the next page. Summaries have
        neither the tools nor the digest of what an approval would approve.
        """
        size = page_size_of(page_size)
        before = page_start_of(page_token, float, str)
        bundle, now = None if summaries else self._bundle(), self._now()
        if tenant and tenant_seen(caller) not in ("", tenant):
            return (), ""
        which = SessionFilter(
            tenant=tenant or tenant_seen(caller),
            user=user,
            agent=agent,
            opened_by="" if sees_all(caller) else caller.id,
            states=_stored_states(state),
        )
        # Few sessions out of many may have a computed state: smaller steps would query the store once for each.
        # In larger steps, sessions of the largest size would take hundreds of megabytes.
        step = min(size, _STEP) if state is None else _STEP

        def seen(session: Session) -> SessionView | None:
            # EXPIRED is computed, so the store cannot filter by it; nor by the bounds of a gateway.
            if state not in (None, state_of(session, now)) or not sees(caller, session):
                return None
            if bundle is None:
                return self._summary(session, now)
            return self._view((session, *self._sessions.get(session.id)[1:]), bundle, now, caller)

        rows = rows_of(
            lambda start: self._sessions.select(which, limit=step, before=start), _position, step=step, before=before
        )
        return filled_page(rows, seen, _position, size=size, before=before, fits=fits)

    def _proposal(
        self,
        chain: tuple[Session, ...],
        grants: tuple[str, ...],
        narrowing: Narrowing | None,
        bundle: Bundle,
        now: Instant,
        caller: Caller,
    ) -> tuple[SessionView, Scope]:
        view = self._summary(chain[0], now)
        session = view.session
        if view.state is not SessionState.ACTIVE or grants or narrowing:
            require_waiting(session, now)
        scope, digest = session.scope or expansion(session, chain[1:], bundle), ""
        if view.state is SessionState.REQUESTED:
            session, scope = self._narrowed(owned(session, caller, bundle), scope, narrowing, bundle)
            session = replace(session, grants=tuple(sorted(set(grants))))
            digest = request_digest_of(session, scope, bundle, grants)
        return replace(view, session=session, tools=scoped_tools(scope, bundle), request_digest=digest), scope

    def _narrowed(
        self, session: Session, scope: Scope, narrowing: Narrowing | None, bundle: Bundle
    ) -> tuple[Session, Scope]:
        if narrowing is None:
            return session, scope
        return narrowed(session, scope, narrowing, bundle, self._limits)

    def _unusual(self, session: Session, scope: Scope, bundle: Bundle, now: Instant) -> tuple[Unusual, ...]:
        asked = Asked(
            session=session,
            actions=tuple(sorted(scope.tools)),
            of_user=past_of_user(session, self._sessions, kept_seconds=self._kept_seconds),
            of_agent=past_of_agent(session, self._sessions, kept_seconds=self._kept_seconds),
            catalogue=bundle.catalogue,
            now_at=now.wall_at,
        )
        return unusual(asked)

    def _chain(self, session_id: str, caller: Caller) -> tuple[Session, ...]:
        return self._visible(self._sessions.get(session_id), caller)

    def _visible(self, chain: tuple[Session, ...], caller: Caller) -> tuple[Session, ...]:
        # INVARIANT: an unknown session and a foreign one get the same error.
        if not chain or not sees(caller, chain[0]):
            raise NotFoundError("no such session")
        return chain

    def _endable(self, chain: tuple[Session, ...], caller: Caller) -> tuple[Session, ...]:
        # INVARIANT: ending works, whatever the bounds of a gateway are now. The same id in another tenant is another.
        own = chain and chain[0].opened_by == caller.id and chain[0].tenant in caller.tenants
        return chain if own else self._visible(chain, caller)

    def _view(self, chain: tuple[Session, ...], bundle: Bundle, now: Instant, caller: Caller) -> SessionView:
        view = self._summary(chain[0], now)
        waiting = view.state is SessionState.REQUESTED
        if waiting:
            view = replace(view, session=owned(view.session, caller, bundle))
        scope = expansion(view.session, chain[1:], bundle) if waiting else view.session.scope
        return replace(
            view,
            tools=scoped_tools(scope, bundle) if scope else (),
            request_digest=request_digest_of(view.session, scope, bundle) if waiting and scope else "",
        )

    def _shown(self, chain: tuple[Session, ...], now: Instant, caller: Caller) -> SessionView:
        """Return a session as it is now, also while the active bundle is not loaded, unless it waits for approval.

        Then one that is over has no tools, and the tools of an active one have no groups.
        """
        try:
            bundle = self._bundle()
        except BundleUnavailableError:
            # INVARIANT: what ends or narrows authority needs no bundle.
            view = self._summary(chain[0], now)
            if view.state is SessionState.REQUESTED:
                raise
            scope = chain[0].scope if view.state is SessionState.ACTIVE else None
            return replace(view, tools=scoped_tools(scope, None)) if scope else view
        return self._view(chain, bundle, now, caller)

    def _summary(self, session: Session, now: Instant) -> SessionView:
        state = state_of(session, now)
        if state is SessionState.EXPIRED:
            # `ExpiryNotices` passes it on once.
            self._observer.event(_expiry(session, now))
        return SessionView(session=session, state=state)

    def _now(self) -> Instant:
        return no_earlier(self._clock.now(), self._sessions.high_water_at())


def _expiry(session: Session, now: Instant) -> Event:
    facts = {"was": session.state.value, "expired_at": utc_text(session.deadline.wall_at)}
    return Event.of_session(EventKind.SESSION_EXPIRED, session, at=now.wall_at, facts=facts)


def _position(session: Session) -> Position:
    return session.requested_at, session.id


def _stored_states(state: SessionState | None) -> frozenset[SessionState]:
    if state is None:
        return frozenset()
    return LIVE if state is SessionState.EXPIRED else frozenset({state})
