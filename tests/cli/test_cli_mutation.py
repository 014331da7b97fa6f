"""`pdp test --mutate`: what a person reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.machinery.servers.commandline import write_bundle

POLICIES = """
@id("files/read")
permit (principal, action == Action::"files/read", resource);

@id("files/write-when-granted")
permit (principal, action == Action::"files/write", resource) when { context.session in Grant::"writing" };
"""
CASES = """
sessions:
  work: {user: alice, agent: coder, tools: ["files/*"]}
  granted: {user: alice, agent: coder, tools: ["files/*"], grants: [writing]}
calls:
  read: {tool: files/read, arguments: {path: notes}}
  write: {tool: files/write}
cases:
  - {case: read, session: work, call: read, expect: allow}
  - {case: granted, session: granted, call: write, expect: allow}
"""
UNGRANTED = "  - {case: ungranted, session: work, call: write, expect: deny}\n"


@pytest.fixture
def folder() -> Path:
    """Write a bundle whose tests leave a gap."""
    write_bundle(Path("policies"), policies={"files": POLICIES})
    (Path("policies") / "tests").mkdir()
    write_cases(CASES)
    return Path("policies")


def write_cases(cases: str) -> None:
    """Write the tests."""
    Path("policies/tests/files_test.yaml").write_text(cases, encoding="utf-8")


def test_survivors_are_listed(run: Run, folder: Path) -> None:
    """Each with its file and line, its policy and what was changed; exit code 1."""
    done = run("test", str(folder), "--mutate-policy", "files/*")

    place = "  policies/files.cedar:5: files/write-when-granted:"
    assert [
        "no test notices: 2",
        '  policies/files.cedar:2: files/read: action == Action::"files/read" → action',
        place + ' when { context.session in Grant::"writing" } dropped',
        "",
    ] == done.stdout.splitlines()[:4]
    assert "survived, 0 equivalent, 0 timed out" in done.stdout.splitlines()[-1]
    assert 1 == done.exit_code


def test_figures_are_of_the_chosen_policies(run: Run, folder: Path) -> None:
    """What the check refuses of other policies is not counted with those that were asked for."""
    whole = json.loads(run("test", str(folder), "--mutate", "--json").stdout)
    names = {one["policy"] for one in whole["mutants"]}
    parts = [json.loads(run("test", str(folder), "--mutate-policy", name, "--json").stdout) for name in names]

    assert whole["refused"] == sum(part["refused"] for part in parts)
    assert whole["refused"] > min(part["refused"] for part in parts)
    assert len(whole["mutants"]) == sum(len(part["mutants"]) for part in parts)


def test_a_declared_and_a_closed_gap(run: Run, folder: Path) -> None:
    """What an author has looked at is counted apart; with the case that was missing, nothing needs to be."""
    Path("policies/tests/mutants.yaml").write_text(
        "equivalent:\n  - policy: files/write-when-granted\n"
        "    mutant: 'when { context.session in Grant::\"writing\" } dropped'\n    reason: everybody may write\n",
        encoding="utf-8",
    )

    done = run("test", str(folder), "--mutate-policy", "granted", "--json")

    told = json.loads(done.stdout)
    assert (0, 0, 1, []) == (done.exit_code, told["counts"]["survived"], told["counts"]["equivalent"], told["stale"])
    assert 1.0 == told["score"]
    write_cases(CASES + UNGRANTED)
    Path("policies/tests/mutants.yaml").unlink()
    assert 0 == run("test", str(folder), "--mutate-policy", "files/*").exit_code


def test_what_cannot_run(run: Run, folder: Path) -> None:
    """No such policy, and tests that fail as they are, say so with exit code 2."""
    nothing = run("test", str(folder), "--mutate-policy", "nowhere")
    write_cases(CASES + UNGRANTED.replace("deny", "allow"))
    failing = run("test", str(folder), "--mutate")

    assert (2, "error: no policy matches `nowhere`\n") == (nothing.exit_code, nothing.stderr)
    assert (2, "error: 1 of the tests fail without any change; fix them first\n") == (
        failing.exit_code,
        failing.stderr,
    )
