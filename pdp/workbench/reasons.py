"""Explain the decision of a case: the permit that came nearest, and the condition that failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pdp.decision.explainer import CallExplainer
from pdp.decision.explanation import because, nearest_permits
from pdp.errors import PDPError
from pdp.limits import Limits
from pdp.model import Basis, Ruling
from pdp.policy.bundle import Bundle
from pdp.policy.conditions import ConditionResult, PolicyResult, Value
from pdp.workbench.runner import CaseResult, Facts
from pdp.workbench.watching import Asked

_MARKS = {Value.TRUE: "✓", Value.FALSE: "✗", Value.ERROR: "!", Value.NOT_REACHED: "·"}


class Reasons:
    """Explains failed cases, a few lines each; for `report`. Parsed policies are kept."""

    def __init__(self, limits: Limits) -> None:
        self._explainer = CallExplainer(limits)

    def __call__(self, result: CaseResult) -> Sequence[str]:
        """Return one sentence, then each policy expected, nearest or in error, by parts."""
        if result.facts is None:
            return ()
        try:
            return tuple(self._lines(result, result.facts))
        except PDPError as error:
            return (f"why:      unknown: {error}",)

    def _lines(self, result: CaseResult, facts: Facts) -> Iterator[str]:
        # For a call in a delegated session, the last question decided.
        last = facts.asked[-1] if facts.asked else None
        results = self._results(facts, last) if last else ()
        yield f"why:      {self._summary(facts, last, results)}"
        if last is not None:
            for one in _worth_showing(result, last.ruling, results):
                yield from _parts(one)
            yield from _beside(result, facts.bundle, last.action)

    def _summary(self, facts: Facts, last: Asked | None, results: Sequence[PolicyResult]) -> str:
        if facts.snapshot is not None and facts.call is not None:
            chain = facts.snapshot.chain
            counted = facts.asked[-1].facts.counted if facts.asked else ()
            explained = self._explainer.explain(
                facts.snapshot, facts.call, chain[0].opened_by, facts.find, counted=counted
            )
            summary = explained.summary
            for session, name in zip(chain, facts.names, strict=True):
                summary = summary.replace(session.id, name)
            return summary
        return because(last.ruling, results, last.action) if last else "the policies were not asked"

    def _results(self, facts: Facts, asked: Asked) -> tuple[PolicyResult, ...]:
        return self._explainer.results(facts.bundle, asked.session, asked.facts, asked.at)


def _worth_showing(result: CaseResult, ruling: Ruling, results: Sequence[PolicyResult]) -> Iterable[PolicyResult]:
    expected = result.case.expect.policies or ()
    shown = {one.policy.id: one for one in results if one.policy.id in expected and one.value is not Value.TRUE}
    if ruling.basis is Basis.DEFAULT_DENY:
        shown |= {one.policy.id: one for one in nearest_permits(results)[:1]}
    shown |= {one.policy.id: one for one in results if one.policy.id in ruling.errors}
    return shown.values()


def _beside(result: CaseResult, bundle: Bundle, action: str) -> Iterator[str]:
    """Name the expected policies that are not asked: they are about other actions."""
    groups = bundle.groups_of(action)
    for name in result.case.expect.policies or ():
        policy = bundle.policies.get(name)
        if policy is not None and not policy.may_match(groups):
            yield f"✗ {policy.effect} {name}  {policy.file}:{policy.line}"
            yield f"    ✗ its scope does not name `{action}`"


def _parts(one: PolicyResult) -> Iterator[str]:
    policy = one.policy
    yield f"{_MARKS[one.value]} {policy.effect} {policy.id}  {policy.file}:{policy.line}"
    for part in one.parts:
        yield f"    {_MARKS[part.value]} {part.condition}{_error(part)}"


def _error(part: ConditionResult) -> str:
    return f"  ({part.error.replace('_', ' ')})" if part.error and part.value is Value.ERROR else ""
