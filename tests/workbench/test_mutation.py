"""Mutants tried against tests: seeded gaps are found, and equivalent mutants are counted apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pdp.errors import BundleError
from pdp.foundation.threads import on_large_stack
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.bundle import Bundle
from pdp.policy.child.mutants import mutate_bundle
from pdp.policy.loading import load_bundle
from pdp.testing.bundles import bundle_files, compile_here, tool
from pdp.workbench.equivalents import Equivalent, Equivalents, read_equivalents
from pdp.workbench.mutation import MutationReport, Verdict, mutants_of, try_mutants
from pdp.workbench.reading import read_suite

POLICIES = """
@id("files/read")
permit (principal in UserGroup::"staff", action == Action::"files/read", resource is Server)
when { context.input.size < 10 };
"""
SESSIONS = '@id("sessions/all") permit (principal, action, resource is Session);'
DIRECTORY = """
user_groups: {staff: {}}
users: {ada: {groups: [staff]}, eve: {}, approver: {}}
agents: {coder: {ceiling: ["files/*"]}}
"""
SHAPE = {"size": {"type": "integer"}}
HEAD = """
sessions:
  ada: {user: ada, agent: coder, tools: ["files/*"], may_delegate: true}
  eve: {user: eve, agent: coder, tools: ["files/*"]}
calls:
  small: {tool: files/read, arguments: {size: 9}}
  limit: {tool: files/read, arguments: {size: 10}}
  write: {tool: files/write, arguments: {size: 1}}
cases:
"""
WITHIN = "  - {case: within, session: ada, call: small, expect: allow}\n"
BEYOND = "  - {case: beyond, session: ada, call: limit, expect: deny}\n"
STRANGER = "  - {case: stranger, session: eve, call: small, expect: deny}\n"
OTHER = "  - {case: other tool, session: ada, call: write, expect: deny}\n"
WHOLE = WITHIN + BEYOND + STRANGER + OTHER


def files() -> dict[str, bytes]:
    """Return the bundle."""
    return bundle_files(
        policies={"files": POLICIES},
        tools={"files": [tool("read", SHAPE, ["size"]), tool("write", SHAPE, ["size"])]},
        directory=DIRECTORY,
        overlays={"files": "tools: {read: {risk: read_only}, write: {risk: mutating}}"},
        sessions=SESSIONS,
    )


def mutate_here(job: Mapping[str, Any]) -> dict[str, Any]:
    """Make mutants in this process."""
    return on_large_stack(lambda: mutate_bundle(job))


def bundle() -> Bundle:
    """Load the bundle."""
    return load_bundle(files(), DEFAULT_LIMITS, compile_here)


def tried(cases: str, equivalents: Equivalents | None = None, *, seconds: float = 60.0) -> MutationReport:
    """Try every mutant of `files/read` against these cases."""
    made = mutants_of(files(), DEFAULT_LIMITS, mutate_here)
    suite = read_suite("tests/files_test.yaml", (HEAD + cases).encode())
    report = try_mutants(bundle(), [suite], made, equivalents=equivalents, seconds=seconds)
    return MutationReport(
        results=tuple(one for one in report.results if one.mutant.of == "files/read"),
        refused=report.refused,
        stale=report.stale,
        seconds=report.seconds,
    )


def survivors(report: MutationReport) -> set[str]:
    """Return what no test notices."""
    return {one.mutant.words for one in report.having(Verdict.SURVIVED)}


GAPS = [
    (WHOLE, set()),
    (WITHIN + STRANGER + OTHER, {
        "when { context.input.size < 10 } dropped", "context.input.size < 10 → context.input.size <= 10", "10 → 11"
    }),
    (WITHIN + BEYOND + OTHER, {'principal in UserGroup::"staff" → principal'}),
    (WITHIN + BEYOND + STRANGER, {'action == Action::"files/read" → action'}),
    (WITHIN + OTHER, {
        'principal in UserGroup::"staff" → principal', "when { context.input.size < 10 } dropped",
        "context.input.size < 10 → context.input.size <= 10", "10 → 11",
    }),
]  # fmt: skip


@pytest.mark.parametrize(("cases", "expected"), GAPS)
def test_seeded_gaps_are_found(cases: str, expected: set[str]) -> None:
    """Without the case that shows a rule, exactly the changes of that rule survive."""
    report = tried(cases)

    assert expected == survivors(report)
    assert {"resource is Server → resource"} == {one.mutant.words for one in report.having(Verdict.EQUIVALENT)}


def test_a_killed_mutant_names_the_case_that_noticed() -> None:
    """An author sees which case covers which rule."""
    by = {one.mutant.words: one.by for one in tried(WHOLE).having(Verdict.KILLED)}

    assert "tests/files_test.yaml: beyond" == by["10 → 11"]
    assert "tests/files_test.yaml: stranger" == by['principal in UserGroup::"staff" → principal']
    assert "tests/files_test.yaml: within" == by["policy dropped"]


def test_score_is_of_those_that_can_be_told_apart() -> None:
    """Equivalent mutants count neither way."""
    whole, gap = tried(WHOLE), tried(WITHIN + BEYOND + STRANGER)

    assert 1.0 == whole.score
    assert (len(gap.results) - 2) / (len(gap.results) - 1) == gap.score
    assert not gap.passed


def test_tests_that_fail_say_nothing_of_mutants() -> None:
    """A mutant would be noticed by a case that fails anyway."""
    with pytest.raises(ValueError, match="1 of the tests fail without any change"):
        tried(WHOLE + "  - {case: wrong, session: ada, call: small, expect: deny}\n")


def test_out_of_time_is_no_verdict() -> None:
    """What could not be finished is neither noticed nor survived, and fails."""
    report = tried(WHOLE, seconds=-1.0)

    assert len(report.results) - 1 == len(report.having(Verdict.TIMED_OUT))
    assert not report.passed


def test_declared_equivalents() -> None:
    """A survivor that an author has looked at is counted apart, with the reason."""
    key = ("files/read", 'action == Action::"files/read" → action')
    report = tried(WITHIN + BEYOND + STRANGER, {key: Equivalent("there is one tool", 3)})

    assert set() == survivors(report)
    assert "there is one tool" in {one.by for one in report.having(Verdict.EQUIVALENT)}
    assert report.stale == ()


@pytest.mark.parametrize("words", ["no such change", "10 → 11"])
def test_a_stale_declaration_is_a_problem(words: str) -> None:
    """What does not exist, or is noticed after all, must not stay declared."""
    report = tried(WHOLE, {("files/read", words): Equivalent("because", 3)})

    assert [
        f"tests/mutants.yaml:3: is listed as equivalent but is not: no mutant of `files/read` survives as `{words}`"
    ] == [str(problem) for problem in report.stale]


WRONG = [
    ("equivalent: {}", ":1: `equivalent` must be a list"),
    ("equal: []", ":1: unknown key: `equal`"),
    ("equivalent: [x]", "each entry of `equivalent` must be a mapping"),
    ("equivalent:\n  - {policy: a, mutant: b}", ":2: `reason` is required"),
    ("equivalent:\n  - {policy: a, mutant: b, reason: c, d: e}", ":2: unknown key: `d`"),
    (
        "equivalent:\n  - {policy: a, mutant: b, reason: c}\n  - {policy: a, mutant: b, reason: d}",
        ":3: this mutant appears",
    ),
]


@pytest.mark.parametrize(("text", "expected"), WRONG)
def test_wrong_declarations(tmp_path: Path, text: str, expected: str) -> None:
    """Each names the file and the line."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/mutants.yaml").write_text(text, encoding="utf-8")

    with pytest.raises(BundleError) as caught:
        read_equivalents(tmp_path)
    assert expected in str(caught.value.problems[0])


def test_declarations_are_read(tmp_path: Path) -> None:
    """By policy and words; without the file there are none."""
    none = read_equivalents(tmp_path)
    (tmp_path / "tests").mkdir()
    text = "equivalent:\n  - policy: files/read\n    mutant: 10 → 11\n    reason: even sizes\n"
    (tmp_path / "tests/mutants.yaml").write_text(text, encoding="utf-8")

    assert ({}, {("files/read", "10 → 11"): Equivalent("even sizes", 2)}) == (none, read_equivalents(tmp_path))
