"""The test files of Cedar's own command line: what is read, and that they agree with ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pdp.cli.root import root
from pdp.errors import BundleError
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Targets
from pdp.policy.bundle import Bundle
from pdp.policy.child.evaluation import evaluate
from pdp.policy.child.process import PolicyChild
from pdp.policy.contents import read_folder
from pdp.policy.directory import entity, uid_json
from pdp.policy.loading import load_bundle
from pdp.policy.question import question_of
from pdp.testing.bundles import compile_here
from pdp.workbench.cedarcases import plain_of, read_cedar_cases, read_plain, run_cedar_cases
from pdp.workbench.reading import read_suites
from pdp.workbench.runner import Facts, run
from pdp.workbench.watching import Asked
from tests.workbench.material import bundle, suite

CASES = """  - {case: read, sessions: [work, granted], calls: [read, secret, write], expect: {errors: []}}
  - {case: request, sessions: [work, granted], step: request, expect: {errors: []}}
  - {case: approve, session: work, step: approve, expect: {errors: []}}
  - {case: delegate, session: child, step: delegate, expect: {errors: []}}
"""


def surface(uid: dict[str, str]) -> str:
    """Write an entity's uid as Cedar's command line wants it."""
    return f"{uid['type']}::{json.dumps(uid['id'], ensure_ascii=False)}"


def cedar_test(facts: Facts, asked: Asked, name: str) -> dict[str, Any]:
    """Write what a case of ours asked the policies as a test of Cedar's command line."""
    question = question_of(asked.session, asked.facts, asked.at)
    entities = facts.bundle.session_entities(asked.session, speaker=asked.facts.speaker).entities
    known = {**{uid: one.json for uid, one in facts.bundle.directory.entities.items()}, **entities}
    resource = question.resource
    if resource[0] != "Session":
        server = ("Server", asked.action.partition("/")[0])
        known[server] = entity(server, {}, ()).json
        if resource != server:
            found = known.get(resource) or entity(resource, {}, ()).json
            known[resource] = {**found, "parents": [*found["parents"], uid_json(server)]}
    # A call whose policies do not see its targets is asked about without them.
    unseen = {} if resource[0] == "Session" else {"targets": Targets((), ()).cedar()}
    return {
        "name": name,
        "request": {
            "principal": surface(uid_json(("User", question.user))),
            "action": surface(uid_json(("Action", asked.action))),
            "resource": surface(uid_json(resource)),
            "context": {**unseen, **question.context},
        },
        "entities": list(known.values()),
        "decision": asked.ruling.outcome.value,
        "reason": list(asked.ruling.policies),
        "num_errors": len(asked.ruling.errors),
    }


def both_forms(policies: Bundle, suites: Any) -> Iterator[dict[str, Any]]:
    """Yield each question of each case in the other form."""
    for result in run(policies, suites).results:
        assert result.facts is not None, result
        for place, asked in enumerate((*result.facts.asked, *result.facts.opening)):
            yield cedar_test(result.facts, asked, f"{result.case.name} {place}")


def written(tmp_path: Path, tests: object) -> Path:
    """Write a test file of Cedar's command line."""
    path = tmp_path / "tests.json"
    path.write_text(json.dumps(tests), encoding="utf-8")
    return path


def test_both_forms_agree(tmp_path: Path) -> None:
    """The same questions in Cedar's form and in ours have the same outcome, policies and errors."""
    tests = list(both_forms(bundle(), [suite(CASES)]))
    cases = read_cedar_cases(written(tmp_path, tests), DEFAULT_LIMITS)

    results = run_cedar_cases(plain_of(bundle()), cases, evaluate)

    assert [()] * len(tests) == [result.problems for result in results]
    assert len(tests) > 20
    assert [(test["decision"], test["reason"]) for test in tests] == [
        (result.ruling.outcome.value, list(result.ruling.policies)) for result in results if result.ruling
    ]


def test_both_forms_agree_on_the_shipped_policies(tmp_path: Path, project_root: Path) -> None:
    """The tests of the shipped policies say the same in Cedar's form."""
    folder = project_root / "policies"
    shipped = load_bundle(read_folder(folder, DEFAULT_LIMITS), DEFAULT_LIMITS, compile_here)
    # Each question once: many cases open the same sessions.
    tests = {json.dumps([t["request"], t["entities"]]): t for t in both_forms(shipped, read_suites(folder)[:1])}
    cases = read_cedar_cases(written(tmp_path, [*tests.values()][:40]), DEFAULT_LIMITS)

    results = run_cedar_cases(plain_of(shipped), cases, evaluate)

    assert [()] * len(cases) == [result.problems for result in results]


def test_wrong_cases_fail_in_both_forms(tmp_path: Path) -> None:
    """Where the outcome is another than expected, a reason is missing or errors are not counted, a case fails."""
    (right, *_) = both_forms(bundle(), [suite(CASES)])
    wrong = [
        {**right, "decision": "deny"},
        {**right, "reason": ["guardrails/no-secrets"]},
        {**right, "num_errors": 1},
        {**right, "reason": []},
    ]

    results = run_cedar_cases(plain_of(bundle()), read_cedar_cases(written(tmp_path, wrong), DEFAULT_LIMITS), evaluate)

    assert [
        ("expected `deny`, got `allow`",),
        ("reason: `guardrails/no-secrets` is missing",),
        ("expected 1 errors, got 0",),
        (),
    ] == [result.problems for result in results]


def test_request_outside_the_schema_fails(tmp_path: Path) -> None:
    """A request that does not fit the schema has no decision, in the child process as well."""
    (right, *_) = both_forms(bundle(), [suite(CASES)])
    wrong = [
        {**right, "request": {**right["request"], "context": {}}},
        {**right, "entities": [{"uid": {"type": "Stranger", "id": "x"}, "attrs": {}, "parents": []}]},
    ]
    child = PolicyChild(timeout=60)

    results = run_cedar_cases(
        plain_of(bundle()), read_cedar_cases(written(tmp_path, wrong), DEFAULT_LIMITS), child.evaluate
    )
    child.close()

    assert ("the request does not fit the schema",) == results[0].problems
    assert results[1].problems[0].startswith("entities_json")


def test_entities_may_stand_in_a_file_beside_the_tests(tmp_path: Path) -> None:
    """As for Cedar's command line, `entities` may name a file of the same folder."""
    (right, *_) = both_forms(bundle(), [suite(CASES)])
    (tmp_path / "entities.json").write_text(json.dumps(right["entities"]), encoding="utf-8")
    path = written(tmp_path, [{**right, "entities": "entities.json"}])

    (result,) = run_cedar_cases(plain_of(bundle()), read_cedar_cases(path, DEFAULT_LIMITS), evaluate)

    assert () == result.problems


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        ({}, "must be a list of tests"),
        ([3], "test 1: must be an object"),
        ([{}], "test 1: `decision` is missing"),
        ([{"entities": "../x.json"}], "test 1: `../x.json` is outside the test's folder"),
        ([{"entities": "x.json"}], "test 1: x.json: cannot be read: no such file or directory"),
        ([{"decision": "Allow"}], "test 1: `decision` must be `allow` or `deny`"),
        ([{"reason": "x"}], "test 1: `reason` must be a list of policy ids"),
        ([{"num_errors": -1}], "test 1: `num_errors` must be a number of at least 0"),
        ([{"request": {}}], 'test 1: `principal` must be written `Type::"id"`'),
        ([{"request": {"principal": 'User::"\\q"'}}], "test 1: `\\q` is not an escape of Cedar"),
        ([{"request": {"principal": 'User::"\\u{110000}"'}}], "test 1: `\\u{110000}` is not a character"),
    ],
)
def test_slip_in_a_file_is_named(tmp_path: Path, tests: Any, said: str) -> None:
    """What is wrong with a file is said with the number of the test."""
    whole = {
        "request": {"principal": 'User::"a"', "action": 'Action::"a"', "resource": 'Server::"a"'},
        "entities": [],
        "decision": "deny",
        "reason": [],
        "num_errors": 0,
    }
    given = [{**whole, **test} if isinstance(test, dict) and test else test for test in tests]

    with pytest.raises(BundleError) as caught:
        read_cedar_cases(written(tmp_path, given or tests), DEFAULT_LIMITS)

    assert f"{tmp_path / 'tests.json'}: {said}" == str(caught.value)


@pytest.mark.parametrize("text", ["[", '{"a": 1', "\xff", "[" * 100000])
def test_text_that_is_not_json_is_named(tmp_path: Path, text: str) -> None:
    """A file that is no JSON is a problem and nothing worse."""
    path = tmp_path / "tests.json"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(BundleError, match="not JSON"):
        read_cedar_cases(path, DEFAULT_LIMITS)


def test_escapes_of_ids_are_read_as_cedar_reads_them(tmp_path: Path) -> None:
    """An id may hold any character, written as Cedar writes it."""
    test = {
        "request": {
            "principal": r'My::User::"a\"b\\c\n\u{e9}\x41"',
            "action": 'Action::"a"',
            "resource": 'Server::"ü"',
        },
        "entities": [],
        "decision": "deny",
        "reason": [],
        "num_errors": 0,
    }

    (case,) = read_cedar_cases(written(tmp_path, [test]), DEFAULT_LIMITS)

    assert {"type": "My::User", "id": 'a"b\\c\néA'} == json.loads(case.request_json)["principal"]
    assert "test 1" == case.case.name


PHOTOS = """
@id("owners")
permit (principal, action == Action::"view", resource) when { resource.owner == principal };
forbid (principal, action, resource) when { resource.locked };
"""
PHOTO_SCHEMA = """
entity Person;
entity Photo = {"owner": Person, "locked": Bool};
action "view" appliesTo {principal: Person, resource: Photo};
"""


def photo_case(
    name: str, decision: str, reason: list[str], *, who: str = "ann", locked: bool = False
) -> dict[str, Any]:
    """Return a test of `cedar run-tests`."""
    photo = {"type": "Photo", "id": "cat"}
    owner = {"__entity": {"type": "Person", "id": "ann"}}
    asked = {"principal": f'Person::"{who}"', "action": 'Action::"view"', "resource": 'Photo::"cat"', "context": {}}
    return {
        "name": name,
        "request": asked,
        "entities": [{"uid": photo, "attrs": {"owner": owner, "locked": locked}, "parents": []}],
        "decision": decision,
        "reason": reason,
        "num_errors": 0,
    }


def plain_folder(folder: Path) -> Path:
    """Write plain Cedar: policies in two files, and a schema."""
    folder.mkdir()
    first, _, second = PHOTOS.partition("forbid")
    (folder / "a.cedar").write_text(first, encoding="utf-8")
    (folder / "b.cedar").write_text("forbid" + second, encoding="utf-8")
    (folder / "photos.cedarschema").write_text(PHOTO_SCHEMA, encoding="utf-8")
    return folder


def test_plain_cedar_is_tested_as_it_stands(tmp_path: Path) -> None:
    """A folder without tools, directory and sessions; policies are named by their ids, or as Cedar names them."""
    tests = [
        photo_case("hers", "allow", ["owners"]),
        photo_case("not his", "deny", [], who="bob"),
        photo_case("locked", "deny", ["policy1"], locked=True),
        photo_case("wrong", "allow", ["owners"], who="bob"),
    ]
    plain = read_plain(plain_folder(tmp_path / "photos"), DEFAULT_LIMITS)

    results = run_cedar_cases(plain, read_cedar_cases(written(tmp_path, tests), DEFAULT_LIMITS), evaluate)

    assert ("owners", "policy1") == plain.ids
    assert [(), (), (), ("expected `allow`, got `deny`", "reason: `owners` is missing")] == [
        one.problems for one in results
    ]


def test_plain_cedar_by_command(tmp_path: Path) -> None:
    """The command names what failed, and ends with 1; without a case it says what it runs."""
    folder = plain_folder(tmp_path / "photos")
    tests = [photo_case("hers", "allow", ["owners"]), photo_case("wrong", "allow", [], who="bob")]
    file = written(tmp_path, tests)

    done = CliRunner().invoke(root, ["test", str(folder), str(file), "--plain"])
    nothing = CliRunner().invoke(root, ["test", str(folder), "--plain"])

    lines = [f"failed: {file}: wrong", "  expected `allow`, got `deny`", "1 of 2 cases passed"]
    assert (1, lines) == (done.exit_code, done.stdout.splitlines())
    assert (2, True) == (nothing.exit_code, "needs a FILE.json" in nothing.stderr)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "holds no `*.cedar` file"),
        ({"a.cedar": "", "a.cedarschema": "", "b.cedarschema": ""}, "is a second schema, beside `a.cedarschema`"),
        ({"a.cedar": "permit"}, "unexpected end of input"),
    ],
)
def test_what_is_no_plain_cedar(tmp_path: Path, files: dict[str, str], problem: str) -> None:
    """What keeps a folder from being read is said."""
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")

    with pytest.raises(BundleError) as raised:
        read_plain(tmp_path, DEFAULT_LIMITS)

    assert problem in str(raised.value.problems[0])
