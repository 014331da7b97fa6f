"""Count how the tests cover each policy and each of its conditions.

A policy is covered when one test made it determining and one made it not match. A policy that always matches, because
it has no condition and constrains neither principal nor resource, needs only the first. A condition is covered when it
was reached and was true, and reached and was false.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pdp.decision.explainer import CallExplainer
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.policy.bundle import Bundle
from pdp.policy.conditions import Condition, PolicyParts, Value, parts_of
from pdp.policy.policysource import PolicySource
from pdp.policy.question import question_of
from pdp.workbench.runner import CaseResult
from pdp.workbench.watching import Asked

_WHOLE = 100.0
# Cases alternate between tools, and parsing the policies of a tool takes longer than a case.
_ACTIONS_KEPT = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A part of a total."""

    covered: int
    total: int

    @property
    def percent(self) -> float:
        """Return the share in percent; 100 when the total is 0."""
        return _WHOLE * self.covered / self.total if self.total else _WHOLE

    def __str__(self) -> str:
        # Rounded down, so that only a full share is 100.0.
        return f"{self.covered} of {self.total} ({int(self.percent * 10) / 10:.1f} %)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionCoverage:
    """Whether a condition was ever true, and whether it was ever false, where the engine reached it."""

    condition: Condition
    seen_true: bool
    seen_false: bool

    @property
    def covered(self) -> bool:
        """Say whether it was both true and false."""
        return self.seen_true and self.seen_false

    @property
    def missing(self) -> str:
        """Say what no test showed; empty when it is covered."""
        if self.covered:
            return ""
        if not self.seen_true and not self.seen_false:
            return "never reached"
        return "never false" if self.seen_true else "never true"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCoverage:
    """Whether tests asked a policy, made it determining and made it not match; `always` when it must match."""

    policy: PolicySource
    asked: bool
    determining: bool
    unmatched: bool
    always: bool
    conditions: tuple[ConditionCoverage, ...]

    @property
    def covered(self) -> bool:
        """Say whether tests showed both outcomes."""
        return self.determining and (self.unmatched or self.always)

    @property
    def missing(self) -> str:
        """Say what no test showed; empty when it is covered."""
        if not self.asked:
            return "never asked"
        wanted = (
            "" if self.determining else "never decided",
            "" if self.unmatched or self.always else "always matched",
        )
        return ", ".join(filter(None, wanted))


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """The coverage of all policies of a bundle, in the order of their files."""

    policies: tuple[PolicyCoverage, ...]

    @property
    def policy_share(self) -> Share:
        """Return how many policies are covered."""
        return Share(covered=sum(one.covered for one in self.policies), total=len(self.policies))

    @property
    def condition_share(self) -> Share:
        """Return how many conditions are covered."""
        every = [condition for one in self.policies for condition in one.conditions]
        return Share(covered=sum(one.covered for one in every), total=len(every))


class CoverageCounter:
    """Counts the results of cases, one by one. The cases must have run in this process: see `Facts`."""

    def __init__(self, bundle: Bundle, limits: Limits = DEFAULT_LIMITS) -> None:
        self._parts = {name: parts_of(policy) for name, policy in bundle.policies.items()}
        self._explainer = CallExplainer(limits, kept=_ACTIONS_KEPT)
        self._asked: set[tuple[object, ...]] = set()
        self._looked_at: set[str] = set()
        self._determining: set[str] = set()
        self._unmatched: set[str] = set()
        self._seen: set[tuple[str, int, Value]] = set()

    def take(self, result: CaseResult) -> None:
        """Count the policies asked by a case, and those asked when its session was opened."""
        if result.facts is None:
            return
        for asked in (*result.facts.opening, *result.facts.asked):
            # A suite opens a session once for many cases; the session's id makes its questions unique.
            one = question_of(asked.session, asked.facts, asked.at)  # its context holds lists and cannot be hashed
            question = (asked.action, one.user, one.agent, one.session_id, one.resource, json.dumps(one.context))
            if question not in self._asked:
                self._asked.add(question)
                self._count(result.facts.bundle, asked)

    def coverage(self) -> Coverage:
        """Return the coverage so far."""
        return Coverage(policies=tuple(self._policy(parts) for parts in self._parts.values()))

    def _count(self, bundle: Bundle, asked: Asked) -> None:
        self._determining.update(asked.ruling.policies)
        if asked.ruling.otherwise is not None:
            # Once a person has lifted the forbids, these permit it.
            self._determining.update(asked.ruling.otherwise.policies)
        for result in self._explainer.results(bundle, asked.session, asked.facts, asked.at):
            name = result.policy.id
            self._looked_at.add(name)
            if result.value is Value.FALSE:
                self._unmatched.add(name)
            self._seen.update((name, index, one.value) for index, one in enumerate(result.conditions))

    def _policy(self, parts: PolicyParts) -> PolicyCoverage:
        name = parts.policy.id
        return PolicyCoverage(
            policy=parts.policy,
            asked=name in self._looked_at,
            determining=name in self._determining,
            unmatched=name in self._unmatched,
            always=not parts.conditions and all(one.kind == "action" for one in parts.scope),
            conditions=tuple(
                ConditionCoverage(
                    condition=condition,
                    seen_true=(name, index, Value.TRUE) in self._seen,
                    seen_false=(name, index, Value.FALSE) in self._seen,
                )
                for index, condition in enumerate(parts.conditions)
            ),
        )


def coverage_lines(coverage: Coverage, *, folder: str) -> Iterator[str]:
    """Return the lines to print: both shares, then what no test showed, with its line.

    `folder` is put before the names of files.
    """
    yield f"coverage: policies {coverage.policy_share}, conditions {coverage.condition_share}"
    prefix = f"{folder.rstrip('/')}/" if folder not in ("", ".") else ""
    for one in coverage.policies:
        missed = [condition for condition in one.conditions if not condition.covered]
        if one.covered and not missed:
            continue
        path = f"{prefix}{one.policy.file}"
        yield f"{path}:{one.policy.line}: {one.policy.id}{': ' if one.missing else ''}{one.missing}"
        yield from (
            f"  {path}:{each.condition.line}:{each.condition.column}: `{each.condition}`: {each.missing}"
            for each in missed
        )


def coverage_json(coverage: Coverage) -> dict[str, Any]:
    """Return coverage as a JSON value."""
    return {
        "policies": _share_json(coverage.policy_share),
        "conditions": _share_json(coverage.condition_share),
        "by_policy": [_policy_json(one) for one in coverage.policies],
    }


def shortfall(coverage: Coverage, *, policies: float | None, conditions: float | None) -> tuple[str, ...]:
    """Return a line for each share below its minimum in percent; None is no minimum."""
    return tuple(_below(coverage, policies=policies, conditions=conditions))


def _below(coverage: Coverage, *, policies: float | None, conditions: float | None) -> Iterable[str]:
    wanted = (("policies", coverage.policy_share, policies), ("conditions", coverage.condition_share, conditions))
    for what, share, least in wanted:
        if least is not None and share.percent < least:
            yield f"coverage of {what} is {share}, but must be {least:g} %"


def _share_json(share: Share) -> Mapping[str, float]:
    return {"covered": share.covered, "total": share.total, "percent": round(share.percent, 2)}


def _policy_json(one: PolicyCoverage) -> dict[str, Any]:
    return {
        "policy_id": one.policy.id,
        "file": one.policy.file,
        "line": one.policy.line,
        "covered": one.covered,
        "determining": one.determining,
        "unmatched": one.unmatched,
        "always_matches": one.always,
        "conditions": list(map(_condition_json, one.conditions)),
    }


def _condition_json(one: ConditionCoverage) -> dict[str, Any]:
    condition = one.condition
    return {
        "kind": condition.kind,
        "text": condition.text,
        "line": condition.line,
        "column": condition.column,
        "seen_true": one.seen_true,
        "seen_false": one.seen_false,
    }
