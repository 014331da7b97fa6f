"""Bring sessions into the states that cases need, through the registrar and the tested policies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from pdp.clock import Deadline, Instant
from pdp.decision.authorizer import Authorizer
from pdp.decision.cache import DecisionCache
from pdp.decision.ledger import Ledger
from pdp.decision.observers import Observers
from pdp.decision.snapshot import Snapshot, Snapshots
from pdp.decision.values import names_in_results
from pdp.errors import InvalidJSONError, PDPError, PermissionDeniedError
from pdp.foundation.jsontext import parse_object
from pdp.foundation.yamltext import unknown
from pdp.limits import Limits
from pdp.model import AT_EACH_CALL, Basis, Call, Caller, CallRequest, CallStatus, Decision, Role, SessionState
from pdp.policy.budgets import budgets_of
from pdp.policy.bundle import Bundle
from pdp.policy.provenance import FindNames
from pdp.policy.schema import APPROVE_CALL
from pdp.policy.tools.catalogue import Tool
from pdp.registry.outcomes import OutcomeReport, Outcomes
from pdp.registry.policies import SessionPolicies, SessionQuestion, WaitingCall
from pdp.registry.readings import NO_VALUES, ReportedValues
from pdp.registry.registrar import Registrar
from pdp.registry.scope import scope_of
from pdp.registry.words import Selector, SessionRequest, SessionView
from pdp.sessions import access
from pdp.sessions.history import MemorySessionHistory
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.values import ActiveBundle
from pdp.workbench.suite import EarlierCall, NamedSession, Step, Suite
from pdp.workbench.watching import Asked, watched


class CaseError(Exception):
    """A case has no decision: the message says what to correct."""


class CannotOpenError(CaseError):
    """A session cannot be brought into the state that a case needs: correct the session or the policies.

    `asked` is what the policies were asked, up to the question that they refused; empty when they refused none.
    """

    def __init__(self, session: NamedSession, problem: str, asked: Sequence[Asked] = ()) -> None:
        super().__init__(f"session `{session.name}` {problem}")
        self.asked = tuple(asked)


class FixedClock:
    """A clock that moves only on command."""

    def __init__(self, wall_at: float) -> None:
        self._now = Instant(wall_at=wall_at, boot_at=0.0, boot_id="workbench")

    def now(self) -> Instant:
        """Return the current reading of both clocks."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        wall_at, boot_at = self._now.wall_at + seconds, self._now.boot_at + seconds
        self._now = Instant(wall_at=wall_at, boot_at=boot_at, boot_id=self._now.boot_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """One session of a stage. The view is that of its request: with what an approver was shown."""

    session: NamedSession
    view: SessionView
    handle: str = field(repr=False)

    @property
    def id(self) -> str:
        return self.view.session.id


class Stage:
    """A PDP in memory that holds one session with those above it, at one moment. For one thread.

    `opening` is what the policies were asked while the sessions were opened.
    """

    def __init__(self, bundle: Bundle, suite: Suite, name: str, now: float, limits: Limits) -> None:
        self._bundle = bundle
        self._line = _lineage(suite, name)
        self._now = now
        self._limits = limits
        # A session that must have expired at `now` begins its whole duration earlier.
        expired = [one for one in self._line if one.state is SessionState.EXPIRED]
        self._clock = FixedClock(now - max((self._life(one) for one in expired), default=0.0))
        self._store = MemorySessionStore()
        # Its calls are counted from before the first session on.
        active = ActiveBundle(
            version=bundle.version,
            activated_at=self._clock.now().wall_at - 1.0,
            activated_by="a test",
            counted=tuple((name, 0.0) for name in bundle.counted.all),
        )
        self._store.activate_bundle(active, b"", lambda _: None)
        history = self._history = MemorySessionHistory()
        self._seen: list[Asked] = []
        self._seen_by_all = seen_by_all = watched(bundle, self._seen)
        self._policies = SessionPolicies(clock=self._clock, observer=Observers())
        self._registrar = Registrar(
            sessions=self._store,
            history=history,
            bundle=lambda: seen_by_all,
            clock=self._clock,
            observer=Observers(),
            limits=limits,
            trusted_attributes=_vouched(self._line),
        )
        self._snapshots = Snapshots(
            sessions=self._store, bundle_for=lambda _: seen_by_all, current=lambda: seen_by_all, clock=self._clock
        )
        self._authorizer = Authorizer(
            snapshots=self._snapshots,
            ledger=Ledger(self._store, history, limits),
            history=history,
            observer=Observers(),
            # Without a cache: every case asks the policies.
            cache=DecisionCache(size=0),
            limits=limits,
        )
        self._outcomes = Outcomes(
            sessions=self._store, history=history, bundle=lambda: seen_by_all, clock=self._clock, observer=Observers()
        )
        self._opened: tuple[_Opened, ...] = ()
        self.opening: tuple[Asked, ...] = ()

    def open(self) -> None:
        """Open the sessions and bring them into their states. Raise `CannotOpenError`."""
        opened: list[_Opened] = []
        for session in self._line:
            opened.append(self._request(session, opened[-1].handle if opened else ""))
            if session.state not in (SessionState.REQUESTED, SessionState.DENIED):
                self._approve(opened[-1])
        # From the last to the first, because ending a parent ends all below it.
        for one in reversed(opened):
            self._close(one)
        self._clock.advance(self._now - self._clock.now().wall_at)
        for one in opened:
            self._require_state(one)
        self._opened = tuple(opened)
        self.opening = tuple(self._seen)

    def take(self, step: Step) -> Asked:
        """Take one step of the session; return what the policies were asked and said.

        They may refuse it. The sessions above are opened first. Raise `CannotOpenError` when the step cannot be
        reached.
        """
        handle = ""
        for session in self._line[:-1]:
            opened = self._request(session, handle)
            self._approve(opened)
            handle = opened.handle
        last = self._line[-1]
        before = len(self._seen)
        try:
            opened = self._request(last, handle)
            if step is Step.APPROVE:
                self._approve(opened)
        except CannotOpenError:
            if not self._asked(step, before):
                raise
        found = self._asked(step, before)
        if not found:
            raise CannotOpenError(last, f"never asks the policies about `{step.value}`{_why_not(step, self._line)}")
        self.opening = tuple(self._seen)
        return found[-1]

    def call(self, call: Call, gateway: str, *, approved: bool = False) -> tuple[Decision, Snapshot, tuple[Asked, ...]]:
        """Decide about a call in the opened session, with its handle filled in.

        If it waits for a person, one says yes when `approved`, and it is made again. Raises what `authorize` raises.
        """
        caller, handle = _gateway(gateway), self._opened[-1].handle
        before = len(self._seen)
        # Before the call, which can change the session.
        snapshot = replace(self._snapshots.of_handle(handle, caller), bundle=self._bundle)
        request = CallRequest(call=replace(call, session_handle=handle))
        decision = self._authorizer.authorize(request, caller)
        if decision.ruling.basis is Basis.APPROVAL_REQUIRED:
            self._answer(decision, approved=approved)
            decision = self._authorizer.authorize(request, caller) if approved else decision
        return decision, snapshot, tuple(self._seen[before:])

    def _answer(self, decision: Decision, *, approved: bool) -> None:
        now = self._clock.now()
        end = Deadline.after(now, access.APPROVAL_SECONDS)
        yes = partial(access.approve, now=now, by="approver", session_end=end)
        # INVARIANT: no case finds what another one has asked a person.
        withdrawn = partial(replace, deadline=Deadline.after(now, 0.0))
        self._history.access().answer(decision.access_request_id, yes if approved else withdrawn)

    def approve_call(self, call: Call, *, by: str = "") -> Asked:
        """Ask the policies whether a user may approve a call, by default the session's approver; return what they said.

        The call is made before, so that they see what a person is asked about it, if that is anything. Where the names
        of its targets come from rests on what earlier calls have returned. Raise `CaseError` when the arguments cannot
        be read.
        """
        decision, _, _ = self.call(call, self.gateway)
        waits = self._history.access().get(decision.access_request_id)
        chain = self._snapshots.of_handle(self._opened[-1].handle, _gateway(self.gateway)).chain
        tool = self._bundle.catalogue.tools[f"{call.server}/{call.tool}"]
        try:
            arguments = parse_object(call.arguments_json, self._limits)
        except InvalidJSONError as error:
            raise CaseError(f"the arguments cannot be read: {error}") from None
        last, session = self._line[-1], chain[0]
        # As a person would be shown it: in any session of the chain.
        seen = self._bundle.provenances.of(chain, tool, arguments, self.find)
        words = waits.provenance if waits else tuple(sorted({word for one in seen for word in one.provenance}))
        approver = self._approver(replace(last, approver=by or last.approver))
        asked = SessionQuestion(
            action=APPROVE_CALL,
            session=session,
            scope=session.scope or scope_of({}),
            caller=approver,
            speaker=approver.id,
            asked_at=self._clock.now().wall_at,
            grants=session.grants,
            call=WaitingCall(
                action=tool.action,
                risk=tool.risk,
                groups=tool.groups,
                provenance=words,
                questions=tuple(ask.question for ask in waits.call.asks) if waits else (),
            ),
        )
        self._policies.ask(self._seen_by_all, asked)
        return self._seen[-1]

    def report(self, decision: Decision, call: Call, gateway: str, earlier: EarlierCall) -> None:
        """Report what came of an allowed call, as its gateway. Raise `CaseError` when it cannot be reported."""
        if not decision.reportable and not (earlier.labels or earlier.result_json):
            # That it failed makes no difference, perhaps only in a variant of the bundle.
            return
        if not decision.reportable:
            raise CaseError(f"call `{earlier.call}` cannot be reported: the bundle makes no use of it")
        status = CallStatus.FAILED if earlier.failed else CallStatus.SUCCEEDED
        token, values = self._outcomes.token(decision), self._values(decision, call, earlier)
        try:
            self._outcomes.report(
                OutcomeReport(outcome_token=token, status=status, labels=earlier.labels, values=values),
                _gateway(gateway),
            )
        except PDPError as error:
            raise CaseError(f"call `{earlier.call}` cannot be reported: {error}") from None

    def _values(self, decision: Decision, call: Call, earlier: EarlierCall) -> ReportedValues:
        """Return what a gateway would report of the values in a result."""
        reading = self._outcomes.reading(decision, self._opened[-1].handle) if earlier.result_json else None
        if reading is None:
            return NO_VALUES
        # Only here: the client imports gRPC, which few test files need.
        from pdp.client.reading import read_result  # noqa: PLC0415 - see above
        from pdp.client.values import ResultReading  # noqa: PLC0415 - see above

        wanted = ResultReading(
            key=reading.key,
            trusted=reading.trusted,
            issues=reading.issues,
            kinds=reading.kinds,
            arguments_json=call.arguments_json,
        )
        held = read_result(wanted, json.loads(earlier.result_json))
        return ReportedValues(issued=held.issued, others=held.others)

    def changed_by(self, tool: Tool) -> bool:
        """Say whether an allowed call of a tool can change the opened session, or one above it."""
        budgets = (budget for one in self._opened for budget in budgets_of(one.view.session.terms_json))
        if tool.adds_labels or self._bundle.counted_as.get(tool.action):
            return True
        return any(budget.counts(tool) for budget in budgets)

    @property
    def find(self) -> FindNames:
        """Return what finds names in the results that the opened session and those above it have read."""
        last = self._opened[-1]
        return names_in_results(self._history, self._store.get(last.id), last.handle)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the session and those above it, nearest first.

        This is the order of a snapshot's chain.
        """
        return tuple(one.name for one in reversed(self._line))

    @property
    def gateway(self) -> str:
        """Return the id of the gateway that makes the calls of the session."""
        return self._line[-1].gateway

    def _asked(self, step: Step, start: int) -> list[Asked]:
        return [one for one in self._seen[start:] if one.action == step.value]

    def _life(self, session: NamedSession) -> float:
        return session.duration if session.duration is not None else self._bundle.session_seconds

    def _request(self, session: NamedSession, parent_handle: str) -> _Opened:
        self._require_known(session)
        wanted = SessionRequest(
            user=session.user,
            agent=session.agent,
            purpose=session.purpose,
            tool_patterns=session.tools,
            duration=session.duration,
            parent_session_handle=parent_handle,
            environment=session.environment,
            user_attributes_json=json.dumps(session.attributes).encode() if session.attributes else b"",
            labels=session.labels,
            may_delegate=session.may_delegate,
            terms_json=session.terms_json,
        )
        try:
            view, handle = self._registrar.request(wanted, _gateway(session.gateway))
        except PDPError as error:
            raise self._refused(session, "requested", error) from None
        return _Opened(session=session, view=view, handle=handle)

    def _require_known(self, session: NamedSession) -> None:
        for kind, name in (("User", session.user), ("Agent", session.agent)):
            if (kind, name) not in self._bundle.directory.entities:
                known = [uid[1] for uid in self._bundle.directory.entities if uid[0] == kind]
                raise CannotOpenError(session, f"cannot be requested: {unknown(kind.lower(), name, known)}")

    def _approve(self, opened: _Opened) -> None:
        session = opened.session
        if opened.view.state is SessionState.ACTIVE:
            # Delegated: there was no approver, so there are no grants.
            if session.grants:
                raise CannotOpenError(session, "is delegated without an approval, so no approver can give it `grants`")
            return
        approver = self._approver(session)
        try:
            self._registrar.approve(
                opened.id,
                request_digest=self._registrar.proposal(
                    opened.id, grants=session.grants, caller=approver
                ).request_digest,
                grants=session.grants,
                caller=approver,
            )
        except PDPError as error:
            raise self._refused(session, f"approved by `{session.approver}`", error) from None

    def _approver(self, session: NamedSession) -> Caller:
        ago = session.authenticated_ago
        return replace(
            _approver(session.approver), authenticated_at=0.0 if ago is None else self._clock.now().wall_at - ago
        )

    def _refused(self, session: NamedSession, deed: str, error: PDPError) -> CannotOpenError:
        by_policies = isinstance(error, PermissionDeniedError) and self._seen
        said = str(error)
        if by_policies and self._seen[-1].ruling.basis is Basis.DEFAULT_DENY:
            said = f"no permit for `{self._seen[-1].action}` matches"
        return CannotOpenError(session, f"cannot be {deed}: {said}", self._seen if by_policies else ())

    def _close(self, opened: _Opened) -> None:
        session = opened.session
        try:
            match session.state:
                case SessionState.DENIED:
                    self._registrar.deny(opened.id, reason="a test", caller=_approver(session.approver))
                case SessionState.ENDED:
                    self._registrar.end(opened.handle, caller=_gateway(session.gateway))
                case SessionState.REVOKED:
                    selector = Selector(kind="session", value=opened.id)
                    self._registrar.revoke(selector, reason="a test", caller=_approver(session.approver))
        except PDPError as error:
            raise CannotOpenError(session, f"cannot become {session.state.value}: {error}") from None

    def _require_state(self, opened: _Opened) -> None:
        wanted = opened.session.state
        if wanted is SessionState.ACTIVE:
            return  # a session above may have ended it, and such a case tests exactly that
        state = self._registrar.get(opened.id, caller=_approver(opened.session.approver)).state
        if state is not wanted:
            raise CannotOpenError(opened.session, f"cannot become {wanted.value}: it is {state.value}")


def _lineage(suite: Suite, name: str) -> tuple[NamedSession, ...]:
    """Return a session and those above it, the highest first."""
    found = [suite.sessions[name]]
    while found[0].parent:
        found.insert(0, suite.sessions[found[0].parent])
    return tuple(found)


def _vouched(line: Sequence[NamedSession]) -> frozenset[str]:
    return frozenset(name for session in line for name in session.attributes)


def _gateway(name: str) -> Caller:
    return Caller(id=name, kind="test", roles=frozenset({Role.PEP}))


def _approver(name: str) -> Caller:
    return Caller(id=name, kind="test", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)


def _why_not(step: Step, line: Sequence[NamedSession]) -> str:
    if step is Step.DELEGATE and len(line) == 1:
        return ": it has no `parent`"
    if step is Step.DELEGATE and not line[-2].may_delegate:
        return f": its parent `{line[-2].name}` does not say `may_delegate: true`"
    if step is Step.APPROVE:
        return ": it is delegated without an approval"
    return ": its user is not its parent's"
