"""What is counted is known when a bundle is loaded: other uses of `context.counts` and `context.done` are refused."""

from __future__ import annotations

import pytest

from pdp.limits import DEFAULT_LIMITS
from pdp.policy.counting import CountedNames
from pdp.policy.loading import CheckReport, inspect_bundle, load_bundle
from pdp.testing.bundles import bundle_files, compile_here, tool

LOOK, COMMIT = 'action == Action::"git/look"', 'action == Action::"git/commit"'
ALL = 'action in [Action::"read_only", Action::"mutating"]'
OVERLAY = "tools: {look: {risk: read_only, groups: [looks]}, commit: {risk: mutating}, 'odd name.x': {risk: mutating}}"


def files(*rules: tuple[str, str], schema: str | None = None) -> dict[str, bytes]:
    """Return a bundle with a forbid for each scope and condition."""
    text = "\n".join(
        f'@id("git/{number}") forbid (principal, {action}, resource) when {{ {condition} }};'
        for number, (action, condition) in enumerate(rules)
    )
    more = {} if schema is None else {"schema": schema}
    return bundle_files(
        policies={"git": text},
        tools={"git": [tool("look", {"to": {"type": "string"}}), tool("commit"), tool("odd name.x")]},
        overlays={"git": OVERLAY},
        manifest="groups: {looks: {meaning: looks at something}}",
        directory="{users: {alice: {}}, agents: {coder: {ceiling: ['git/*']}}}",
        **more,
    )


def checked(*rules: tuple[str, str]) -> CheckReport:
    """Check a bundle."""
    return inspect_bundle(files(*rules), DEFAULT_LIMITS, compile_here)


@pytest.mark.parametrize(
    ("condition", "counts", "done"),
    [
        ('context.counts["git/commit"] >= 3', ["git/commit"], []),
        ('context.counts["git/odd name.x"] + 1 > 3', ["git/odd name.x"], []),
        ("context.counts.mutating > 3 || context.counts.looks == 0", ["looks", "mutating"], []),
        ('!context.done.contains("git/look")', [], ["git/look"]),
        ('context.done.containsAll(["git/look", "read_only"])', [], ["git/look", "read_only"]),
        (
            'if context.done.containsAny(["destructive"]) then context.counts["git/look"] > 1 else true',
            ["git/look"],
            ["destructive"],
        ),
    ],
)
@pytest.mark.parametrize("action", [LOOK, ALL])
def test_fixed_names_are_counted(action: str, condition: str, counts: list[str], done: list[str]) -> None:
    """Of tools, risk groups and the groups of the bundle; the author's schema declares nothing for it."""
    names = CountedNames(frozenset(counts), frozenset(done))
    rules = ((action, condition), (COMMIT, 'context.opaque.contains("x")'))
    bundle = load_bundle(files(*rules), DEFAULT_LIMITS, compile_here)

    assert names == bundle.counted == bundle.slice("git/look").counted
    assert not bundle.slice("git/look").reading.cacheable
    everywhere = action == ALL
    assert (names if everywhere else CountedNames()) == bundle.slice("git/commit").counted
    assert bundle.slice("git/commit").reading.cacheable is not everywhere


def test_calls_are_counted_under_the_names_that_any_policy_reads() -> None:
    """Under the tool's own name and those of its groups; others are not counted."""
    bundle = load_bundle(
        files((COMMIT, 'context.counts["git/look"] > 1 && context.done.containsAny(["looks", "mutating"])')),
        DEFAULT_LIMITS,
        compile_here,
    )

    assert {
        "git/look": ("git/look", "looks"),
        "git/commit": ("mutating",),
        "git/odd name.x": ("mutating",),
    } == bundle.counted_as
    assert bundle.takes_reports
    without = bundle.with_policies([])
    assert (CountedNames(), {}, False) == (without.counted, without.counted_as, without.takes_reports)


@pytest.mark.parametrize(
    "condition",
    [
        "context has counts",
        "context has done && true",
        'context.counts has "git/look" && context.counts["git/look"] > 1',
        "context.counts == context.counts",
        '[context.counts].contains({ "git/look": 3 })',
        "context.done.isEmpty()",
        '["git/look"].containsAll(context.done)',
        "context.done == context.done",
        "context.input has to && context.done.contains(context.input.to)",
        'context.input has to && context.done.containsAll(["git/look", context.input.to])',
        "context.done.containsAll(context.opaque)",
        '(if true then context.counts else context.counts)["git/look"] > 3',
    ],
)
def test_other_uses_are_refused(condition: str) -> None:
    """With the place, and the form that works."""
    report = checked((LOOK, condition), (COMMIT, 'context.counts["git/commit"] > 3'))

    found = [(one.code, one.file, one.line) for one in report.errors]
    assert [("count", "git.cedar", 1)] == found
    assert "without fixed names" in report.errors[0].message
    assert report.errors[0].help.startswith(("write `context.counts[", "write `context.done.contains("))


@pytest.mark.parametrize(
    "condition",
    [
        "context == context",
        '{ whole: context }.whole.counts["git/look"] > 1',
        '(if true then context else context).counts["git/look"] > 3',
    ],
)
def test_the_whole_context_is_not_read_where_something_is_counted(condition: str) -> None:
    """Without counts nothing is said of it."""
    report = checked((LOOK, condition), (COMMIT, 'context.counts["git/commit"] > 3'))

    assert [("count", 1)] == [(one.code, one.line) for one in report.errors]
    assert "as a whole" in report.errors[0].message
    assert "count" not in {one.code for one in checked((LOOK, condition)).errors}


@pytest.mark.parametrize(
    ("condition", "message", "advice"),
    [
        ('context.counts["git/comit"] > 1', "`git/comit`", "did you mean `git/commit`?"),
        ('context.done.contains("git/lok")', "`git/lok`", "did you mean `git/look`?"),
        ("context.counts.look > 1", "`look`", "did you mean `looks`?"),
        ('context.done.containsAny(["mutating", "zzz"])', "`zzz`", "`pdp tools list` shows the tools and their groups"),
        ('context.counts["pdp/request_session"] > 1', "`pdp/request_session`", ""),
    ],
)
def test_an_unknown_name_is_refused(condition: str, message: str, advice: str) -> None:
    """With the nearest one."""
    report = checked((LOOK, condition))

    assert ["count"] == [one.code for one in report.errors]
    assert message in report.errors[0].message
    assert report.errors[0].help.startswith(advice)


@pytest.mark.parametrize("action", ["action", 'action == Action::"pdp/request_session"'])
def test_rules_about_sessions_read_no_counts(action: str) -> None:
    """A rule for any action is one of them; the message says how to name all tools."""
    report = checked((action, 'context.done.contains("git/look")'))

    assert ["count"] == [one.code for one in report.errors]
    assert "steps of a session" in report.errors[0].message


def test_a_count_is_a_number() -> None:
    """The message about types says so."""
    report = checked((LOOK, 'context.counts["git/look"] == "3"'))

    assert ["type-mismatch"] == [one.code for one in report.errors]
    assert "of type Long" in report.errors[0].message


def test_an_attribute_of_the_same_name_elsewhere_is_free() -> None:
    """Only those of the context itself are counts."""
    report = checked((LOOK, 'principal has counts && principal.counts == "x"'))

    assert "count" not in {one.code for one in report.errors}
