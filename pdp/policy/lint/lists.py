"""Lints about lists that let calls pass: one good member among bad ones, and an empty list."""

from __future__ import annotations

from collections.abc import Iterator

from pdp.policy.lint.arguments import parameter_at
from pdp.policy.lint.facts import Finding, LintBundle, LintPolicy, Tree, lenient, path, strict

_INPUT = ("context", "input")


def any_of_list(policy: LintPolicy, _: LintBundle) -> Iterator[Finding]:
    """Find a list that passes when only one of its members is good."""
    for tree in lenient(policy):
        match tree:
            case {"containsAny": {"left": left, "right": right}}:
                where = next((path(one) for one in (left, right) if path(one)[:2] == _INPUT), ())
            case {"contains": {"left": left}}:
                where = path(left) if path(left)[:2] == _INPUT else ()
            case _:
                where = ()
        if where:
            shown = ".".join(where)
            yield Finding(
                message=f"{policy.effect} `{policy.id}` lets `{shown}` pass as soon as one member is allowed, whatever "
                "the others are",
                help=f"test all members: `[…].containsAll({shown}) && !{shown}.isEmpty()`",
                at=[where],
            )


def empty_list(policy: LintPolicy, _: LintBundle) -> Iterator[Finding]:
    """Find a list that passes when it is empty: a test of all members is then true."""
    for tree in lenient(policy):
        match tree:
            case {"containsAll": {"right": right}} if path(right)[:2] == _INPUT:
                where = path(right)
            case _:
                continue
        if not any(_asks_for_empty(one, where) for one in strict(policy)) and _may_be_empty(policy, where):
            shown = ".".join(where)
            yield Finding(
                message=f"{policy.effect} `{policy.id}` lets an empty `{shown}` pass, and a tool may take an empty "
                "list to mean everything",
                help=f"require a member: `… && !{shown}.isEmpty()`; or let the tool's schema say `minItems: 1`",
                at=[where],
            )


def _asks_for_empty(tree: Tree, where: tuple[str, ...]) -> bool:
    match tree:
        case {"isEmpty": {"arg": inner}}:
            return path(inner) == where
    return False


def _may_be_empty(policy: LintPolicy, where: tuple[str, ...]) -> bool:
    found = (parameter_at(one.tool, where) for one in policy.environments if one.tool)
    return any(parameter is not None and not parameter.declared.fewest for parameter in found)
