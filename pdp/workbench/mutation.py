"""Find changes that the tests of a bundle do not notice: run them against one changed policy at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from time import perf_counter
from typing import Any

from pdp.errors import BundleError, Problem
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.policy.bundle import Bundle
from pdp.policy.contents import TESTS, require_sizes
from pdp.policy.loading import compile_job, policy_source
from pdp.policy.policysource import PolicySource
from pdp.workbench.equivalents import FILE, Equivalent, Equivalents
from pdp.workbench.runner import CaseResult, run
from pdp.workbench.suite import Suite
from pdp.workbench.unchanged import UnchangedResults


class Verdict(Enum):
    """The result for a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    EQUIVALENT = "equivalent"
    TIMED_OUT = "timed out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One policy with one change; `changed` is None when the policy is dropped.

    `words` describes the change. `equivalent` says why no call can distinguish the two, where that is certain.
    """

    of: str
    words: str
    changed: PolicySource | None = field(repr=False)
    equivalent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MutantResult:
    """The result for a mutant. `by` is the case that noticed it, or the reason why it counts as equivalent."""

    mutant: Mutant
    verdict: Verdict
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MutationReport:
    """The results for all mutants, in the order of the policies.

    `refused` counts the mutants that `check` refuses. `stale` names wrong entries of equivalents: the mutant does not
    exist, or a test notices it.
    """

    results: tuple[MutantResult, ...]
    refused: int
    stale: tuple[Problem, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Say whether the tests notice every change that can be noticed."""
        return not (self.having(Verdict.SURVIVED) or self.having(Verdict.TIMED_OUT) or self.stale)

    def having(self, verdict: Verdict) -> tuple[MutantResult, ...]:
        """Return the results with one verdict."""
        return tuple(result for result in self.results if result.verdict is verdict)

    @property
    def score(self) -> float:
        """Return the noticed part of the distinguishable mutants, from 0 to 1."""
        counted = len(self.results) - len(self.having(Verdict.EQUIVALENT))
        return len(self.having(Verdict.KILLED)) / counted if counted else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutants:
    """All mutants of a bundle, and how many more of each policy the validation refuses."""

    mutants: tuple[Mutant, ...]
    refused: Mapping[str, int]


def mutants_of(
    files: Mapping[str, bytes], limits: Limits, mutate_files: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> Mutants:
    """Make every mutant of a bundle. `mutate_files` runs `mutants.mutate_bundle` in a child process.

    Raise `BundleError` when the bundle does not load.
    """
    require_sizes(files, limits)
    made = mutate_files(compile_job(files, limits))
    if "problems" in made:
        raise BundleError(tuple(Problem(**problem) for problem in made["problems"]))
    return Mutants(
        mutants=tuple(
            Mutant(
                of=one["of"],
                words=one["words"],
                changed=policy_source(one["policy"]) if one["policy"] else None,
                equivalent=one["equivalent"],
            )
            for one in made["mutants"]
        ),
        refused=made["refused"],
    )


def try_mutants(
    bundle: Bundle,
    suites: Iterable[Suite],
    made: Mutants,
    *,
    equivalents: Equivalents | None = None,
    limits: Limits = DEFAULT_LIMITS,
    seconds: float = 60.0,
    done: Callable[[MutantResult], None] = lambda _: None,
) -> MutationReport:
    """Run the tests against each mutant until one fails; call `done` after each.

    A mutant has `seconds` at most. A mutant that survives counts as equivalent when `equivalents` says so.
    Raise `ValueError` when the tests fail without a change: then their result for a mutant means nothing.
    """
    started = perf_counter()
    known = tuple(suites)
    as_is = run(bundle, known, limits=limits)
    if not as_is.passed:
        raise ValueError(f"{len(as_is.failed)} of the tests fail without any change; fix them first")
    trial = _Trial(bundle, known, as_is.results, limits, seconds)
    results = []
    stale = dict(equivalents or {})
    for mutant in made.mutants:
        result = trial.result(mutant)
        if result.verdict is Verdict.SURVIVED and (mutant.of, mutant.words) in stale:
            result = replace(result, verdict=Verdict.EQUIVALENT, by=stale.pop((mutant.of, mutant.words)).reason)
        results.append(result)
        done(result)
    return MutationReport(
        results=tuple(results),
        refused=sum(made.refused.values()),
        stale=tuple(_stale(name, words, entry) for (name, words), entry in stale.items()),
        seconds=perf_counter() - started,
    )


def _stale(name: str, words: str, entry: Equivalent) -> Problem:
    message = f"is listed as equivalent but is not: no mutant of `{name}` survives as `{words}`"
    return Problem(f"{TESTS}/{FILE}", entry.line, message)


class _OutOfTimeError(Exception):
    pass


class _Trial:
    """Tries mutants against the cases that can notice them, first those that rest on the policy."""

    def __init__(
        self, bundle: Bundle, suites: Sequence[Suite], as_is: Sequence[CaseResult], limits: Limits, seconds: float
    ) -> None:
        self._bundle = bundle
        self._suites = suites
        self._asked = {result.case.id: _actions(result) for result in as_is}
        self._rested = {result.case.id: result.ruling.policies if result.ruling else () for result in as_is}
        self._as_is = {result.case.id: result for result in as_is}
        self._actions = frozenset(action for actions in self._asked.values() for action in actions)
        self._limits = limits
        self._seconds = seconds

    def result(self, mutant: Mutant) -> MutantResult:
        if mutant.equivalent:
            return MutantResult(mutant=mutant, verdict=Verdict.EQUIVALENT, by=mutant.equivalent)
        try:
            changed = self._bundle.with_policies(self._policies(mutant))
            in_time = _deadline(self._seconds)
            noticing = self._noticing(mutant, UnchangedResults(changed), in_time)
            failed = run(changed, noticing, limits=self._limits, stop_at_failure=True, done=in_time).failed
        except _OutOfTimeError:
            return MutantResult(mutant=mutant, verdict=Verdict.TIMED_OUT)
        if failed:
            return MutantResult(mutant=mutant, verdict=Verdict.KILLED, by=failed[0].case.id)
        return MutantResult(mutant=mutant, verdict=Verdict.SURVIVED)

    def _policies(self, mutant: Mutant) -> list[PolicySource]:
        """Return all policies with the changed one at its position, so that order is kept."""
        policies = [mutant.changed if policy.id == mutant.of else policy for policy in self._bundle.policies.values()]
        return [policy for policy in policies if policy is not None]

    def _noticing(
        self, mutant: Mutant, unchanged: UnchangedResults, in_time: Callable[[CaseResult], None]
    ) -> Iterator[Suite]:
        """Yield the cases whose policies answer differently after the change, each alone."""
        either = [policy for policy in (self._bundle.policies[mutant.of], mutant.changed) if policy is not None]
        touched = {
            action for action in self._actions if any(one.may_match(self._bundle.groups_of(action)) for one in either)
        }
        cases = [
            (suite, case)
            for suite in self._suites
            for case in suite.cases
            if not touched.isdisjoint(self._asked[case.id])
        ]
        for suite, case in sorted(cases, key=lambda one: mutant.of not in self._rested[one[1].id]):
            before = self._as_is[case.id]
            in_time(before)
            if not unchanged.contains(before):
                yield replace(suite, cases=(case,))


def _actions(result: CaseResult) -> frozenset[str]:
    """Return every action asked about for a case, steps of its sessions included."""
    if result.facts is None:
        return frozenset()
    return frozenset(asked.action for asked in (*result.facts.asked, *result.facts.opening))


def _deadline(seconds: float) -> Callable[[CaseResult], None]:
    ends_at = perf_counter() + seconds

    def check(_: CaseResult) -> None:
        if perf_counter() > ends_at:
            raise _OutOfTimeError

    return check
