"""Results that are called unchanged under other policies are those that a run finds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from pdp.foundation.threads import on_large_stack
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.bundle import Bundle
from pdp.policy.child.mutants import mutate_bundle
from pdp.policy.contents import read_folder
from pdp.policy.loading import load_bundle
from pdp.testing.bundles import compile_here
from pdp.workbench.mutation import Mutant, mutants_of
from pdp.workbench.reading import read_suites
from pdp.workbench.runner import run
from pdp.workbench.suite import Suite
from pdp.workbench.unchanged import UnchangedResults
from tests.workbench.material import HEAD, bundle, material_files, suite

CASES = """  - case: calls
    sessions: [work, granted, child]
    calls: [read, secret, write]
    expect:
      work: {read: allow, secret: deny, write: deny}
      granted: {read: allow, secret: deny, write: allow}
      child: {read: allow, secret: deny, write: deny out_of_scope}
  - {case: gone, session: gone, call: read, expect: deny session_revoked}
  - {case: request, session: work, step: request, expect: allow}
  - {case: delegate, session: child, step: delegate, expect: allow}
"""


def mutants(files: Mapping[str, bytes]) -> tuple[Mutant, ...]:
    """Return all mutants of a bundle."""
    return mutants_of(files, DEFAULT_LIMITS, lambda job: on_large_stack(lambda: mutate_bundle(job))).mutants


def compare(whole: Bundle, suites: Iterable[Suite], changes: Iterable[Mutant]) -> tuple[list[str], int, int]:
    """Return the results wrongly called unchanged, and the numbers of those called unchanged and of the others."""
    known = tuple(suites)
    as_is = run(whole, known)
    wrong: list[str] = []
    unchanged, others = 0, 0
    for mutant in changes:
        policies = [mutant.changed if one.id == mutant.of else one for one in whole.policies.values()]
        changed = whole.with_policies([one for one in policies if one is not None])
        results = UnchangedResults(changed)
        for before, after in zip(as_is.results, run(changed, known).results, strict=True):
            if not results.contains(before):
                others += 1
                continue
            unchanged += 1
            if not after.passed or before.ruling != after.ruling:
                wrong.append(f"{mutant.of} {mutant.words}: {before.case.id}")
    return wrong, unchanged, others


def test_an_unchanged_result_is_what_a_run_finds() -> None:
    """For each mutant of a bundle, each case that is not run again would have come to the same."""
    wrong, unchanged, others = compare(bundle(), [suite(CASES)], mutants(material_files()))

    assert [] == wrong
    assert unchanged > others > 30


def test_case_that_failed_does_not_stand() -> None:
    """What did not pass, and what came from another process, only a run can tell."""
    (failed,) = run(bundle(), [suite("  - {case: one, session: work, call: read, expect: deny}\n")]).results

    assert not UnchangedResults(bundle()).contains(failed)


def test_own_directory_of_a_file_counts() -> None:
    """A file's own users override those of the bundle when its questions are asked again, too."""
    head = HEAD.replace("work: {user: ada", "work: {user: zoe") + "users: {zoe: {groups: [staff]}}\n"
    (before,) = run(bundle(), [suite("  - {case: one, session: work, call: read, expect: allow}\n", head)]).results
    fewer = [policy for policy in bundle().policies.values() if policy.id != "files/staff-read"]

    assert UnchangedResults(bundle()).contains(before)
    assert not UnchangedResults(bundle().with_policies(fewer)).contains(before)


@pytest.mark.long
def test_what_stands_on_the_shipped_policies_is_what_a_run_finds(project_root: Path) -> None:
    """The same for the shipped policies with all their tests and every fifth of their mutants."""
    files = read_folder(project_root / "policies", DEFAULT_LIMITS)
    shipped = load_bundle(files, DEFAULT_LIMITS, compile_here)

    wrong, unchanged, others = compare(shipped, read_suites(project_root / "policies"), mutants(files)[::5])

    assert [] == wrong
    assert unchanged > others > 100
