"""`pdp test`: what it runs, what it prints for people, scripts and continuous integration, and how it exits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from pdp.cli.root import root
from pdp.limits import DEFAULT_LIMITS
from pdp.workbench.parallel import jobs_for, run_parallel
from pdp.workbench.reasons import Reasons
from pdp.workbench.runner import CaseResult, run
from pdp.workbench.selection import found
from tests.workbench import material
from tests.workbench.folder import write_bundle
from tests.workbench.material import HEAD, suite

GOOD = """  - {case: reading, session: work, call: read, expect: allow}
  - {case: secrets, session: work, call: secret, expect: deny}
"""
BAD = "  - {case: writing, session: work, call: write, expect: allow}\n"
Run = Callable[..., Result]


@pytest.fixture
def pdp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a folder with a bundle in `policies` and two files of tests; one case is wrong."""
    monkeypatch.chdir(tmp_path)
    write_bundle(
        tmp_path / "policies",
        {"good_test.yaml": f"{HEAD}cases:\n{GOOD}", "more/bad_test.yaml": f"{HEAD}cases:\n{GOOD}{BAD}"},
    )
    return lambda *words: CliRunner().invoke(root, words, prog_name="pdp")


def test_exit_code_says_whether_all_pass(pdp: Run) -> None:
    """0: all pass; 1: some fail; 2: nothing could be run."""
    codes = [
        pdp("test", *words).exit_code
        for words in (("policies", "--filter", "good"), ("policies",), ("nowhere",), ("policies", "--filter", "none"))
    ]

    assert [0, 1, 2, 2] == codes


def test_folder_of_the_settings_is_the_default(pdp: Run) -> None:
    """Without DIR the tests are those of the folder that the server would load."""
    assert pdp("test", "policies").output.partition("(")[0] == pdp("test").output.partition("(")[0]


def test_verbose_names_what_passes(pdp: Run) -> None:
    """With `--verbose` every case has a line."""
    output = pdp("test", "policies", "--verbose", "--filter", "good").output

    assert [
        "ok    policies/tests/good_test.yaml:14: reading",
        "ok    policies/tests/good_test.yaml:15: secrets",
    ] == output.splitlines()[:2]
    assert output.splitlines()[2].startswith("2 cases passed (")


def test_json_says_all(pdp: Run) -> None:
    """`--json` prints every case with what was expected and what was decided."""
    answer = json.loads(pdp("test", "policies", "--json").stdout)

    assert (False, 5, 1) == (answer["passed"], answer["cases"], answer["failed"])
    last = answer["results"][-1]
    del last["seconds"]
    assert {
        "file": "tests/more/bad_test.yaml",
        "line": 16,
        "case": "writing",
        "session": "work",
        "call": "write",
        "step": "",
        "passed": False,
        "problems": ["expected `allow`, got `deny`"],
        "expected": {"outcome": "allow"},
        "actual": {"outcome": "deny", "basis": "default_deny", "policies": [], "errors": [], "obligations": []},
    } == {key: value for key, value in last.items() if key != "explanation"}


def test_junit_is_written(pdp: Run) -> None:
    """`--junit` writes a suite for each file, and the whole text of a failure."""
    pdp("test", "policies", "--junit", "report.xml")

    top = ET.fromstring(Path("report.xml").read_bytes())  # noqa: S314 - our own file
    assert ("5", "1") == (top.get("tests"), top.get("failures"))
    assert ["tests/good_test.yaml", "tests/more/bad_test.yaml"] == [one.get("name") for one in top]
    (failure,) = top.iter("failure")
    assert "expected `allow`, got `deny`" == failure.get("message")
    assert "policies/tests/more/bad_test.yaml:16: writing" in (failure.text or "")


def test_junit_holds_no_character_that_xml_cannot(pdp: Run, tmp_path: Path) -> None:
    """Arguments may hold any character, and the file can still be read."""
    text = f'{HEAD}  odd: {{tool: files/read, arguments: {{path: "\\u0001\\uFFFE"}}}}\ncases:\n'
    write_bundle(tmp_path / "odd", {"a_test.yaml": text + "  - {case: a, session: work, call: odd, expect: deny}\n"})

    pdp("test", "odd", "--junit", "report.xml")

    assert 1 == len(list(ET.fromstring(Path("report.xml").read_bytes()).iter("failure")))  # noqa: S314 - ours


@pytest.mark.parametrize(
    ("text", "finds"),
    [
        ("git", True),
        ("matrix [work", True),
        ("tests/git_test.yaml: matrix", True),
        ("tests/*", True),
        ("matrix [*, read]", True),
        ("*[work, rea?]", True),
        ("matrix*commit]", False),
        ("Matrix", False),
        ("tests/git", True),
        ("git*", False),
    ],
)
def test_filter(text: str, finds: bool) -> None:  # noqa: FBT001 - a column of the table
    """A filter is part of file and name; with a wildcard it is the whole of the file, the name or both."""
    assert finds == found(text, "tests/git_test.yaml", "matrix [work, read]")


def test_cedar_file_is_run_beside_the_tests(pdp: Run) -> None:
    """A JSON file among the arguments, or after `--cedar`, is a test file of Cedar's command line."""
    test = {
        "name": "nobody",
        "request": {
            "principal": 'User::"eve"',
            "action": 'Action::"pdp/approve_session"',
            "resource": 'Session::"s"',
            "context": {},
        },
        "entities": [],
        "decision": "deny",
        "reason": [],
        "num_errors": 0,
    }
    Path("cases.json").write_text(json.dumps([test]), encoding="utf-8")

    by_argument = pdp("test", "policies", "cases.json", "--filter", "nobody")
    by_option = pdp("test", "policies", "--cedar", "cases.json", "--filter", "nobody")

    assert 1 == by_argument.exit_code
    assert "FAIL  cases.json: nobody" in by_argument.output
    assert "problem:  the request does not fit the schema" in by_argument.output
    assert by_argument.output.partition("(")[0] == by_option.output.partition("(")[0]


def test_bundle_that_does_not_load_is_named(pdp: Run) -> None:
    """A bundle with a mistake is no failure of its tests: nothing is run, and the mistake is named."""
    Path("policies/files.cedar").write_text("permit", encoding="utf-8")

    done = pdp("test", "policies")

    assert 2 == done.exit_code
    assert done.stderr.startswith("error: policies/files.cedar:1: ")
    assert done.stderr.endswith("error: nothing was run: fix the bundle first\n")


def test_folder_without_tests_says_how_to_begin(pdp: Run, tmp_path: Path) -> None:
    """The message about a bundle without tests says where to write them."""
    write_bundle(tmp_path / "bare", {})

    done = pdp("test", "bare")

    assert (2, "error: `bare/tests` holds no test: write one into a file `tests/NAME_test.yaml`\n") == (
        done.exit_code,
        done.stderr,
    )


def test_schema_is_printed(pdp: Run) -> None:
    """`--print-schema` prints the schema that ships with the package."""
    assert "Tests of policies: tests/*_test.yaml" == json.loads(pdp("test", "--print-schema").stdout)["title"]


def test_json_explains_what_failed(pdp: Run) -> None:
    """A case that failed says why it was decided so, and the nearest permit part by part; the others say nothing."""
    answer = json.loads(pdp("test", "policies", "--json", "--filter", "tests/more/*").stdout)

    explanations = [result["explanation"] for result in answer["results"]]
    assert [[], []] == explanations[:2]
    why, *parts = explanations[2]
    assert why.startswith("why:      denied: no permit matched; the nearest is `files/write-when-granted`")
    assert [
        "✗ permit files/write-when-granted  files.cedar:5",
        '    ✓ action == Action::"files/write"',
        '    ✗ context.session in Grant::"writing"',
        "    · context.input.size + 1 > 0",
    ] == parts


def test_several_processes_find_the_same() -> None:
    """In processes the results are the same, in the same order, and what failed can still be explained."""
    suites = [suite(GOOD + BAD), suite(GOOD)]
    files = material.material_files()
    told: list[CaseResult] = []

    report = run_parallel(material.bundle(), files, suites, jobs=2, limits=DEFAULT_LIMITS, done=told.append)

    expected, results = run(material.bundle(), suites).results, report.results
    assert [(r.case, r.problems, r.ruling) for r in expected] == [(r.case, r.problems, r.ruling) for r in results]
    assert list(report.results) == told
    assert [False, False, True, False, False] == [result.facts is not None for result in report.results]
    assert Reasons(DEFAULT_LIMITS)(report.results[2])[0].startswith("why:      denied: no permit matched")


def test_processes_pay_for_many_cases() -> None:
    """A small folder is run in this process."""
    assert 1 == jobs_for(200)
    assert 1 <= jobs_for(100_000)
