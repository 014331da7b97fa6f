"""The shipped bundle: what it promises to people who copy it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdp.foundation.threads import on_large_stack
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.bundle import Bundle
from pdp.policy.child.mutants import mutate_bundle
from pdp.policy.contents import read_folder
from pdp.policy.loading import load_bundle
from pdp.policy.tools.catalogue import load_catalogue, tool_definitions
from pdp.testing.bundles import compile_here
from pdp.workbench.coverage import CoverageCounter
from pdp.workbench.equivalents import read_equivalents
from pdp.workbench.mutation import Mutants, Verdict, mutants_of, try_mutants
from pdp.workbench.reading import read_suites
from pdp.workbench.runner import Report, run
from pdp.workbench.suite import Suite

SERVERS = {"filesystem": "server-filesystem", "git": "mcp-server-git", "github": "github-mcp-server"}


@pytest.fixture(scope="module")
def folder(project_root: Path) -> Path:
    """Return the folder of the bundle."""
    return project_root / "policies"


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    """Return the bundle, compiled."""
    return load_bundle(read_folder(folder, DEFAULT_LIMITS), DEFAULT_LIMITS, compile_here)


@pytest.fixture(scope="module")
def suites(folder: Path) -> tuple[Suite, ...]:
    """Return the bundle's own tests."""
    return read_suites(folder)


@pytest.fixture(scope="module")
def coverage(bundle: Bundle) -> CoverageCounter:
    """Return what counts what the bundle's own tests show."""
    return CoverageCounter(bundle)


@pytest.fixture(scope="module")
def report(bundle: Bundle, suites: tuple[Suite, ...], coverage: CoverageCounter) -> Report:
    """Return what became of the bundle's own tests."""
    return run(bundle, suites, done=coverage.take)


@pytest.fixture(scope="module")
def mutants(folder: Path) -> Mutants:
    """Return every policy of the bundle with one thing changed."""
    return mutants_of(
        read_folder(folder, DEFAULT_LIMITS), DEFAULT_LIMITS, lambda job: on_large_stack(lambda: mutate_bundle(job))
    )


@pytest.fixture(scope="module")
def said_of_themselves(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return what each tool says about itself, by action."""
    return {
        f"{path.stem}/{tool['name']}": tool.get("annotations", {})
        for path in sorted((folder / "tools").glob("*.json"))
        for tool in tool_definitions(path.read_bytes())
    }


def test_its_own_tests_pass(report: Report) -> None:
    """Every case of the bundle finds what it expects."""
    assert [] == [(result.case.id, result.problems) for result in report.failed]


def test_its_tests_show_every_policy(report: Report, coverage: CoverageCounter) -> None:
    """Each policy decides in a case and does not match in another; each condition is true in one, false in another."""
    assert report.passed
    every = coverage.coverage().policies
    assert [] == [one.policy.id for one in every if not one.covered]
    assert [] == [(one.policy.id, str(c.condition)) for one in every for c in one.conditions if not c.covered]


@pytest.mark.parametrize("each", [5, pytest.param(1, marks=pytest.mark.long)])
def test_its_tests_notice_every_change(
    bundle: Bundle, suites: tuple[Suite, ...], mutants: Mutants, folder: Path, each: int
) -> None:
    """No mutant survives: whatever is changed in a policy, a case fails. Those declared equivalent are so.

    Of the mutants, each so-manieth is tried.
    """
    made = replace(mutants, mutants=mutants.mutants[::each])
    tried_ones = {(one.of, one.words) for one in made.mutants}
    declared = {key: entry for key, entry in read_equivalents(folder).items() if each == 1 or key in tried_ones}

    tried = try_mutants(bundle, suites, made, equivalents=declared)

    assert len(tried.results) > 400 // each
    assert [] == [(one.mutant.of, one.mutant.words) for one in tried.having(Verdict.SURVIVED)]
    assert tried.passed


def test_a_missing_boundary_is_noticed(bundle: Bundle, suites: tuple[Suite, ...], mutants: Mutants) -> None:
    """Without the case just beyond a limit, a mutant survives."""
    made = replace(mutants, mutants=tuple(one for one in mutants.mutants if one.of == "guardrails/short-histories"))
    # No other suite asks about the lengths of histories.
    (whole,) = (suite for suite in suites if any(case.call == "history-101" for case in suite.cases))
    fewer = [replace(whole, cases=tuple(case for case in whole.cases if case.call != "history-101"))]

    tried = try_mutants(bundle, fewer, made)

    survived = [one.mutant.words for one in tried.having(Verdict.SURVIVED)]
    assert survived
    assert all("100" in words for words in survived)


def test_every_case_says_all(suites: tuple[Suite, ...]) -> None:
    """A case states outcome, basis and determining policies, so that it shows how to write one."""
    silent = [
        case.id
        for suite in suites
        for case in suite.cases
        if None in (case.expect.outcome, case.expect.basis, case.expect.policies)
    ]

    assert [] == silent


def test_it_is_large_enough_to_learn_from(bundle: Bundle) -> None:
    """It has at least 25 policies, over at least 40 tools of three servers."""
    tools = [tool for tool in bundle.catalogue.tools.values() if tool.server in SERVERS]

    assert len(bundle.policies) >= 25
    assert len(tools) >= 40
    assert set(SERVERS) == {tool.server for tool in tools}


def test_tools_are_those_of_the_real_servers(folder: Path, test_data: Path) -> None:
    """The catalogue is what real servers answered, to the last digest."""
    for server, name in SERVERS.items():
        answer = (test_data / "mcp-tools" / f"{name}.tools.json").read_bytes()
        kept = (folder / "tools" / f"{server}.json").read_bytes()

        assert digests(server, answer) == digests(server, kept)


def test_no_overlay_is_milder_than_its_server(
    bundle: Bundle, said_of_themselves: Mapping[str, Mapping[str, Any]]
) -> None:
    """What a server calls destructive is, and nothing that it does not call read-only is."""
    for action, tool in bundle.catalogue.tools.items():
        said = said_of_themselves[action]
        if said.get("destructiveHint") is True and said.get("readOnlyHint") is not True:
            assert tool.risk == "destructive", action
        if said.get("readOnlyHint") is not True:
            assert tool.risk != "read_only", action


def test_what_names_a_resource_is_mapped_to_it(bundle: Bundle) -> None:
    """No tool that requires a repository or a path is left with its server, and every placeholder is canonical."""
    for action, tool in bundle.catalogue.tools.items():
        required = set(tool.input.required)
        if {"owner", "repo"} <= required or not required.isdisjoint({"repo_path", "path", "source"}):
            assert tool.mapping is not None, action
        if tool.mapping is not None:
            assert set(tool.mapping.fields) == set(tool.mapping.canonical), action


def test_guardrails_only_forbid(bundle: Bundle) -> None:
    """`guardrails.cedar` holds forbids, and permits stand in the file of their server."""
    assert {"forbid"} == {policy.effect for policy in bundle.policies.values() if policy.file == "guardrails.cedar"}
    for server in {tool.server for tool in bundle.catalogue.tools.values()}:
        assert {"permit"} == {policy.effect for policy in bundle.policies.values() if policy.file == f"{server}.cedar"}


def test_every_policy_says_what_it_is_for(folder: Path, bundle: Bundle) -> None:
    """Above each policy stands a comment that is a sentence."""
    for policy in bundle.policies.values():
        text = (folder / policy.file).read_text(encoding="utf-8")
        above = text[: text.index(f'@id("{policy.id}")')].splitlines()[-1]

        assert re.fullmatch(r"// .+[.!]", above), policy.id


def test_the_guide_shows_what_is_there(folder: Path, bundle: Bundle) -> None:
    """Each policy and each case of the ten patterns stands in the bundle, word for word."""
    guide = (folder / "README.md").read_text(encoding="utf-8")
    patterns = guide[guide.index("## Ten patterns") : guide.index("## Check")]
    policies = [text for shown in blocks(patterns, "cedar") for text in shown.split("\n\n")]
    cases = [text for shown in blocks(patterns, "yaml") for text in shown.split("\n\n")]
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (folder / "tests").glob("*_test.yaml"))

    assert 10 == len(re.findall(r"^### \d+\. ", patterns, re.MULTILINE))
    assert set() == {text.strip() for text in policies} - {policy.text.strip() for policy in bundle.policies.values()}
    assert [] == [text for text in cases if indented(text) not in tests]


def blocks(text: str, kind: str) -> list[str]:
    """Return the code blocks of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def indented(case: str) -> str:
    """Return a case as it stands in the list of a test file."""
    return "\n".join(f"  {line}" for line in case.strip("\n").splitlines()) + "\n"


def digests(server: str, answer: bytes) -> dict[str, str]:
    """Return the digest of each definition of a `tools/list` answer."""
    catalogue = load_catalogue({f"tools/{server}.json": answer})
    return {action: tool.definition_digest for action, tool in catalogue.tools.items()}
