"""Opens, approves, denies and narrows sessions: applies the rules, asks the policies and reports each change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import inf, isfinite

from pdp.clock import Clock, Deadline, Instant
from pdp.errors import (
    ConflictError,
    InvalidRequestError,
    OverloadedError,
    RequestIdConflictError,
    UnavailableError,
    WrongStateError,
)
from pdp.foundation.ids import handle_digest, new_handle
from pdp.limits import MOST_LABELS, Limits
from pdp.model import Caller, Scope, Session, SessionState
from pdp.observer import Event, EventKind, Observer
from pdp.policy.bundle import Bundle
from pdp.policy.grants import require_known
from pdp.policy.patterns import ToolPatterns
from pdp.policy.schema import APPROVE_SESSION, DELEGATE_SESSION, REQUEST_SESSION
from pdp.registry.approvers import require_another, require_approver, require_presence
from pdp.registry.drafting import Drafting
from pdp.registry.ending import SessionEnding
from pdp.registry.events import approved_event, narrowed_event, opened_event, presence
from pdp.registry.labels import require_labels
from pdp.registry.narrowing import Narrowing
from pdp.registry.outwaiting import outwaiting
from pdp.registry.policies import SessionPolicies, SessionQuestion
from pdp.registry.requirements import require_active, require_waiting
from pdp.registry.scope import (
    expansion,
    has_too_many,
    request_digest_of,
    require_patterns,
    require_tools,
    scope_of,
    scoped_tools,
)
from pdp.registry.usergroups import owned, require_few
from pdp.registry.words import SessionRequest, SessionView
from pdp.sessions import lifecycle
from pdp.sessions.freezes import require_unfrozen
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.lifecycle import earliest_end, state_of
from pdp.sessions.store import Sessions
from pdp.sessions.valuekeys import key_of, sealed_for
from pdp.sessions.writes import Write

# The approver of a tool with this risk must have authenticated recently.
_HIGH_RISK = "destructive"


class Registrar(SessionEnding):
    """The only way to create and change sessions, beside their views. Safe for threads.

    A change is reported to the observer once it is stored, before the wait for servers that do not know it yet.
    `bundle` returns the active bundle. `trusted_attributes` names the attributes of a user that a PEP may vouch for.
    While `record_permits` returns False, no session is opened or approved. Every method raises `UnavailableError` when
    it cannot answer.
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
        trusted_attributes: frozenset[str] = frozenset(),
        kept_seconds: float = inf,
        record_permits: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(
            sessions=sessions,
            history=history,
            bundle=bundle,
            clock=clock,
            observer=observer,
            limits=limits,
            kept_seconds=kept_seconds,
        )
        self._drafting = Drafting(limits, trusted_attributes)
        self._record_permits = record_permits
        self._policies = SessionPolicies(clock=clock, observer=observer)

    def request(
        self,
        wanted: SessionRequest,
        caller: Caller,
        *,
        trace: Mapping[str, str] | None = None,
        write: Write | None = None,
    ) -> tuple[SessionView, str]:
        """Open a session that waits for approval, and return it with its secret handle.

        `trace` holds the facts of the event that link the policies' answer to the caller's trace. With a `write`, here
        and below, the change is remembered, so that it can be asked for again: see `written`.
        A delegation that the parent's approval and the policies allow becomes active at once. Raise
        `InvalidRequestError` naming the attribute, `PermissionDeniedError` when the policies refuse,
        `WrongStateError` when the parent is not active, `FrozenError` while the tenant is frozen.
        """
        self._require_record()
        bundle, now = self._bundle(), self._now()
        self._require_few(caller, now)
        parents = self._parents(wanted, caller, bundle, now)
        self._require_unfrozen(parents[0].tenant if parents else caller.tenant)
        draft, handle = self._drafting.draft(wanted, caller, parents, bundle, now)
        require_few(draft)
        scope = expansion(draft, parents, bundle)
        require_tools(wanted.tool_patterns, scope, self._limits)
        asked = SessionQuestion(
            action=REQUEST_SESSION,
            session=draft,
            scope=scope,
            caller=caller,
            speaker=draft.user,
            asked_at=now.wall_at,
            trace=trace or {},
        )
        decided = self._policies.require(bundle, asked)
        delegable, delegated = self._may_delegate(asked, parents, bundle)
        if delegable:
            approved = lifecycle.approve(
                draft,
                now,
                scope=scope,
                grants=(),
                widening=bundle.widening_labels(draft.labels, scope.tools),
                by=parents[0].id,
                no_later_than=earliest_end(parents, now),
            )
            draft = replace(approved, epoch=1)
        events = [decided, *delegated, opened_event(EventKind.SESSION_REQUESTED, draft, caller, now.wall_at)]
        if parents:
            events.append(opened_event(EventKind.SESSION_DELEGATED, draft, caller, now.wall_at))
        if draft.state is SessionState.ACTIVE:
            given = {"by": draft.approved_by, "bundle_version": bundle.version}
            events.append(opened_event(EventKind.SESSION_APPROVED, draft, caller, now.wall_at, **given))
        with self._sessions.fencing(lambda _: events):
            self._sessions.insert(draft, wall_at=now.wall_at, write=write)
            self._tell(events)
        self._capture_again(draft, bundle, now, caller)
        return self._view((draft, *parents), bundle, now, caller), handle

    def approve(
        self,
        session_id: str,
        *,
        request_digest: str,
        grants: tuple[str, ...],
        caller: Caller,
        narrowing: Narrowing | None = None,
        trace: Mapping[str, str] | None = None,
        write: Write | None = None,
    ) -> SessionView:
        """Approve exactly what was shown, or what a narrowing leaves of it. `trace` is as for `request`.

        The digest is that of `review` with the same grants and narrowing.
        Raise `InvalidRequestError` for a grant that nothing in the bundle names and for a narrowing that is none,
        `WrongStateError` when the session does not wait for approval, would have too many tools, or is not what was
        shown, `PermissionDeniedError` when a rule or the policies refuse, and `FrozenError` while its tenant is frozen.
        """
        require_approver(caller, "a session")
        self._require_record()
        bundle, now = self._bundle(), self._now()
        chain = self._chain(session_id, caller)
        wanted, parents = owned(chain[0], caller, bundle), chain[1:]
        self._require_unfrozen(wanted.tenant)
        # Of a user who asks with a token of their own, the policies say whether they approve for themselves.
        asked_by = "" if wanted.opened_by == wanted.user else wanted.opened_by
        require_another(caller, "a session", asked_by=asked_by, agents=[session.agent for session in chain])
        require_waiting(wanted, now)
        require_few(wanted)
        require_active(parents, bundle, now)
        require_known(grants, bundle.grants)
        whole = expansion(wanted, parents, bundle)
        session, scope = self._narrowed(wanted, whole, narrowing, bundle)
        if has_too_many(scope, self._limits):
            # The catalogue grew, or the limit shrank, since the request: the approval itself is valid.
            raise WrongStateError(
                f"the session's tool patterns now match {len(scope.tools)} tools, "
                f"more than {self._limits.session_tools} (limit `session_tools`)"
            )
        if request_digest != request_digest_of(session, scope, bundle, grants):
            if request_digest == request_digest_of(wanted, whole, bundle):
                raise WrongStateError(
                    "the request digest covers neither grants nor a narrowing; review the session with them"
                )
            raise WrongStateError(
                "the request digest does not match what would be approved now; read the session again"
            )
        _require_presence(caller, scope, bundle, now)
        asked = SessionQuestion(
            action=APPROVE_SESSION,
            session=session,
            scope=scope,
            caller=caller,
            speaker=caller.id,
            asked_at=now.wall_at,
            grants=grants,
            trace=trace or {},
        )
        decided = self._policies.require(bundle, asked)
        bound = earliest_end(parents, now) if parents else None
        approved = lifecycle.approve(
            session,
            now,
            scope=scope,
            grants=grants,
            widening=bundle.widening_labels(session.labels, scope.tools),
            by=caller.id,
            no_later_than=bound,
        )
        given = {"by": caller.id, "bundle_version": bundle.version, "request_digest": request_digest}
        events = (decided, approved_event(wanted, whole, approved, caller, now.wall_at, **given, **presence(caller)))
        with self._sessions.fencing(lambda _: events):
            try:
                self._sessions.update([approved], wall_at=now.wall_at, write=write)
            except ConflictError:
                require_waiting(self._chain(session_id, caller)[0], now)
                raise
            self._tell(events)
        return self._view((approved, *parents), bundle, now, caller)

    def deny(self, session_id: str, *, reason: str, caller: Caller, write: Write | None = None) -> SessionView:
        """Refuse a requested session. Raise `WrongStateError` when it does not wait for approval."""
        require_approver(caller, "a session")
        now = self._now()
        chain = self._chain(session_id, caller)
        with outwaiting(self._sessions, chain[0].id):
            denied = lifecycle.deny(chain[0], now, by=caller.id, reason=reason)
        events = (opened_event(EventKind.SESSION_DENIED, denied, caller, now.wall_at),)
        with self._sessions.fencing(lambda _: events):
            self._sessions.update([denied], wall_at=now.wall_at, write=write)
            self._tell(events)
        return self._shown((denied, *chain[1:]), now, caller)

    def written(self, write: Write) -> tuple[str, ...] | None:
        """Return the ids of the sessions of a change that was made before; None when it was not, or is forgotten.

        Raise `RequestIdConflictError` when another change was asked for under the same request id.
        """
        return self._sessions.written(write, wall_at=self._now().wall_at)

    def renew(self, session_id: str, wanted: SessionRequest, *, caller: Caller) -> tuple[SessionView, str]:
        """Give a session that waits for approval another handle, and return it with that; the first one is void.

        Raise `RequestIdConflictError` when it waits no longer: no handle is given a second time.
        """
        self._require_record()
        bundle, now = self._bundle(), self._now()
        session, *above = self._chain(session_id, caller)
        if state_of(session, now) is not SessionState.REQUESTED:
            raise RequestIdConflictError(
                f"session `{session.id}` was requested under this request id and no longer waits for approval, so its "
                "handle is not given again; use a fresh id"
            )
        handle = new_handle()
        key = key_of(above[0], wanted.parent_session_handle) if session.sealed_key else b""
        renewed = replace(
            session,
            epoch=session.epoch + 1,
            handle_digest=handle_digest(handle),
            sealed_key=sealed_for(session.id, handle, key),
        )
        events = (Event.of_session(EventKind.SESSION_HANDLE_RENEWED, renewed, at=now.wall_at, caller_id=caller.id),)
        with self._sessions.fencing(lambda _: events):
            self._sessions.renew_handle(renewed, wall_at=now.wall_at)
            self._tell(events)
        return self._view((renewed, *above), bundle, now, caller), handle

    def narrow(
        self,
        session_id: str,
        *,
        tool_patterns: tuple[str, ...],
        expires_at: float | None,
        labels: tuple[str, ...],
        caller: Caller,
        write: Write | None = None,
    ) -> SessionView:
        """Narrow an active session: fewer tools, an earlier end, more labels. Only new labels need a bundle.

        Raise `InvalidRequestError` naming the attribute, `WrongStateError` unless active, `ConflictError` when another
        change came first.
        """
        require_patterns(tool_patterns, self._limits)
        if expires_at is not None and not isfinite(expires_at):
            raise InvalidRequestError("expires_at", "must be a time")
        now = self._now()
        chain = self._chain(session_id, caller)
        session = chain[0]
        if not set(labels) <= set(session.labels):
            # Without it, a label that widens cannot be told from others.
            require_labels(labels, self._bundle().labels, present=session.labels)
        if len({*session.labels, *labels}) > max(MOST_LABELS, len(session.labels)):
            raise InvalidRequestError("labels", f"more than {MOST_LABELS} in total")
        end = session.deadline if expires_at is None else Deadline.after(now, expires_at - now.wall_at)
        with outwaiting(self._sessions, chain[0].id):
            scope = _kept_of(session, tool_patterns, now)
            narrowed = lifecycle.narrow(session, now, scope=scope, deadline=end, labels=labels)
        if narrowed is None:
            # Another has narrowed it as far, and may not have been answered yet: a change of nothing is done for all,
            # and a machine that closes again what was closed counts it as its own.
            self._sessions.change_tree(session_id, _unchanged, wall_at=now.wall_at)
        else:
            events = (narrowed_event(session, narrowed, caller, now.wall_at),)
            with self._sessions.fencing(lambda _: events):
                self._sessions.update([narrowed], wall_at=now.wall_at, write=write)
                self._tell(events)
        return self._shown((narrowed or session, *chain[1:]), now, caller)

    # Requests.

    def _capture_again(self, draft: Session, bundle: Bundle, now: Instant, caller: Caller) -> None:
        # The activation of a bundle after the directory was read and before the insert did not recapture this session.
        # Repeat after each change: another bundle may have become active before the capture was stored.
        seen = bundle.version
        while (active := self._bundle()).version != seen:
            seen, captured = active.version, active.directory.capture(draft.user, draft.agent)
            self._sessions.change_tree(
                draft.id,
                partial(lifecycle.recapture, now=now, entities_json=captured, by=caller.id),
                wall_at=now.wall_at,
            )

    def _parents(self, wanted: SessionRequest, caller: Caller, bundle: Bundle, now: Instant) -> tuple[Session, ...]:
        if not wanted.parent_session_handle:
            return ()
        view = self._sessions.view(handle_digest(wanted.parent_session_handle))
        parents = self._visible(view.chain, caller)
        require_active(parents, bundle, now)
        if len(parents) > self._limits.delegation_depth:
            raise InvalidRequestError(
                "parent_session_handle", f"deeper than {self._limits.delegation_depth} (limit `delegation_depth`)"
            )
        return parents

    # Rules and policies.

    def _require_record(self) -> None:
        if not self._record_permits():
            raise UnavailableError(
                "the record accepts no more entries; sessions can be ended and narrowed, but not opened"
            )

    def _require_unfrozen(self, tenant: str) -> None:
        # Early, so that nobody logs in anew in vain. INVARIANT: the store checks it again in the write.
        require_unfrozen(tenant, self._sessions.freezes())

    def _require_few(self, caller: Caller, now: Instant) -> None:
        most = self._limits.live_sessions
        if self._sessions.count_live(caller.id, wall_at=now.wall_at) >= most:
            raise OverloadedError(f"`{caller.id}` has {most} live sessions, the most allowed (limit `live_sessions`)")

    def _may_delegate(
        self, asked: SessionQuestion, parents: tuple[Session, ...], bundle: Bundle
    ) -> tuple[bool, tuple[Event, ...]]:
        """Return whether a delegation needs no person, and the events to report."""
        if not (parents and parents[0].may_delegate and parents[0].user == asked.session.user):
            return False, ()
        ruling, decided = self._policies.ask(bundle, replace(asked, action=DELEGATE_SESSION))
        return ruling.allowed, (decided,)


def _kept_of(session: Session, tool_patterns: tuple[str, ...], now: Instant) -> Scope:
    """Return the tools that patterns keep; all without any. Raise `WrongStateError` when it was never active."""
    if session.scope is None:
        raise WrongStateError(f"the session is {state_of(session, now).value}, not active")
    keep = ToolPatterns(tool_patterns)
    return scope_of({a: d for a, d in session.scope.tools.items() if not tool_patterns or keep.match(a)})


def _require_presence(caller: Caller, scope: Scope, bundle: Bundle, now: Instant) -> None:
    """Refuse destructive tools when the approver authenticated too long ago."""
    risky = [tool.tool for tool in scoped_tools(scope, bundle) if tool.risk == _HIGH_RISK]
    if risky:
        require_presence(caller, f"`{risky[0]}` is {_HIGH_RISK}", now)


def _unchanged(_: Session) -> None:
    """Leave a session as it is."""
