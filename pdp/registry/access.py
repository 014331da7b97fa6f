"""Shows people the calls that wait for them, and takes their answers: applies the rules and asks the policies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from pdp.clock import Clock, Instant, no_earlier
from pdp.decision.accessevents import access_event
from pdp.errors import InvalidRequestError, NotFoundError, UnavailableError, WrongStateError
from pdp.foundation.paging import Position, filled_page, page_size_of, page_start_of, rows_of
from pdp.limits import Limits
from pdp.model import Caller, Role, Session
from pdp.observer import EventKind, Observer
from pdp.policy.bundle import Bundle
from pdp.policy.schema import APPROVE_CALL
from pdp.policy.tools.catalogue import CRITICAL
from pdp.registry.accessreview import AccessReview, AccessView, review, view
from pdp.registry.approvers import require_another, require_approver, require_presence
from pdp.registry.events import presence
from pdp.registry.outwaiting import outwaiting
from pdp.registry.policies import SessionPolicies, SessionQuestion, WaitingCall
from pdp.registry.scope import scope_of
from pdp.registry.seeing import sees_all, sees_request, tenant_seen
from pdp.sessions import access
from pdp.sessions.access import AccessFilter, AccessRequest, AccessState
from pdp.sessions.freezes import require_unfrozen
from pdp.sessions.historycontract import AccessRequests, SessionHistory
from pdp.sessions.lifecycle import earliest_end
from pdp.sessions.store import Sessions
from pdp.sessions.writes import Write

# The number of requests that are read at a time.
_STEP: Final = 100
# States that end by themselves, and are stored on.
_LIVE: Final = frozenset({AccessState.OPEN, AccessState.APPROVED})


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSelector:
    """Which approvals to take back: of one request, or all of a session."""

    kind: Literal["request", "session"]
    value: str


class Approvals:
    """The only way for people to answer access requests. Safe for threads.

    `bundle` returns the active bundle. While `record_permits` returns False, nothing is approved. Every method raises
    `UnavailableError` when it cannot answer, and `NotFoundError` for a request that does not exist and for one that the
    caller may not see.
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
        record_permits: Callable[[], bool] = lambda: True,
    ) -> None:
        self._sessions = sessions
        self._history = history
        self._bundle = bundle
        self._clock = clock
        self._observer = observer
        self._limits = limits
        self._record_permits = record_permits
        self._policies = SessionPolicies(clock=clock, observer=observer)

    def approve(
        self,
        request_id: str,
        *,
        request_digest: str,
        calls: int = 1,
        caller: Caller,
        trace: Mapping[str, str] | None = None,
        write: Write | None = None,
    ) -> AccessView:
        """Approve exactly what was shown, for so many calls.

        With a `write`, here and for `deny`, the answer is remembered, so that it can be given again: see `written`.
        `trace` holds the facts of the event that link the policies' answer to the caller's trace. Raise
        `InvalidRequestError` for more calls than a run may have, `WrongStateError` when the request is not open or is
        not what was shown, `PermissionDeniedError` when a rule or the policies refuse, and `FrozenError` while the
        tenant is frozen.
        """
        require_approver(caller, "a call")
        if not self._record_permits():
            raise UnavailableError("the record accepts no more entries; calls can be refused, but not approved")
        bundle, now = self._bundle(), self._now()
        request, chain = self._known(request_id, caller)
        # Early, so that nobody logs in anew in vain.
        require_unfrozen(request.tenant, self._sessions.freezes())
        agents = (request.agent, *(session.agent for session in chain))
        require_another(caller, "a call", asked_by=request.asked_by, agents=agents)
        reviewed = self._review(request, chain, bundle, caller, now)
        if reviewed.view.state is not AccessState.OPEN:
            raise WrongStateError(f"the access request is {reviewed.view.state.value}, not open")
        if request_digest != reviewed.request_digest:
            raise WrongStateError(
                "the request digest does not match what would be approved now; read the request again"
            )
        if calls > reviewed.most_calls:
            most = f"at most {reviewed.most_calls} calls" if reviewed.most_calls > 1 else "one call"
            raise InvalidRequestError("calls", f"an approval of this request is for {most}")
        if reviewed.critical:
            what = CRITICAL if CRITICAL in reviewed.groups else reviewed.risk
            require_presence(caller, f"`{request.call.action}` is {what}", now)
        approve = partial(
            access.approve, now=now, by=caller.id, session_end=earliest_end(chain, now), uses=max(1, calls)
        )
        # Before the policies are asked: a request that cannot be approved needs no answer from them.
        approve(request)
        decided = self._policies.require(bundle, _question(reviewed, chain, caller, now, calls, trace or {}))
        with self._sessions.unfrozen(request.tenant):
            approved = self._requests().answer(request_id, approve, write=write)
        self._observer.event(decided)
        given = {"calls": str(approved.most_uses), "request_digest": request_digest, **presence(caller)}
        self._observer.event(
            access_event(EventKind.ACCESS_APPROVED, approved, at=now.wall_at, caller_id=caller.id, **given)
        )
        return AccessView(request=approved, state=approved.state)

    def deny(self, request_id: str, *, reason: str, caller: Caller, write: Write | None = None) -> AccessView:
        """Refuse a call, for the rest of its session. Raise `WrongStateError` unless the request is open.

        As with `revoke`, the table of RPCs says who may: whoever ends authority needs no right to give it.
        """
        now = self._now()
        self._visible(request_id, caller)
        deny = partial(access.deny, now=now, by=caller.id, reason=reason)
        with outwaiting(self._requests(), request_id):
            denied = self._requests().answer(request_id, deny, write=write)
        self._observer.event(access_event(EventKind.ACCESS_DENIED, denied, at=now.wall_at, caller_id=caller.id))
        return AccessView(request=denied, state=denied.state)

    def written(self, write: Write) -> tuple[str, ...] | None:
        """Return the ids of what was answered or taken back before; None when nothing was, or it is forgotten.

        Raise `RequestIdConflictError` when another answer was given under the same request id.
        """
        return self._requests().written(write, wall_at=self._now().wall_at)

    def again(self, request_id: str, *, caller: Caller) -> AccessView:
        """Return a request that was answered, as it is now."""
        request = self._visible(request_id, caller)
        if request.state not in _LIVE:
            # INVARIANT: what ends authority needs no bundle.
            return AccessView(request=request, state=request.state)
        return self._view(request, self._bundle(), self._now())

    def revoke(
        self, selector: AccessSelector, *, reason: str, caller: Caller, write: Write | None = None
    ) -> tuple[str, ...]:
        """Take back approvals that are not used up; return the ids of their requests, sorted.

        A request that was revoked before is none of them. With a `write` what changes is remembered, so that it can be
        asked for again: see `written`. Raise `WrongStateError` for one request without an approval.
        """
        now = self._now()
        revoke = partial(access.revoke, now=now, by=caller.id, reason=reason)
        if selector.kind == "request":
            if self._visible(selector.value, caller).state is AccessState.REVOKED:
                # Another has taken it back, and may not have been answered yet: this changes nothing, and is as safe.
                self._requests().answer_all([selector.value], revoke)
                return ()
            with outwaiting(self._requests(), selector.value):
                revoked = self._requests().answer(selector.value, revoke, write=write)
            return self._revoked([revoked], caller, now)
        chain = self._sessions.get(selector.value)
        if not chain or chain[0].tenant != caller.tenant:
            raise NotFoundError("no such session")
        which = AccessFilter(
            tenant=caller.tenant,
            session_id=selector.value,
            # Also what another has taken back, who may not have been answered yet: this answers for it.
            states=frozenset({AccessState.APPROVED, AccessState.REVOKED}),
            ends_after=now.wall_at,
        )
        given = [request.id for request in self._rows(which)]
        # One of them can be used up, or expire, since it was read. Also without any, a commit makes safe what was read.
        return self._revoked(self._requests().answer_all(given, revoke, write=write), caller, now)

    def get(self, request_id: str, *, caller: Caller) -> AccessReview:
        """Return one request, with what this caller may see of it."""
        request, chain = self._known(request_id, caller)
        return self._review(request, chain, self._bundle(), caller, self._now())

    def waiting(self, request_id: str, *, caller: Caller) -> AccessReview:
        """Return an open request with its arguments. Raise `WrongStateError` for any other."""
        reviewed = self.get(request_id, caller=caller)
        if reviewed.view.state is not AccessState.OPEN:
            raise WrongStateError(f"the access request is {reviewed.view.state.value}, not open")
        return reviewed

    def list(
        self,
        *,
        state: AccessState | None,
        session_id: str,
        user: str,
        page_size: int,
        page_token: str,
        caller: Caller,
        fits: Callable[[AccessView], bool] = lambda _: True,
    ) -> tuple[tuple[AccessView, ...], str]:
        """Return a page of requests, newest first, and the token of the next page (empty at the end).

        `fits` is called for each request in turn; the first that does not fit begins the next page.
        """
        size = page_size_of(page_size)
        before = page_start_of(page_token, float, str)
        bundle, now = self._bundle(), self._now()
        ends_after = now.wall_at if state in _LIVE else 0.0
        which = self._filter(session_id, user, caller, _stored_states(state), ends_after)

        def seen(request: AccessRequest) -> AccessView | None:
            if not sees_request(caller, request):
                return None
            found = self._view(request, bundle, now)
            return found if state in (None, found.state) else None

        return filled_page(self._rows(which, before), seen, _position, size=size, before=before, fits=fits)

    def revision(self) -> int:
        """Return the latest revision of all requests: while it stays the same, none has changed."""
        return self._requests().revision()

    def open_now(self, *, session_id: str, user: str, caller: Caller) -> Iterator[AccessView]:
        """Yield the requests that are open, newest first."""
        bundle, now = self._bundle(), self._now()
        which = self._filter(session_id, user, caller, frozenset({AccessState.OPEN}), now.wall_at)
        for request in self._rows(which):
            seen = self._view(request, bundle, now)
            if seen.state is AccessState.OPEN and sees_request(caller, request):
                yield seen

    def changed(self, *, after: int, session_id: str, user: str, caller: Caller) -> Iterator[AccessView]:
        """Yield the requests with a later revision than `after`, by revision."""
        which = self._filter(session_id, user, caller, frozenset())
        bundle, now = self._bundle(), self._now()
        while page := self._requests().changed(which, after=after, limit=_STEP):
            for request in page:
                if sees_request(caller, request):
                    yield self._view(request, bundle, now)
            after = page[-1].revision

    def _revoked(self, revoked: Sequence[AccessRequest], caller: Caller, now: Instant) -> tuple[str, ...]:
        """Report what was revoked; return the ids, sorted."""
        for one in revoked:
            self._observer.event(access_event(EventKind.ACCESS_REVOKED, one, at=now.wall_at, caller_id=caller.id))
        return tuple(sorted(one.id for one in revoked))

    def _rows(self, which: AccessFilter, before: Position | None = None) -> Iterator[AccessRequest]:
        read = partial(self._requests().select, which, limit=_STEP)
        return rows_of(lambda start: read(before=start), _position, step=_STEP, before=before)

    def _review(
        self, request: AccessRequest, chain: tuple[Session, ...], bundle: Bundle, caller: Caller, now: Instant
    ) -> AccessReview:
        seen, approves = view(request, chain, bundle, now), Role.APPROVER in caller.roles
        arguments = None
        if seen.state is AccessState.OPEN and (approves or request.asked_by == caller.id):
            arguments = self._requests().arguments(request.id, now)
        return review(seen, chain, bundle, arguments or b"", self._limits, for_approver=approves)

    def _view(self, request: AccessRequest, bundle: Bundle, now: Instant) -> AccessView:
        waits = request.state in (AccessState.OPEN, AccessState.APPROVED)
        chain = self._sessions.get(request.call.session_id) if waits else ()
        return view(request, chain, bundle, now)

    # Visibility to the caller.

    def _known(self, request_id: str, caller: Caller) -> tuple[AccessRequest, tuple[Session, ...]]:
        request = self._visible(request_id, caller)
        return request, self._sessions.get(request.call.session_id)

    def _visible(self, request_id: str, caller: Caller) -> AccessRequest:
        request = self._requests().get(request_id)
        # INVARIANT: an unknown request and a foreign one get the same error.
        if request is None or not sees_request(caller, request):
            raise NotFoundError("no such access request")
        return request

    def _filter(
        self, session_id: str, user: str, caller: Caller, states: frozenset[AccessState], ends_after: float = 0.0
    ) -> AccessFilter:
        return AccessFilter(
            tenant=tenant_seen(caller),
            session_id=session_id,
            user=user,
            asked_by="" if sees_all(caller) else caller.id,
            states=states,
            ends_after=ends_after,
        )

    def _requests(self) -> AccessRequests:
        return self._history.access()

    def _now(self) -> Instant:
        return no_earlier(self._clock.now(), self._sessions.high_water_at())


def _position(request: AccessRequest) -> Position:
    return request.asked_at, request.id


def _stored_states(state: AccessState | None) -> frozenset[AccessState]:
    if state is None:
        return frozenset()
    return _LIVE if state is AccessState.EXPIRED else frozenset({state})


def _question(
    reviewed: AccessReview,
    chain: Sequence[Session],
    caller: Caller,
    now: Instant,
    calls: int,
    trace: Mapping[str, str],
) -> SessionQuestion:
    request, session = reviewed.view.request, chain[0]
    return SessionQuestion(
        action=APPROVE_CALL,
        session=session,
        scope=session.scope or scope_of({}),
        caller=caller,
        speaker=caller.id,
        asked_at=now.wall_at,
        grants=session.grants,
        call=WaitingCall(
            action=request.call.action,
            risk=reviewed.risk,
            groups=reviewed.groups,
            provenance=request.provenance,
            questions=tuple(ask.question for ask in request.call.asks),
            calls=max(1, calls),
        ),
        about={"access_request_id": request.id, "tool": request.call.action},
        trace=trace,
    )
