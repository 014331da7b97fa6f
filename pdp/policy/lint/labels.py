"""Prove that no policy permits more, or obliges less, because of a label: adding one can only narrow a session.

INVARIANT: the proof is sound and incomplete. A policy that it accepts never turns a deny into an allow when a label
that does not widen is added; `tests/policy/lint/test_labels.py` checks it against the engine. A policy that it
cannot prove prevents the bundle from loading. An error denies, so a label may cause one but must never remove one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

from pdp.policy.labels import Label
from pdp.policy.lint.facts import Finding, LintPolicy, Tree, nodes, path
from pdp.policy.lint.truth import cannot_fail
from pdp.policy.obligations import OBLIGATION

# The change of an expression when labels are added: none, only to true, only to false, or unknown.
Trend = Literal["still", "rises", "falls", "unknown"]

_OPPOSITE: Mapping[Trend, Trend] = {"still": "still", "rises": "falls", "falls": "rises", "unknown": "unknown"}
_LABELS = "labels"
# An attribute `labels` below these is not the labels of a session.
_OTHERS = (("principal",), ("context", "input"), ("context", "caller"), ("context", "agent"), ("context", "user"))


def label_finding(policy: LintPolicy, labels: Mapping[str, Label]) -> Finding | None:
    """Return why a policy may permit more because of a label that does not widen; None when it provably cannot."""
    if not any(_is_labels(node, policy) for node in nodes(policy.conditions)):
        return None
    proof = _Proof(policy=policy, labels=labels)
    trend = proof.of(reduce(_conjunction, policy.conditions))
    obliges = OBLIGATION in policy.annotations
    # A permit that no longer matches takes its obligations with it, and another permit may still allow the call.
    if trend == "still" or (trend == ("falls" if policy.effect == "permit" else "rises") and not obliges):
        return None
    names = [name for name in sorted(set(labels_named(policy))) if not (name in labels and labels[name].widens)]
    shown = ", ".join(f"`{name}`" for name in names) or "a label"
    if obliges and trend == "falls":
        return Finding(
            message=f"{policy.effect} `{policy.id}` may lose its obligations once the session has {shown}, and a "
            "gateway can add labels to its own session after the approval",
            help="put the obligations on a permit that tests for no label, and forbid by the label instead: "
            f'`forbid … when {{ context.session.labels.contains("{names[0] if names else "NAME"}") }}`',
            at=[("context", "session", _LABELS), ("resource", _LABELS)],
        )
    return Finding(
        message=f"{policy.effect} `{policy.id}` may permit more once the session has {shown}, and a gateway can add "
        "labels to its own session after the approval",
        help=_help(names[0] if names else "NAME", trend),
        at=[("context", "session", _LABELS), ("resource", _LABELS)],
    )


def labels_named(policy: LintPolicy) -> Iterator[str]:
    """Yield each label that a policy tests for by name."""
    for node in nodes(policy.conditions):
        for inner in node.values():
            if isinstance(inner, dict) and _is_labels(inner.get("left"), policy):
                yield from _texts(inner.get("right"))
            if isinstance(inner, dict) and _is_labels(inner.get("right"), policy):
                yield from _texts(inner.get("left"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proof:
    policy: LintPolicy
    labels: Mapping[str, Label]

    def of(self, tree: Tree) -> Trend:
        match tree:
            case {"!": {"arg": inner}}:
                return _OPPOSITE[self.of(inner)]
            case {"==": {"left": inner, "right": {"Value": bool(value)}}}:
                return self.of(inner) if value else _OPPOSITE[self.of(inner)]
            case {"&&": {"left": left, "right": right}}:
                return self.joined(left, right, skips="falls")
            case {"||": {"left": left, "right": right}}:
                return self.joined(left, right, skips="rises")
            case {"if-then-else": {"if": condition, "then": then, "else": otherwise}}:
                return self.chosen(condition, then, otherwise)
        return self.asked(tree)

    def joined(self, left: Tree, right: Tree, *, skips: Trend) -> Trend:
        first = self.of(left)
        if first in (skips, "unknown") and not cannot_fail([right]):
            # Without the label, the right part was evaluated and could fail, which denies; with it, it may be skipped.
            return "unknown"
        return _both(first, self.of(right))

    def chosen(self, condition: Tree, then: Tree, otherwise: Tree) -> Trend:
        """Treat `if a then true else b` as `a || b`, and so on; any other choice by a label is unknown."""
        if self.of(condition) == "still":
            return _both(self.of(then), self.of(otherwise))
        negated = {"!": {"arg": condition}}
        match then, otherwise:
            case {"Value": True}, _:
                return self.joined(condition, otherwise, skips="rises")
            case {"Value": False}, _:
                return self.joined(negated, otherwise, skips="falls")
            case _, {"Value": False}:
                return self.joined(condition, then, skips="falls")
            case _, {"Value": True}:
                return self.joined(negated, then, skips="rises")
        return "unknown"

    def asked(self, tree: Tree) -> Trend:
        """Return the trend of an expression without boolean parts."""
        match tree:
            case {"contains": {"left": left, "right": one}} if self.are(left):
                return self.rising([one])
            case {"containsAny": {"left": left, "right": right}} if self.are(left) or self.are(right):
                return self.rising(_elements(right if self.are(left) else left))
            case {"containsAll": {"left": left, "right": right}} if self.are(left):
                return self.rising(_elements(right))
            case {"containsAll": {"left": left, "right": right}} if self.are(right) and not self.reads(left):
                return "falls"
            case {"isEmpty": {"arg": inner}} if self.are(inner):
                return "falls"
        return "unknown" if self.reads(tree) else "still"

    def rising(self, asked: list[Tree]) -> Trend:
        if any(self.reads(one) for one in asked):
            return "unknown"
        return "still" if all(self.widens(one) for one in asked) else "rises"

    def widens(self, tree: Tree) -> bool:
        match tree:
            case {"Value": str(name)}:
                return name in self.labels and self.labels[name].widens
        return False

    def are(self, tree: Tree) -> bool:
        return _is_labels(tree, self.policy)

    def reads(self, tree: Tree) -> bool:
        return any(self.are(node) for node in nodes([tree]))


def _both(first: Trend, second: Trend) -> Trend:
    if second in (first, "still"):
        return first
    return second if first == "still" else "unknown"


def _is_labels(tree: Any, policy: LintPolicy) -> bool:  # noqa: ANN401 - any JSON value
    """Return whether an expression is, or may be, the labels of a session."""
    match tree:
        case {".": {"left": base, "attr": "labels"}}:
            where = path(base)
            if where[:1] == ("resource",):
                return len(where) > 1 or any(one.resource_type == "Session" for one in policy.environments)
            return not any(where[: len(other)] == other for other in _OTHERS)
    return False


def _elements(tree: Tree) -> list[Tree]:
    """Return the elements of a set literal; for any other set, the set itself."""
    match tree:
        case {"Set": [*elements]}:
            return elements
    return [tree]


def _texts(tree: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    match tree:
        case {"Value": str(text)}:
            yield text
        case {"Set": [*elements]}:
            for one in elements:
                yield from _texts(one)


def _conjunction(left: Tree, right: Tree) -> Tree:
    return {"&&": {"left": left, "right": right}}


def _help(name: str, trend: Trend) -> str:
    declared = f"if the approver should see the label, declare `labels: {{{name}: {{meaning: …, widens: true}}}}`"
    if trend == "unknown":
        return (
            "test labels with `contains`, `containsAny` or `containsAll`, joined by `&&`, `||` and `!`, after "
            f"everything that can fail; or {declared}"
        )
    return (
        f'use a label to take away: `forbid … when {{ context.session.labels.contains("{name}") }}`; for what an '
        f'approver gives, use a grant: `context.session in Grant::"…"`; {declared}'
    )
