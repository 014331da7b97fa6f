"""The output of an explanation for people and scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import click

from pdp.cli.output import time_text
from pdp.client.enumwords import word_of
from pdp.foundation.printable import visible
from pdp.v1 import decision_pb2 as decisions
from pdp.v1 import explain_pb2 as explanations
from pdp.v1.explain_pb2 import (
    CONDITION_VALUE_ERROR,
    CONDITION_VALUE_FALSE,
    CONDITION_VALUE_NOT_REACHED,
    CONDITION_VALUE_TRUE,
    ConditionExplanation,
    ExplainResponse,
    PolicyExplanation,
    SessionExplanation,
)

_MARKS = {
    CONDITION_VALUE_TRUE: "✓",
    CONDITION_VALUE_FALSE: "✗",
    CONDITION_VALUE_ERROR: "!",
    CONDITION_VALUE_NOT_REACHED: "·",
}
_ALONE = {
    CONDITION_VALUE_TRUE: "not reached; it holds",
    CONDITION_VALUE_FALSE: "not reached; it does not hold either",
    CONDITION_VALUE_ERROR: "not reached; it depends on an earlier condition",
}
_LEGEND = "✓ holds   ✗ does not hold   ! cannot be evaluated   · not reached"


def print_explanation(answer: ExplainResponse) -> None:
    """Print an explanation for a person: the answer in one sentence, then each policy."""
    click.echo(visible(answer.summary))
    if answer.opaque:
        click.echo(visible(f"policies cannot see {', '.join(f'`{label}`' for label in answer.opaque)}"))
    for target in answer.targets:
        click.echo(visible(f"target `{target.path}` is {target.provenance}"))
    if answer.values_not_compared:
        many = f"{answer.values_not_compared} values that results held"
        click.echo(f"{many} cannot be compared without the session's handle: an unseen target may be one of them")
    for one in answer.obligations:
        click.echo(visible(f"obligation {one.id} {one.parameters_json.decode('utf-8')}"))
    for line in answer.advice:
        click.echo(visible(f"advice {line}"))
    for session in answer.sessions:
        click.echo()
        _print_session(session, asked=not answer.refusal)
    if any(session.policies for session in answer.sessions):
        click.echo(f"\n{_LEGEND}")


def plain(answer: ExplainResponse) -> dict[str, Any]:
    """Return an explanation as a JSON object."""
    return {
        "summary": answer.summary,
        "outcome": _outcome(answer.outcome),
        "basis": _basis(answer.basis),
        "refusal": answer.refusal,
        "problem": answer.problem,
        "opaque": list(answer.opaque),
        "targets": [{"path": one.path, "provenance": one.provenance} for one in answer.targets],
        "values_not_compared": answer.values_not_compared,
        "obligations": [{"id": one.id, "parameters": json.loads(one.parameters_json)} for one in answer.obligations],
        "advice": list(answer.advice),
        "resource_type": answer.resource_type,
        "resource_id": answer.resource_id,
        "bundle_version": answer.bundle_version,
        "explain_time": time_text(answer, "explain_time"),
        "sessions": [_plain_session(session) for session in answer.sessions],
    }


def _print_session(session: SessionExplanation, *, asked: bool) -> None:
    name = f"session {session.session_id}" if session.session_id else "a supposed session"
    said = f"{_outcome(session.outcome)} {_basis(session.basis)}"
    would = "" if asked else "the policies would say "
    click.echo(visible(f"{name}, {session.user} with {session.agent}: {would}{said}"))
    for one in session.counts:
        click.echo(visible(f"calls of `{one.name}` before: {one.calls}"))
    for done in session.done:
        click.echo(visible(f"`{done}` is done"))
    for policy in _sorted(session):
        _print_policy(policy)
    if session.policies_left_out:
        click.echo(f"{session.policies_left_out} more policies are not shown")


def _sorted(session: SessionExplanation) -> list[PolicyExplanation]:
    """Return the policies by importance: those that decided, came near, and the rest."""
    near = list(session.nearest_permits)
    ranks = {name: rank for rank, name in enumerate(near)}
    return sorted(session.policies, key=lambda one: (not one.determining, ranks.get(one.policy_id, len(near))))


def _print_policy(policy: PolicyExplanation) -> None:
    decides = "   decides" if policy.determining else ""
    decides += "   a person can lift it" if policy.determining and policy.step_up else ""
    position = f"{policy.file}:{policy.line}"
    click.echo(visible(f"{_MARKS.get(policy.value, '?')} {policy.effect} {policy.policy_id}  {position}{decides}"))
    shown = [(one, text) for condition in policy.conditions for one, text in _texts(condition)]
    width = min(max((len(text) for _, text in shown), default=0), 72)
    for one, text in shown:
        line = f"    {_MARKS.get(one.value, '?')} {text.ljust(width)}  {policy.file}:{one.line}:{one.column}"
        click.echo(visible(f"{line}  {_note(one)}".rstrip()))


def _texts(one: ConditionExplanation) -> Iterable[tuple[ConditionExplanation, str]]:
    """Yield a condition and then its parts, each with its text."""
    word = "and" if one.kind == "unless" else "or"
    yield one, (f"unless {one.text}" if one.kind == "unless" else one.text)
    for index, part in enumerate(one.within):
        yield part, f"    {f'{word} ' * bool(index)}{part.text}"


def _note(one: ConditionExplanation) -> str:
    if one.value == CONDITION_VALUE_NOT_REACHED:
        return _ALONE.get(one.alone, "")
    return one.error.replace("_", " ")


def _plain_session(session: SessionExplanation) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "user": session.user,
        "agent": session.agent,
        "outcome": _outcome(session.outcome),
        "basis": _basis(session.basis),
        "nearest_permits": list(session.nearest_permits),
        "policies_left_out": session.policies_left_out,
        "counts": {one.name: one.calls for one in session.counts},
        "done": list(session.done),
        "policies": [_plain_policy(policy) for policy in session.policies],
    }


def _plain_policy(policy: PolicyExplanation) -> dict[str, Any]:
    return {
        "policy_id": policy.policy_id,
        "effect": policy.effect,
        "file": policy.file,
        "line": policy.line,
        "value": _value(policy.value),
        "error": policy.error,
        "determining": policy.determining,
        "step_up": policy.step_up,
        "conditions": list(_plain_conditions(policy.conditions)),
    }


def _plain_conditions(conditions: Iterable[ConditionExplanation]) -> Iterable[dict[str, Any]]:
    for one in conditions:
        yield {
            "kind": one.kind,
            "text": one.text,
            "value": _value(one.value),
            "alone": _value(one.alone),
            "error": one.error,
            "line": one.line,
            "column": one.column,
            "end_line": one.end_line,
            "end_column": one.end_column,
            "within": list(_plain_conditions(one.within)),
        }


def _outcome(number: decisions.Outcome) -> str:
    return word_of(decisions.Outcome, number)


def _basis(number: decisions.Basis) -> str:
    return word_of(decisions.Basis, number)


def _value(number: explanations.ConditionValue) -> str:
    return word_of(explanations.ConditionValue, number)
