"""Read what a policy asks of a gateway, and find what it asks where no answer can carry it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdp.model import Obligation
from pdp.policy.lint.facts import Finding, LintPolicy
from pdp.policy.obligations import ADVICE, OBLIGATION, AnnotationError, read_advice, read_obligations, slips

_HELP = {
    OBLIGATION: "write `@obligation(\"redact_result: {fields: ['[].email']}, notice: {text: …}\")` above the permit",
    ADVICE: 'write `@advice("…")`, what the agent should do instead, above the forbid',
}
_EFFECTS = {OBLIGATION: "permit", ADVICE: "forbid"}
_WHY = {
    OBLIGATION: "only an allow has obligations: put it on a permit",
    ADVICE: "only a deny has advice: put it on a forbid",
}


def annotated(policy: LintPolicy, declared: Mapping[str, str]) -> tuple[dict[str, Any], list[Finding]]:
    """Return the obligations and the advice of a policy, and what is wrong with its annotations.

    `declared` are the obligations that the bundle declares.
    """
    found = [
        Finding(
            message=f"policy `{policy.id}`: unknown annotation: `@{name}`; did you mean `@{near}`?",
            help=f"correct it, or give it a name that does not look like `@{near}`",
            at=[f"@{name}"],
        )
        for name, near in slips(policy.annotations)
    ]
    obligations: tuple[Obligation, ...] = ()
    advice = ""
    try:
        obligations = read_obligations(policy.annotations, declared)
    except AnnotationError as error:
        found.append(_finding(policy, OBLIGATION, str(error)))
    try:
        advice = read_advice(policy.annotations)
    except AnnotationError as error:
        found.append(_finding(policy, ADVICE, str(error)))
    found += [_finding(policy, name, problem) for name in _EFFECTS if (problem := _misplaced(policy, name))]
    return {"obligations": obligations, "advice": advice}, found


def _misplaced(policy: LintPolicy, name: str) -> str:
    if name not in policy.annotations:
        return ""
    if policy.effect != _EFFECTS[name]:
        return f"`@{name}` on a {policy.effect}: {_WHY[name]}"
    if policy.environments and not any(one.tool for one in policy.environments):
        return f"`@{name}` on a rule about sessions: only answers about calls of tools carry it"
    return ""


def _finding(policy: LintPolicy, name: str, problem: str) -> Finding:
    return Finding(message=f"policy `{policy.id}`: {problem}", help=_HELP[name], at=[f"@{name}"])
