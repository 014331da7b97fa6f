"""Further groups of actions: their declarations, and what names them."""

from __future__ import annotations

import pytest

from pdp.limits import DEFAULT_LIMITS
from pdp.policy.bundle import Bundle
from pdp.policy.loading import inspect_bundle, load_bundle
from pdp.testing.bundles import bundle_files, compile_here, tool

DIRECTORY = "users: {alice: {}}\nagents: {coder: {ceiling: ['s/*']}}\n"
GROUPS = "name: test\ngroups: {critical: {meaning: cannot be undone}, leaves: {meaning: sends something outside}}\n"
OVERLAY = "tools: {read: {risk: read_only}, send: {risk: mutating, groups: [leaves, critical]}}"
SCOPE = 'principal == User::"alice"'


def files(policy: str = "", *, manifest: str = GROUPS, overlay: str = OVERLAY) -> dict[str, bytes]:
    """Return the files of a bundle with two tools, one of them in both groups."""
    return bundle_files(
        policies={"a": policy} if policy else {},
        tools={"s": [tool("read"), tool("send")]},
        directory=DIRECTORY,
        overlays={"s": overlay},
        manifest=manifest,
    )


def loaded(policy: str = "") -> Bundle:
    """Return such a bundle, loaded."""
    return load_bundle(files(policy), DEFAULT_LIMITS, compile_here)


def errors(policy: str = "", **other: str) -> list[str]:
    """Return what keeps such a bundle from loading, each with file, line and help."""
    report = inspect_bundle(files(policy, **other), DEFAULT_LIMITS, compile_here)
    return [f"{one.file}:{one.line}: {one.message}|{one.help}" for one in report.errors]


def warnings(policy: str = "", **other: str) -> list[str]:
    """Return what may be a mistake in such a bundle, each with its help."""
    report = inspect_bundle(files(policy, **other), DEFAULT_LIMITS, compile_here)
    return [f"{one.message}|{one.help}" for one in report.warnings]


def test_an_action_is_in_its_risk_group_and_its_further_groups() -> None:
    """The slice of a tool holds the policies of each of its groups; the schema declares them all."""
    bundle = loaded(
        f'@id("a/leaves") forbid ({SCOPE}, action in Action::"leaves", resource);'
        f'@id("a/mutating") forbid ({SCOPE}, action in Action::"mutating", resource);'
    )

    assert ("s/send", "mutating", "critical", "leaves") == bundle.groups_of("s/send")
    assert ("s/read", "read_only") == bundle.groups_of("s/read")
    assert ["a/leaves", "a/mutating"] == [one.id for one in bundle.slice("s/send").policies]
    assert [] == [one.id for one in bundle.slice("s/read").policies]
    assert 'action "read_only", "mutating", "destructive", "critical", "leaves";' in bundle.schema_text()


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        ("groups: [critical]\n", "1: `groups` must be a mapping of names, each with its `meaning`"),
        ("groups:\n  critical: bad\n", "2: `critical` must be a mapping with its `meaning`"),
        ("groups:\n  critical: {}\n", "2: `critical`: `meaning` must say in one line what the group means"),
        ("groups:\n  critical: {meaning: a, risk: b}\n", "2: unknown key: `risk`"),
        ("groups:\n  'a b': {meaning: a}\n", "2: a group must be printable, without blanks, and at most 128 "),
        ("groups:\n  mutating: {meaning: a}\n", "2: `mutating` is a risk group; choose another name"),
        ("groups:\n  pdp: {meaning: a}\n", "2: the name `pdp` is reserved"),
        ("groups:\n  s/read: {meaning: a}\n", "2: `s/read`: the name of a group must not hold `/`, as a tool's does"),
    ],
)
def test_wrong_declarations_are_told(manifest: str, problem: str) -> None:
    """A group has a meaning and a name that is no other action's; what is wrong has file and line."""
    overlay = "tools: {read: {risk: read_only}}"

    assert [f"bundle.yaml:{problem}"] == [
        one[: len(f"bundle.yaml:{problem}")] for one in errors(manifest=manifest, overlay=overlay)
    ]


def test_an_undeclared_group_of_a_policy_is_told_with_the_nearest() -> None:
    """A policy that misspells a group does not load."""
    (problem,) = errors(f'@id("a/x") forbid ({SCOPE}, action in Action::"leave", resource);')

    assert problem.startswith("a.cedar:1: ")
    assert problem.endswith("|did you mean `leaves`?")


def test_a_group_without_tools_matches_nothing_and_is_told() -> None:
    """A bundle with a rule for tools that it does not have yet loads, and its author is warned."""
    overlay = "tools: {read: {risk: read_only}, send: {risk: mutating}}"
    policy = f'@id("a/x") forbid ({SCOPE}, action in [Action::"critical", Action::"destructive"], resource);'

    assert [] == errors(policy, overlay=overlay)
    (warning,) = [one for one in warnings(policy, overlay=overlay) if "`a/x`" in one]
    assert "no tool is in its action group" in warning
    assert "set `risk` or `groups` in an overlay" in warning


def test_a_group_that_no_policy_names_changes_nothing() -> None:
    """Bundles may declare groups for later."""
    assert [] == errors()
