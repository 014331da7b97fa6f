"""Lints about bounds on arguments: an argument that is left out, and a number without a lower bound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal

from pdp.policy.lint.arguments import parameter_at
from pdp.policy.lint.facts import Environment, Finding, LintBundle, LintPolicy, Tree, atoms, path
from pdp.policy.lint.truth import Literal, literal, value_where
from pdp.policy.tools.parameters import DecimalType, Parameter

_INPUT = ("context", "input")
# Whether the comparison asks the left side to be smaller.
_COMPARISONS: Mapping[str, bool] = {
    "<": True,
    "<=": True,
    ">": False,
    ">=": False,
    "lessThan": True,
    "lessThanOrEqual": True,
    "greaterThan": False,
    "greaterThanOrEqual": False,
}


def optional_bound(policy: LintPolicy, bundle: LintBundle) -> Iterator[Finding]:
    """Find a forbid of certain values that an agent can evade by leaving the argument out."""
    if policy.effect != "forbid":
        return
    for where, read in _demanded(policy):
        for one in policy.environments:
            parameter = parameter_at(one.tool, where) if one.tool else None
            if parameter is not None and (why := _why_escaped(policy, where, parameter, one, bundle, read)):
                null = " or null" if parameter.nullable else ""
                yield Finding(
                    message=f"forbid `{policy.id}` does not match when `{'.'.join(where)}` of `{one.action}` is left "
                    f"out{null}: {why}",
                    help=f"`if {'.'.join(where[:-1])} has {where[-1]} then … else true` forbids leaving it out; if "
                    "that is harmless, say so with `@allow`",
                    at=[where],
                )
                break


def lower_bound(bundle: LintBundle) -> Iterator[tuple[LintPolicy, Finding]]:
    """Find numbers with an upper bound and no lower bound, here or in another forbid: negative ones pass."""
    below: dict[tuple[str, ...], list[frozenset[str]]] = {}
    for policy in bundle.policies:
        for where, above in _bounds(policy):
            if policy.effect == "forbid" and not above:
                below.setdefault(where, []).append(policy.actions)
    for policy in bundle.policies:
        bounds = set(_bounds(policy))
        for where in sorted(where for where, above in bounds if above and (where, False) not in bounds):
            elsewhere = any(policy.actions <= actions for actions in below.get(where, ()))
            if not elsewhere and _may_be_negative(policy, where):
                message = f"has an upper bound for `{'.'.join(where)}` but no lower bound: a negative number passes"
                advice = "add a lower bound, or let the tool's own schema say `minimum: 0`"
                yield (
                    policy,
                    Finding(message=f"{policy.effect} `{policy.id}` {message}", help=advice, at=[where]),
                )


def _may_be_negative(policy: LintPolicy, where: tuple[str, ...]) -> bool:
    known = (parameter_at(one.tool, where) for one in policy.environments if one.tool)
    return any(one is not None and not one.opaque and one.declared.minimum is None for one in known)


def _demanded(policy: LintPolicy) -> Iterator[tuple[tuple[str, ...], Tree]]:
    """Yield the arguments whose presence is a condition of the policy, each with the tree that reads it."""
    for tree in policy.conditions:
        match tree:
            case {"has": {"left": left, "attr": str(name)}} if path(left)[:2] == _INPUT:
                yield (*path(left), name), {".": {"left": left, "attr": name}}


def _why_escaped(
    policy: LintPolicy,
    where: tuple[str, ...],
    parameter: Parameter,
    environment: Environment,
    bundle: LintBundle,
    read: Tree,
) -> str:
    """Return why leaving the argument out evades the forbid; empty when it is not known to."""
    if parameter.opaque or (parameter.required and not parameter.nullable):
        return ""
    default = _default(parameter)
    if default is None:
        bounded = any(asked == where for asked, _ in _bounds(policy))
        return "policies cannot know which number the tool then uses" if bounded else ""
    values = [value_where(tree, read, default, environment, bundle) for tree in policy.conditions]
    if False in values or values.count(True) < 2:  # noqa: PLR2004 - that it is given, and what is asked of it
        return ""
    return f"the tool then uses its default, `{parameter.declared.default}`, which is forbidden as an argument"


def _default(parameter: Parameter) -> Literal | None:
    """Return the default of an argument that is left out, as policies would see it."""
    found = parameter.declared.default
    if isinstance(parameter.type, DecimalType) and type(found) in (int, Decimal):
        return "decimal", Decimal(str(found))
    return literal(found)


def _bounds(policy: LintPolicy) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield each argument with a bound beyond which calls do not pass, and whether it is an upper bound."""
    for tree, positive in atoms(policy.conditions):
        for where, smaller in _compared(tree):
            yield where, smaller == (positive == (policy.effect == "permit"))


def _compared(tree: Tree) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield the compared argument, and whether the comparison asks it to be smaller."""
    for operator, smaller in _COMPARISONS.items():
        match tree.get(operator):
            case {"left": left, "right": right} | [left, right]:
                for one, first in ((left, True), (right, False)):
                    if path(one)[:2] == _INPUT:
                        yield path(one), smaller == first
