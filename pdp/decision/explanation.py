"""The content of an explanation, and its summary in one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pdp.model import Basis, Counted, Ruling, Session
from pdp.policy.conditions import ConditionResult, PolicyResult, Value
from pdp.policy.provenance import Target

# A permit with another principal or resource is further from matching than one that needs another fact.
_SCOPE_WEIGHT = 10
_NEAREST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionExplanation:
    """The policies' answer about a call for one session of the chain.

    `policies` holds the policies whose action scope can match, in the order of their files; it is empty when the
    question does not fit the schema. `counted` is what the session sees of its earlier calls, None where no policy of
    the action can see it. `left_out` is the number of other policies: of very many, only some are
    evaluated, among them the decisive ones.
    """

    session: Session
    ruling: Ruling
    policies: tuple[PolicyResult, ...]
    left_out: int = 0
    counted: Counted | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The decision that a call would get at one time, and the reasons.

    `ruling` is the answer that the call would get, `resource` the type and id of its resource. `refusal` says in plain
    words which check of the gate failed, `problem` what is wrong with the arguments; both are empty otherwise. `opaque`
    names the arguments that policies cannot see. `targets` says where the name of each target and of each link comes
    from, as the session sees it. `values_not_compared` is the number of values that results held and that no target
    could be compared with, since the session's handle is not known: one of them may be what is `unseen` here.
    `sessions` holds the session and then each above it; it is empty for an unknown tool and for invalid arguments. When
    the gate refuses, a decision does not ask the policies; `sessions` then holds what they would have answered.
    """

    action: str
    bundle_version: str
    explained_at: float
    ruling: Ruling
    sessions: tuple[SessionExplanation, ...]
    resource: tuple[str, str] = field(default=("", ""), repr=False)
    refusal: str = ""
    problem: str = ""
    opaque: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    values_not_compared: int = 0

    @property
    def summary(self) -> str:
        """Return the answer to "why?" in one sentence."""
        if self.refusal:
            return f"denied: {self.refusal}{self._otherwise()}"
        if self.problem:
            return f"denied: the arguments do not fit the tool: {self.problem}"
        if self.ruling.basis is Basis.APPROVAL_REQUIRED:
            return f"denied: a person must approve this call: {_and(self._asking())}"
        return self._said()

    def _said(self) -> str:
        if Basis.BUDGET_EXHAUSTED in (self.ruling.basis, self.ruling.ancestor_basis):
            return f"denied: {self.ruling.detail}"
        for one in self.sessions:
            if one.session.id == self.ruling.ancestor_id:
                return f"denied: session `{one.session.id}` above is {because(one.ruling, one.policies, self.action)}"
        own = self.sessions[0]
        if own.ruling.allowed and not self.ruling.allowed:
            return f"denied: {self.ruling.detail}"
        return because(own.ruling, own.policies, self.action)

    def _otherwise(self) -> str:
        if not self.sessions:
            return ""
        would = next((one.ruling for one in self.sessions if not one.ruling.allowed), self.sessions[0].ruling)
        until = " until a person approves this call" if would.asks else ""
        return f"; the policies were not asked, and would {'permit' if would.allowed else 'deny'} it{until}"

    def _asking(self) -> Iterator[str]:
        for place, one in enumerate(self.sessions):
            results = {result.policy.id: result for result in one.policies}
            if one.ruling.asks:
                found = _and(map(_place, _named(one.ruling.policies, results)))
                where = f" in session `{one.session.id}` above" if place else ""
                yield f"{found} {_verb(one.ruling, 'forbid')} it{where}"


def nearest_permits(policies: Sequence[PolicyResult]) -> tuple[PolicyResult, ...]:
    """Return up to three permits that came closest to matching, the closest first; none that matched."""
    missed = [one for one in policies if one.policy.effect == "permit" and one.value is not Value.TRUE]
    return tuple(sorted(missed, key=lambda one: (_distance(one), one.policy.id))[:_NEAREST])


def because(ruling: Ruling, policies: Sequence[PolicyResult], action: str) -> str:
    """Return the policies' answer about a call, and why, in words."""
    results = {one.policy.id: one for one in policies}
    match ruling.basis:
        case Basis.PERMIT:
            return f"allowed: {_and(map(_place, _named(ruling.policies, results)))} {_verb(ruling, 'permit')} it"
        case Basis.FORBID | Basis.APPROVAL_REQUIRED:
            found = _and(map(_place, _named(ruling.policies, results)))
            return f"denied: {found} {_verb(ruling, 'forbid')} it{_otherwise(policies)}"
        case Basis.POLICY_ERROR:
            failed = _and(
                f"{_place(one)} could not be evaluated{_cause(one)}" for one in _named(ruling.errors, results)
            )
            return f"denied: {failed or ruling.detail}"
        case _:
            return f"denied: no permit matched{_nearest(policies, action)}"


def _distance(result: PolicyResult) -> int:
    scope = sum(one.alone is not Value.TRUE for one in result.scope)
    return scope * _SCOPE_WEIGHT + sum(one.alone is not Value.TRUE for one in result.conditions)


def _otherwise(policies: Sequence[PolicyResult]) -> str:
    permitted = any(one.policy.effect == "permit" and one.value is Value.TRUE for one in policies)
    return "" if permitted else ", and no permit matched either"


def _nearest(policies: Sequence[PolicyResult], action: str) -> str:
    nearest = nearest_permits(policies)
    if not nearest:
        return f"; none covers `{action}`"
    first = nearest[0]
    return f"; the nearest is {_place(first)}: {_missing(first)}"


def _missing(result: PolicyResult) -> str:
    decided, *others = result.failed
    more = f", and {len(others)} more" if others else ""
    return f"{_condition(result, decided)} {'cannot be evaluated' if decided.error else 'does not hold'}{more}"


def _condition(result: PolicyResult, one: ConditionResult) -> str:
    return f"`{one.condition}` ({result.policy.file}:{one.condition.line})"


def _cause(result: PolicyResult) -> str:
    erring = [one for one in result.parts if one.value is Value.ERROR]
    return "".join(f": {one.error.replace('_', ' ')} in {_condition(result, one)}" for one in erring)


def _place(result: PolicyResult) -> str:
    return f"`{result.policy.id}` ({result.policy.file}:{result.policy.line})"


def _named(ids: Sequence[str], results: Mapping[str, PolicyResult]) -> list[PolicyResult]:
    return [results[name] for name in ids if name in results]


def _verb(ruling: Ruling, verb: str) -> str:
    return verb if len(ruling.policies) > 1 else f"{verb}s"


def _and(words: Iterable[str]) -> str:
    listed = list(words)
    return " and ".join(([", ".join(listed[:-1])] if listed[1:] else []) + listed[-1:])
