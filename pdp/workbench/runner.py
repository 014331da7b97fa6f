"""Run test suites against a bundle, through the real registrar and authorizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from pdp.decision.snapshot import Snapshot
from pdp.errors import PDPError
from pdp.foundation.yamltext import unknown
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.model import Basis, Call, Ruling
from pdp.policy.bundle import Bundle
from pdp.policy.directory import unknown_parent
from pdp.policy.provenance import FindNames, found_nowhere
from pdp.workbench.judging import judge
from pdp.workbench.stage import CannotOpenError, CaseError, Stage
from pdp.workbench.suite import Case, EarlierCall, NamedCall, Step, Suite
from pdp.workbench.watching import Asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that the decision of one case rested on, so that it can be explained.

    `bundle` holds the suite's own directory. `snapshot` and `call` are None for a step of a session; `names` are those
    of the sessions in the snapshot's chain, whose ids are new in each run. `asked` is what the policies were asked for
    this case: for a call in a delegated session, its own question and then one for each session above; empty when the
    gate denied; the refused question when they refused to open the session. `opening` is what they were asked before,
    when the session was opened and made the calls of `after`, and `find` finds names in the results of these.
    """

    bundle: Bundle
    asked: tuple[Asked, ...]
    opening: tuple[Asked, ...]
    snapshot: Snapshot | None = None
    names: tuple[str, ...] = ()
    call: Call | None = None
    find: FindNames = found_nowhere


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """The result of a case.

    `problems` has one line each; it is empty when the case passed. `ruling` is None when there was no decision; then
    `facts` is None too unless the policies refused the session, and always in results from another process.
    """

    case: Case
    problems: tuple[str, ...]
    ruling: Ruling | None = None
    facts: Facts | None = None
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Say whether the case found what it expects."""
        return not self.problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The results of all cases, in the order of the suites."""

    results: tuple[CaseResult, ...]
    seconds: float

    @property
    def failed(self) -> tuple[CaseResult, ...]:
        """Return the results of the cases that failed."""
        return tuple(result for result in self.results if not result.passed)

    @property
    def passed(self) -> bool:
        """Say whether all cases passed."""
        return not self.failed


def _ignore(_: CaseResult) -> None:
    pass


def run(
    bundle: Bundle,
    suites: Iterable[Suite],
    *,
    limits: Limits = DEFAULT_LIMITS,
    stop_at_failure: bool = False,
    done: Callable[[CaseResult], None] = _ignore,
) -> Report:
    """Run every case of the suites against a bundle; call `done` after each.

    Never raises for the content of a case. The same suites can be run against many bundles: `bundle.with_policies(…)`
    makes one that differs in some policies and shares the parsed others. `stop_at_failure` ends after the first failed
    case.
    """
    started = perf_counter()
    results: list[CaseResult] = []
    for suite in suites:
        for result in _SuiteRun(bundle, suite, limits).results():
            results.append(result)
            done(result)
            if stop_at_failure and not result.passed:
                return Report(results=tuple(results), seconds=perf_counter() - started)
    return Report(results=tuple(results), seconds=perf_counter() - started)


class _SuiteRun:
    """One suite against one bundle.

    Cases share a stage for each session and moment, except those whose call can change the session.
    """

    def __init__(self, bundle: Bundle, suite: Suite, limits: Limits) -> None:
        self._suite = suite
        self._limits = limits
        over = suite.directory.entities
        self._bundle = bundle.with_directory(bundle.directory.overlaid(suite.directory)) if over else bundle
        self._misfit = _misfit(self._bundle, suite)
        self._stages: dict[tuple[str, float], Stage | CannotOpenError] = {}

    def results(self) -> Iterable[CaseResult]:
        return map(self._result, self._suite.cases)

    def _result(self, case: Case) -> CaseResult:
        started = perf_counter()
        finish = partial(CaseResult, case=case)
        try:
            ruling, rested_on = self._decide(case)
        except (CaseError, PDPError) as error:
            facts = self._refusal(error)
            return finish(problems=(str(error),), facts=facts, seconds=perf_counter() - started)
        problems = judge(case.expect, ruling, self._bundle)
        return finish(problems=problems, ruling=ruling, facts=rested_on, seconds=perf_counter() - started)

    def _decide(self, case: Case) -> tuple[Ruling, Facts]:
        if self._misfit is not None:
            raise self._misfit
        if case.step is not None and not case.call:
            stage = Stage(self._bundle, self._suite, case.session, case.now, self._limits)
            asked = stage.take(case.step)
            opening = tuple(one for one in stage.opening if one is not asked)
            return asked.ruling, Facts(bundle=self._bundle, asked=(asked,), opening=opening)
        named = self._suite.calls[case.call]
        stage = self._opened(case) if case.step else self._stage(case, named.action)
        approvals = set(case.approvals)
        opening = (*stage.opening, *self._before(case, stage, approvals)) if case.after else stage.opening
        if case.step is Step.APPROVE_CALL:
            asked = stage.approve_call(self._call(named), by=case.by)
            _require_none(approvals)
            return asked.ruling, Facts(bundle=self._bundle, asked=(asked,), opening=opening)
        call = self._call(named, may_be_unknown=case.expect.basis is Basis.UNKNOWN_TOOL)
        decision, snapshot, answers = stage.call(call, stage.gateway, approved=case.call in case.approvals)
        approvals.difference_update([case.call] if _asks(answers) else [])
        _require_none(approvals)
        return decision.ruling, Facts(
            bundle=self._bundle,
            asked=answers,
            opening=opening,
            snapshot=snapshot,
            names=stage.names,
            call=call,
            find=stage.find,
        )

    def _refusal(self, error: Exception) -> Facts | None:
        if not isinstance(error, CannotOpenError) or not error.asked:
            return None
        return Facts(bundle=self._bundle, asked=error.asked[-1:], opening=error.asked[:-1])

    def _before(self, case: Case, stage: Stage, approvals: set[str]) -> Iterable[Asked]:
        """Make the calls that come before that of a case, and report them; yield what the policies were asked.

        A call that a person is asked about leaves `approvals`.
        """
        for earlier in case.after:
            call = self._call(self._suite.calls[earlier.call])
            decision, _, asked = stage.call(call, stage.gateway, approved=earlier.call in case.approvals)
            approvals.difference_update([earlier.call] if _asks(asked) else [])
            if not decision.allowed:
                raise EarlierCallDeniedError(earlier, decision.ruling)
            if earlier.reported:
                stage.report(decision, call, stage.gateway, earlier)
            yield from asked

    def _call(self, named: NamedCall, *, may_be_unknown: bool = False) -> Call:
        tool = self._bundle.catalogue.tools.get(named.action)
        if tool is None and not may_be_unknown:
            said = unknown("tool", named.action, self._bundle.catalogue.tools)
            raise UnknownNameError(f"call `{named.name}`: {said}")
        current = tool.definition_digest if tool else ""
        return Call(
            session_handle="",
            server=named.server,
            tool=named.tool,
            arguments_json=named.arguments_json,
            definition_digest=current if named.definition_digest is None else named.definition_digest,
            facts_json=named.facts_json,
        )

    def _stage(self, case: Case, action: str) -> Stage:
        if case.after or case.approvals:
            return self._opened(case)
        shared, tool = self._shared(case), self._bundle.catalogue.tools.get(action)
        if tool is None or not shared.changed_by(tool):
            return shared
        # INVARIANT: no case finds a session as another case has left it.
        return self._opened(case)

    def _shared(self, case: Case) -> Stage:
        key = (case.session, case.now)
        if key not in self._stages:
            try:
                self._stages[key] = self._opened(case)
            except CannotOpenError as error:
                self._stages[key] = error
        found = self._stages[key]
        if isinstance(found, CannotOpenError):
            raise found
        return found

    def _opened(self, case: Case) -> Stage:
        stage = Stage(self._bundle, self._suite, case.session, case.now, self._limits)
        stage.open()
        return stage


class UnknownNameError(CaseError):
    """A case names something that the bundle does not have: correct the name."""


class EarlierCallDeniedError(CaseError):
    """A call of `after` is not allowed, so the case is never reached: correct the call or its session."""

    def __init__(self, earlier: EarlierCall, ruling: Ruling) -> None:
        why = f"{ruling.basis.value} {' '.join((*ruling.policies, *ruling.errors))}".strip()
        detail = f" ({ruling.detail})" if ruling.detail else ""
        super().__init__(f"call `{earlier.call}` of `after` must be allowed, and is denied: {why}{detail}")


class IdleApprovalError(CaseError):
    """A call of `approvals` waits for nobody, so the case does not say what it seems to: correct it."""

    def __init__(self, call: str) -> None:
        super().__init__(f"call `{call}` of `approvals` never waits for a person")


def _require_none(approvals: set[str]) -> None:
    """Raise `IdleApprovalError` for a call that no person was asked about."""
    if approvals:
        raise IdleApprovalError(min(approvals))


def _asks(answers: Iterable[Asked]) -> bool:
    return any(one.ruling.asks for one in answers)


def _misfit(bundle: Bundle, suite: Suite) -> UnknownNameError | None:
    """Return the error in the suite's own users, agents and entities, or None."""
    own = suite.directory.entities
    orphans = [(one, uid) for one, uid in bundle.directory.orphans() if one.uid in own] if own else []
    for one, uid in orphans:
        return UnknownNameError(f"{suite.file}:{one.line}: {unknown_parent(uid)}")
    for one in bundle.misfits(own.values()) if own else ():
        kind, name = one.uid
        return UnknownNameError(f"{suite.file}:{one.line}: `{kind}::{name}` does not fit the schema of the bundle")
    return None
