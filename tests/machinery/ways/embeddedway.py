"""The way of a case through the authorizer and the registrar, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pdp.app.embedded import Embedded, open_embedded
from pdp.client.reading import read_result
from pdp.client.values import ResultReading
from pdp.decision.authorizer import NO_PARENT
from pdp.decision.cache import DecisionCache
from pdp.decision.explanation import Explanation
from pdp.errors import PDPError
from pdp.model import Basis, Call, Caller, CallRequest, CallStatus, Decision
from pdp.registry.access import AccessSelector
from pdp.registry.outcomes import OutcomeReport
from pdp.registry.readings import ReportedValues
from pdp.registry.words import Selector, SessionRequest, SessionView
from pdp.testing.bundles import compile_once_here
from pdp.testing.clock import FakeClock
from pdp.testing.evidence import Evidence
from pdp.testing.inprocess import write_folder
from tests.machinery.ways.explained import assert_explains
from tests.machinery.ways.notation import Case, Step, changed, files_of, plain, written
from tests.machinery.ways.ways import (
    CALLERS,
    UNKNOWN_HANDLE,
    RefusedError,
    Seen,
    Sessions,
    ends_at,
    kinds_of,
    listed,
    move_time,
    stated_digest,
)


class EmbeddedWay:
    """Through the authorizer and the registrar, in this process."""

    serves = False

    def __init__(self, case: Case, folder: Path, *, remembers: bool) -> None:
        self.remembers = remembers
        self.evidence = Evidence(folder)
        self._bundle = case.bundle
        self._folder = folder / "policies"
        self._clock = FakeClock()
        self._sessions = Sessions()
        self.ids = self._sessions.ids
        self.questions = self._sessions.questions
        write_folder(self._folder, files_of(case.bundle))
        self._pdp: Embedded = open_embedded(
            self._folder,
            clock=self._clock,
            observer=self.evidence,
            trace_ids=self.evidence.trace_ids,
            cache=DecisionCache() if remembers else DecisionCache(size=0),
            trusted_attributes=frozenset(case.trusts),
            compile_files=compile_once_here,
        )

    def close(self) -> None:
        """Release store and log."""
        self._pdp.close()
        self.evidence.close()

    def take(self, step: Step) -> Mapping[str, Any]:
        """Take a step that is no call."""
        if move_time(self._clock, step):
            return {}
        deed: Callable[[Step, Caller], Mapping[str, Any]] = getattr(self, f"_{step.verb}")
        try:
            return deed(step, CALLERS[step.caller])
        except PDPError as error:
            raise RefusedError(kinds_of(error), str(error)) from error

    def call(self, step: Step, request_id: str) -> Seen:
        """Ask about a call."""
        server, _, tool = step.subject.partition("/")
        call = Call(
            session_handle=self._sessions.handles.get(step.given["session"], UNKNOWN_HANDLE),
            server=server,
            tool=tool,
            arguments_json=step.arguments,
            definition_digest=stated_digest(self._bundle, step),
            facts_json=step.facts,
        )
        # Explained first: the call can change its session.
        explanation = None if self.remembers else self._explanation(step, call)
        try:
            decision = self._decision(
                CallRequest(call=call, request_id=request_id, tool_call_id=request_id), CALLERS[step.caller]
            )
        except PDPError as error:
            raise RefusedError(kinds_of(error), str(error)) from error
        # Explanations know nothing of what a gateway sees.
        if decision.session_id and not self.remembers and decision.ruling.basis is not Basis.RESULT_UNSEEN:
            assert explanation is not None
            assert_explains(explanation, decision)
        if "result" in step.given:
            self._report(step, call, decision)
        if step.given.get("fails"):
            token = self._pdp.outcomes.token(decision)
            report = OutcomeReport(outcome_token=token, status=CallStatus.FAILED)
            self._pdp.outcomes.report(report, CALLERS[step.caller])
        return self._seen(decision, step)

    def _decision(self, request: CallRequest, caller: Caller) -> Decision:
        """Decide at once where that is possible and rulings are remembered, as a server on the loop does."""
        authorizer = self._pdp.authorizer
        begun = list(authorizer.try_now([(request, caller, NO_PARENT)])) if self.remembers else []
        (decided,) = authorizer.decide_now(begun) or (None,)
        if decided is None:
            return authorizer.authorize(request, caller)
        recorded = authorizer.record([decided])
        assert recorded is not None
        return recorded[0]

    def _report(self, step: Step, call: Call, decision: Decision) -> None:
        """Report what a result held, as the client would."""
        outcomes = self._pdp.outcomes
        told = outcomes.reading(decision, call.session_handle)
        assert told is not None
        wanted = ResultReading(
            key=told.key,
            trusted=told.trusted,
            issues=told.issues,
            kinds=told.kinds,
            arguments_json=call.arguments_json,
        )
        held = read_result(wanted, plain(step.given["result"]))
        report = OutcomeReport(
            outcome_token=outcomes.token(decision),
            status=CallStatus.SUCCEEDED,
            values=ReportedValues(issued=held.issued, others=held.others),
        )
        outcomes.report(report, CALLERS[step.caller])

    def _explanation(self, step: Step, call: Call) -> Explanation | None:
        """Return the explanation of a call; None where the call itself has no decision in a session."""
        caller = CALLERS[step.caller]
        session_id = self._sessions.ids.get(step.given["session"], "")
        try:
            return self._pdp.explainer.explain(session_id, call, caller, made_by=caller.id)
        except PDPError:
            return None

    def _request(self, step: Step, caller: Caller) -> Mapping[str, Any]:
        given = step.given
        wanted = SessionRequest(
            user=given["user"],
            agent=given["agent"],
            purpose=step.given.get("purpose", "to show a rule"),
            tool_patterns=tuple(given["tools"]),
            duration=given.get("duration"),
            parent_session_handle=self._sessions.handles[given.get("parent", "")],
            environment=given.get("environment", ""),
            user_attributes_json=written(given.get("attributes")),
            labels=tuple(given.get("labels", ())),
            may_delegate=given.get("may_delegate", False),
            terms_json=written(given.get("terms")),
        )
        view, handle = self._pdp.registrar.request(wanted, caller)
        self._sessions.add(step.subject, view.session.id, handle, view.request_digest)
        return {"becomes": view.state.value}

    _delegate = _request

    def _approve(self, step: Step, caller: Caller) -> Mapping[str, Any]:
        session_id, shown = self._sessions.ids[step.subject], self._sessions.shown[step.subject]
        if step.given.get("shown") == "now":
            shown = self._pdp.registrar.get(session_id, caller=caller).request_digest
        grants = tuple(step.given.get("grants", ()))
        if grants and shown == self._pdp.registrar.get(session_id, caller=caller).request_digest:
            shown = self._pdp.registrar.proposal(session_id, grants=grants, caller=caller).request_digest
        return _about(self._pdp.registrar.approve(session_id, request_digest=shown, grants=grants, caller=caller))

    def _deny(self, step: Step, caller: Caller) -> Mapping[str, Any]:
        return _about(self._pdp.registrar.deny(self._sessions.ids[step.subject], reason="no need", caller=caller))

    def _end(self, step: Step, caller: Caller) -> Mapping[str, Any]:
        return _about(self._pdp.registrar.end(self._sessions.handles[step.subject], caller=caller))

    def _revoke(self, step: Step, caller: Caller) -> Mapping[str, Any]:
        ((kind, value),) = step.subject.items()
        selector = Selector(kind=kind, value=self._sessions.ids[value] if kind == "session" else value)
        revoked = self._pdp.registrar.revoke(selector, reason="no longer trusted", caller=caller)
        return {"revokes": sorted(map(self._sessions.named, revoked))}

    def _narrow(self, step: Step, caller: Caller) -> Mapping[str, Any]:
        view = self._pdp.registrar.narrow(
            self._sessions.ids[step.subject],
            tool_patterns=tuple(step.given.get("tools", ())),
            expires_at=ends_at(self._clock, step),
            labels=tuple(step.given.get("labels", ())),
            caller=caller,
        )
        return _about(view)

    def _look(self, step: Step, caller: Caller) -> Mapping[str, Any]:
        view = self._pdp.registrar.get(self._sessions.ids[step.subject], caller=caller)
        return {**_about(view), "left": {one.name: one.left for one in view.budgets}}

    def _list(self, step: Step, caller: Caller) -> Mapping[str, Any]:
        return listed(self._pdp.authorizer.list_tools(self._sessions.handles[step.subject], caller).tools)

    def _reload(self, step: Step, caller: Caller) -> Mapping[str, Any]:
        bundle = changed(self._bundle, step.subject or {})
        write_folder(self._folder, files_of(bundle))
        differs = self._pdp.keeper.reload(by=caller.id)
        self._bundle = bundle
        return {"changed": differs}

    def _approve_call(self, step: Step, caller: Caller) -> Mapping[str, Any]:
        request_id, calls = self.questions[step.subject], step.given.get("calls", 1)
        shown = self._pdp.approvals.get(request_id, caller=caller).request_digest
        self._pdp.approvals.approve(request_id, request_digest=shown, calls=calls, caller=caller)
        return {}

    def _deny_call(self, step: Step, caller: Caller) -> Mapping[str, Any]:
        self._pdp.approvals.deny(self.questions[step.subject], reason="no need", caller=caller)
        return {}

    def _revoke_call(self, step: Step, caller: Caller) -> Mapping[str, Any]:
        selector = AccessSelector(kind="request", value=self.questions[step.subject])
        self._pdp.approvals.revoke(selector, reason="no longer needed", caller=caller)
        return {}

    def _freeze(self, step: Step, caller: Caller) -> Mapping[str, Any]:
        self._pdp.freezer.freeze("" if step.subject == "all" else step.subject, reason="to look into it", caller=caller)
        return {}

    def _lift(self, step: Step, caller: Caller) -> Mapping[str, Any]:
        tenant = "" if step.subject == "all" else step.subject
        (freeze,) = (one for one in self._pdp.sessions.freezes() if one.tenant == tenant)
        return {"left": "nothing" if self._pdp.freezer.lift(freeze.id, caller=caller) is None else "confirmed"}

    def _seen(self, decision: Decision, step: Step) -> Seen:
        ruling = decision.ruling
        return Seen(
            allowed=decision.allowed,
            basis=ruling.basis.value,
            policies=ruling.policies,
            session=self._sessions.named(decision.session_id),
            ancestor=self._sessions.named(ruling.ancestor_id),
            ancestor_basis=ruling.ancestor_basis.value if ruling.ancestor_basis else "",
            labels_added=decision.labels_added,
            obligations=tuple((one.id, one.parameters_json) for one in ruling.obligations),
            advice=ruling.advice,
            question=self._sessions.asked(decision.access_request_id, step),
            lifted=ruling.policies_lifted,
            cache=decision.cache_result.value,
            debits=dict(decision.debits),
            user=decision.user,
            agent=decision.agent,
        )


@contextmanager
def embedded_way(case: Case, folder: Path, *, remembers: bool) -> Iterator[EmbeddedWay]:
    """Open the way through the authorizer, with or without its cache."""
    way = EmbeddedWay(case, folder, remembers=remembers)
    try:
        yield way
    finally:
        way.close()


def _about(view: SessionView) -> Mapping[str, Any]:
    return {"state": view.state.value, "tools": [f"{tool.server}/{tool.tool}" for tool in view.tools]}
