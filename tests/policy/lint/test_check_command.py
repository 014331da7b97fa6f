"""`pdp check`: exit codes, JSON, SARIF, and what it does with a folder that is none."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from click.testing import CliRunner, Result

from pdp.cli.root import root
from pdp.workbench.checking import summaries
from tests.policy.lint.material import files, policy

Run = Callable[..., Result]
WRONG = 'forbid (principal, action == Action::"bank/transfer", resource)'
WARNED = policy("permit (principal, action, resource)")
REFUSED = policy(WRONG, "when { context.input.cent > 5 }", name="y")


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Check a folder `bank rules` with these policies, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("PDP_"):
            monkeypatch.delenv(name)

    def run(policies: str, *flags: str) -> Result:
        for name, content in files(policies).items():
            path = tmp_path / "bank rules" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return CliRunner().invoke(root, ["check", "bank rules", *flags], prog_name="pdp")

    return run


@pytest.mark.parametrize(
    ("policies", "flags", "expected"),
    [
        ("", (), 0),
        ("", ("--deny", "warnings"), 0),
        (WARNED, (), 0),
        (WARNED, ("--deny", "warnings"), 1),
        (WARNED, ("--json", "--deny", "warnings"), 1),
        (REFUSED, (), 1),
        (REFUSED, ("--sarif",), 1),
        (WARNED, ("--json", "--sarif"), 2),
        (WARNED, ("--reads", "--sarif"), 2),
        (WARNED, ("--deny", "everything"), 2),
    ],
)
def test_exit_code(check: Run, policies: str, flags: tuple[str, ...], expected: int) -> None:
    """Errors are 1, warnings only where they are denied, and a wrong command is 2."""
    assert expected == check(policies, *flags).exit_code


def test_folder_that_is_none_cannot_be_checked(check: Run) -> None:
    """A folder that does not exist is no finding: the check could not run."""
    check("")

    done = CliRunner().invoke(root, ["check", "bank"], prog_name="pdp")

    assert (2, "error: bank: does not exist; `pdp new` creates a policy folder\n") == (done.exit_code, done.stderr)


def test_json_holds_everything(check: Run) -> None:
    """The JSON has one shape for errors and warnings, with files relative to the bundle."""
    answer = json.loads(check(WARNED + REFUSED, "--json").stdout)

    assert {"valid", "version", "problems"} == answer.keys()
    assert (False, "") == (answer["valid"], answer["version"])
    assert {"file", "line", "column", "width", "severity", "code", "message", "help"} == answer["problems"][0].keys()
    assert [("error", "unknown-attribute", 5, 8, 18), ("warning", "open-permit", 2, 1, 6)] == [
        (one["severity"], one["code"], one["line"], one["column"], one["width"]) for one in answer["problems"]
    ]
    assert {"bank.cedar"} == {one["file"] for one in answer["problems"]}


READERS = """
@id("bank/assistants")
permit (principal, action, resource) when { context.agent in AgentGroup::"assistants" };
@id("bank/dear")
forbid (principal, action == Action::"bank/transfer", resource) when { context.input.cents > 500 };
@id("bank/mine")
forbid (principal, action == Action::"bank/transfer", resource)
when { context.input.cents > 5 && context.caller.id == "x" };
@id("bank/hours")
forbid (principal, action == Action::"files/read", resource) when { context.now.toTime() < duration("8h") };
@id("bank/whole")
forbid (principal, action == Action::"files/write", resource) when { [context].isEmpty() };
"""


def test_what_policies_read_is_told(check: Run) -> None:
    """`--reads` says for each tool how answers are remembered, and which policy reads what of a call."""
    lines = [" ".join(line.split()) for line in check(READERS, "--reads").stdout.splitlines()]
    tools = json.loads(check(READERS, "--reads", "--json").stdout)["tools"]

    assert lines[lines.index("tool answers read of a call by") + 1 :] == [
        "bank/balance pure",
        "bank/transfer input context.caller bank/mine",
        "context.input.cents bank/dear, bank/mine",
        "files/read timed context.now bank/hours",
        "files/write volatile, never remembered context bank/whole",
    ]
    assert {"tool": "bank/balance", "cache_class": "pure", "remembered": True, "reads": {}} == tools[0]
    assert {"context.caller": ["bank/mine"], "context.input.cents": ["bank/dear", "bank/mine"]} == tools[1]["reads"]
    assert [True, True, True, False] == [tool["remembered"] for tool in tools]


def test_what_does_not_load_is_not_read(check: Run) -> None:
    """With an error nothing is said about the tools."""
    assert "tools" not in json.loads(check(REFUSED, "--reads", "--json").stdout)


OVERLOOKED = ["directroy.yaml", "guards/files.cedar", "guards.Cedar", "tools/bank.yml", "tools/deep/bank.yaml.cedar"]
OTHERS = ["README.md", "pdp.yaml", "tests/old.cedar", ".git/x.cedar", "notes/bank.yaml"]


def test_files_that_are_not_read_are_told(check: Run, tmp_path: Path) -> None:
    """A forbid in a folder of its own, or under a misspelt name, would be missing without a word."""
    for name in (*OVERLOOKED, *OTHERS):
        path = tmp_path / "bank rules" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    found = json.loads(check(policy(WRONG), "--json").stdout)["problems"]

    assert sorted(OVERLOOKED) == sorted(one["file"] for one in found if one["code"] == "not-read")


def test_sarif_has_the_shape_that_code_review_reads(check: Run, tmp_path: Path) -> None:
    """What SARIF 2.1.0 demands is there, rules and results agree, and places are those of the files."""
    log = json.loads(check(WARNED + REFUSED, "--sarif").stdout)
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]

    assert ("2.1.0", "unicodeCodePoints") == (log["version"], run["columnKind"])
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    assert run["tool"]["driver"]["name"]
    assert ["error", "warning"] == [one["level"] for one in run["results"]]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert rules[result["ruleIndex"]]["shortDescription"]["text"] == summaries()[result["ruleId"]]
        assert result["message"]["text"]
        assert_place(result["locations"][0]["physicalLocation"], tmp_path)


def assert_place(place: dict[str, Any], folder: Path) -> None:
    """Assert that a location is a file below the folder, and a region within one of its lines."""
    uri, region = place["artifactLocation"]["uri"], place["region"]
    line = (folder / unquote(uri)).read_text(encoding="utf-8").splitlines()[region["startLine"] - 1]

    assert "bank%20rules/bank.cedar" == uri
    assert 1 <= region["startColumn"] < region["endColumn"] <= len(line) + 1


def test_page_lists_every_lint(project_root: Path) -> None:
    """The table of warnings in `policies/README.md` says what the code says."""
    page = (project_root / "policies" / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", page, re.MULTILINE))
    lints = {code: text for code, text in summaries().items() if code in rows}

    assert lints == {code: text for code, text in rows.items() if code in summaries()}
    assert {"open-permit", "never-matches", "unneeded-allow", "unknown-reference"} <= lints.keys()
