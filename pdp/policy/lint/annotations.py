"""Read what a policy asks of a gateway or a person, and find what it asks where no answer can carry it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pdp.policy.lint.facts import Finding, LintPolicy
from pdp.policy.obligations import (
    ADVICE,
    OBLIGATION,
    STEP_UP,
    STEP_UP_RUN,
    AnnotationError,
    read_advice,
    read_obligations,
    read_step_up,
    read_step_up_run,
    slips,
)

_HELP = {
    OBLIGATION: "write `@obligation(\"redact_result: {fields: ['[].email']}, notice: {text: …}\")` above the permit",
    ADVICE: 'write `@advice("…")`, what the agent should do instead, above the forbid',
    STEP_UP: 'write `@step_up("…")`, what to ask the person, above the forbid',
    STEP_UP_RUN: 'write `@step_up_run("5")` below `@step_up`, or leave it out: then an answer covers one call',
}
_EFFECTS = {OBLIGATION: "permit", ADVICE: "forbid", STEP_UP: "forbid", STEP_UP_RUN: "forbid"}
_WHY = {
    OBLIGATION: "only an allow has obligations: put it on a permit",
    ADVICE: "only a deny has advice: put it on a forbid",
    STEP_UP: "a person can only lift a deny: put it on a forbid",
    STEP_UP_RUN: "a person can only lift a deny: put it on a forbid",
}


def annotated(policy: LintPolicy, declared: Mapping[str, str]) -> tuple[dict[str, Any], list[Finding]]:
    """Return what a policy says in annotations of ours, as fields of `PolicySource`, and what is wrong with them.

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
    readers: dict[str, tuple[str, Callable[[], Any], Any]] = {
        OBLIGATION: ("obligations", lambda: read_obligations(policy.annotations, declared), ()),
        ADVICE: ("advice", lambda: read_advice(policy.annotations), ""),
        STEP_UP: ("step_up", lambda: read_step_up(policy.annotations), ""),
        STEP_UP_RUN: ("step_up_run", lambda: read_step_up_run(policy.annotations), 0),
    }
    said = {}
    for name, (field, read, without) in readers.items():
        said[field] = without
        try:
            said[field] = read()
        except AnnotationError as error:
            found.append(_finding(policy, name, str(error)))
    found += [_finding(policy, name, problem) for name in _EFFECTS if (problem := _misplaced(policy, name))]
    return said, found


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
