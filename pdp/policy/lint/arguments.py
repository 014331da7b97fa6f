"""Lints about what the agent chooses: strings with more than one spelling, hidden parameters, arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pdp.policy.analysis import resource_type
from pdp.policy.lint.facts import Finding, LintBundle, LintPolicy, Tree, atoms, literal_uid, nodes, path, pattern_text
from pdp.policy.tools.catalogue import Tool
from pdp.policy.tools.parameters import NUMBER, OpaqueType, Parameter, RecordType, StringType

_INPUT = ("context", "input")
# Patterns that are forbidden because they cover many spellings.
_ANY_SPELLING = ("*..*",)
_ARITHMETIC = ("+", "-", "*", "neg")


def raw_string(policy: LintPolicy, _: LintBundle) -> Iterator[Finding]:
    """Find a forbid that an agent can evade with another spelling of the same value."""
    if policy.effect != "forbid":
        return
    seen = set()
    for subject in _decisive(policy.conjuncts):
        where = path(subject)
        # Every attribute of the resource depends on its id.
        where = where if where[:1] != ("resource",) else ("resource",)
        if where in seen:
            continue
        seen.add(where)
        if where[:2] == _INPUT:
            yield from _argument(policy, where)
        elif where[:1] == ("resource",):
            yield from _resource(policy)


def opaque_parameter(policy: LintPolicy, _: LintBundle) -> Iterator[Finding]:
    """Find a rule about a parameter that policies cannot see."""
    asked = {where for node in nodes(policy.conditions) if (where := _asked(node))[:2] == _INPUT}
    for where in sorted(asked):
        tools = [one.tool for one in policy.environments if one.tool]
        hidden = [(tool, parameter) for tool in tools if (parameter := parameter_at(tool, where)) and parameter.opaque]
        if hidden:
            yield opaque_finding(policy.id, where, *hidden[0], more=len(hidden) - 1)


def opaque_finding(policy: str, where: Sequence[str], tool: Tool, parameter: Parameter, *, more: int = 0) -> Finding:
    """Return the finding that a parameter is hidden, with the reason and the overlay line that shows it."""
    others = f" and of {more} more" if more else ""
    reason = parameter.type.reason if isinstance(parameter.type, OpaqueType) else ""
    advice = f'policies can only ask whether it was given: `context.opaque.contains("{parameter.label}")`'
    if parameter.type == NUMBER and len(where) == 3:  # noqa: PLR2004 - a parameter itself, not a property below it
        reason = "a number"
        advice = (
            f"type it in `tools/{tool.server}.yaml`: "
            f"`tools: {{{tool.name}: {{parameters: {{{parameter.name}: {{type: decimal}}}}}}}}`"
        )
    return Finding(
        message=f"policy `{policy}`: policies cannot see `{parameter.label}` of `{tool.action}`{others}; "
        f"it is {reason}",
        help=advice,
        at=[tuple(where), where[-1]],
    )


def overflow(policy: LintPolicy, _: LintBundle) -> Iterator[Finding]:
    """Find arithmetic on a value that the agent chooses: a large number makes it fail."""
    for node in nodes(policy.conditions):
        operator = next((name for name in _ARITHMETIC if len(node) == 1 and name in node), "")
        read = next((p for one in nodes([node]) if (p := path(one))[:2] == _INPUT), ()) if operator else ()
        if read:
            yield Finding(
                message=f"policy `{policy.id}`: arithmetic on `{'.'.join(read)}`, which the agent chooses, can "
                "overflow; a call that makes it overflow cannot be evaluated and is denied",
                help="compare without arithmetic, or accept the deny with `@allow`",
                at=[read],
            )
            return


def _decisive(conjuncts: Sequence[Tree]) -> Iterator[Tree]:
    """Yield strings and resources that make a forbid match because they equal or match a value.

    A forbid of all but certain values cannot be evaded: it also forbids other spellings.
    """
    for tree, positive in atoms(conjuncts):
        yield from _compared(tree, positive=positive)


def _compared(tree: Tree, *, positive: bool) -> Iterator[Tree]:
    """Yield the operands of a comparison, when the forbid matches because they are equal or match."""
    match tree:
        case {"!=": {"left": left, "right": right}} if not positive and not _servers(right):
            yield from (left, right)
        case {"==": {"left": left, "right": right}} if positive and not _servers(right):
            yield from (left, right)
        case (
            {"contains": {"left": left, "right": right}}
            | {"containsAny": {"left": left, "right": right}}
            | {"containsAll": {"left": left, "right": right}}
        ) if positive:
            yield from (left, right)
        case {"like": {"left": left, "pattern": pattern}} if positive and pattern_text(pattern) not in _ANY_SPELLING:
            yield left
        case {"has": {"left": {"Var": "resource"} as left}} if positive:
            yield left
        case {"in": {"left": {"Var": "resource"} as left, "right": above}} if positive and not _servers(above):
            yield left


def _servers(tree: Tree) -> bool:
    named = tree["Set"] if isinstance(tree, dict) and set(tree) == {"Set"} else [tree]
    return all((literal_uid(one) or ("", ""))[0] == "Server" for one in named)


def _argument(policy: LintPolicy, where: Sequence[str]) -> Iterator[Finding]:
    for one in policy.environments:
        parameter = parameter_at(one.tool, where) if one.tool else None
        kind = getattr(parameter.type, "element", parameter.type) if parameter else None
        if isinstance(kind, StringType) and kind.allowed is None and one.tool:
            name = where[-1]
            yield Finding(
                message=f"forbid `{policy.id}` depends on the spelling of `{'.'.join(where)}`, which the agent "
                f"chooses: other case, another path or an alias of the same thing in `{one.action}` is not forbidden",
                help=f'list the allowed values, `unless {{ ["…"].contains({".".join(where)}) }}`; or map the '
                f"call to a resource in `tools/{one.tool.server}.yaml` with `canonical: {{{name}: lower}}` (or "
                "`absolute-path`) and forbid that",
                at=[tuple(where)],
            )
            return


def _resource(policy: LintPolicy) -> Iterator[Finding]:
    kind = resource_type(policy.tree)
    for one in policy.environments:
        mapping = one.tool.mapping if one.tool else None
        if one.tool is None or mapping is None or kind not in (None, mapping.type):
            continue
        raw = next((name for name in mapping.fields if name not in mapping.canonical), None)
        relative = next((name for name, form in mapping.canonical.items() if form == "path"), None)
        if relative:
            yield Finding(
                message=f"forbid `{policy.id}` depends on the resource's id, and `{relative}` of `{one.action}` may be "
                "a relative path: it names the same thing by another id, which is not forbidden",
                help=f"choose the form that takes only absolute paths in `tools/{one.tool.server}.yaml`: "
                f"`canonical: {{{relative}: absolute-path}}`",
                at=[("resource",)],
            )
            return
        if raw and not _enumerated(one.tool, raw):
            yield Finding(
                message=f"forbid `{policy.id}` depends on the resource's id, and `{one.action}` takes its `{raw}` as "
                "the agent spells it: other case or an alias of the same thing is not forbidden",
                help=f"choose its canonical form in `tools/{one.tool.server}.yaml`: `resource: {{…, canonical: "
                f"{{{raw}: lower}}}}` for names that ignore case, `absolute-path` for paths",
                at=[("resource",)],
            )
            return


def _enumerated(tool: Tool, name: str) -> bool:
    parameter = tool.input.parameter(name)
    return bool(parameter and isinstance(parameter.type, StringType) and parameter.type.allowed is not None)


def parameter_at(tool: Tool, where: Sequence[str]) -> Parameter | None:
    """Return the parameter that `context.input.a.b` reads, or its ancestor that has no properties."""
    record, parameter = tool.input, None
    for step in where[2:]:
        parameter = record.parameter(step)
        if parameter is None or not isinstance(parameter.type, RecordType):
            return parameter
        record = parameter.type
    return parameter


def _asked(node: dict[str, Any]) -> tuple[str, ...]:
    match node:
        case {"has": {"left": left, "attr": str(name)}}:
            base = path(left)
            return (*base, name) if base else ()
        case {".": _}:
            return path(node)
    return ()
