"""Test files: what is read, how tables expand, and how a slip is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdp.errors import BundleError
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Basis, Outcome, SessionState
from pdp.policy.contents import read_folder, version_of
from pdp.workbench.reading import read_suite, read_suites
from pdp.workbench.suite import EarlierCall, Expectation, Step
from tests.workbench.material import FILE, HEAD, suite

CASE = "  - {case: one, session: work, call: read, expect: allow}\n"


def problems(text: str) -> list[str]:
    """Return what is wrong with a test file."""
    with pytest.raises(BundleError) as caught:
        read_suite(FILE, text.encode())
    return [str(problem) for problem in caught.value.problems]


def test_case_is_read_as_it_stands() -> None:
    """A case holds its file, the line of its expectation, its session, call and time."""
    (case,) = suite("  - {case: one, session: work, call: read, expect: deny forbid}\n").cases

    assert (FILE, 14, "one", "work", "read") == (case.file, case.line, case.name, case.session, case.call)
    assert 1767607200.0 == case.now
    assert Expectation(outcome=Outcome.DENY, basis=Basis.FORBID) == case.expect


def test_table_expands_to_each_session_with_each_call() -> None:
    """Each cell is a case with its own name, line and expectation; one value can fill a whole row."""
    cases = suite("""  - case: matrix
    sessions: [work, gone]
    calls: [read, write]
    expect:
      work:
        read: allow
        write: {outcome: deny, policies: []}
      gone: deny session_revoked
""").cases

    assert [
        ("matrix [work, read]", 19, "allow"),
        ("matrix [work, write]", 20, "deny policies []"),
        ("matrix [gone, read]", 21, "deny session_revoked"),
        ("matrix [gone, write]", 21, "deny session_revoked"),
    ] == [(case.name, case.line, str(case.expect)) for case in cases]


def test_one_axis_needs_one_level() -> None:
    """Where only the calls or only the sessions vary, the expectations are one mapping."""
    cases = suite("""  - {case: calls, session: work, calls: [read, write], expect: {read: allow, write: deny}}
  - {case: sessions, sessions: [work, gone], call: read, expect: {work: allow, gone: deny}}
""").cases

    assert [
        ("calls [read]", "allow"),
        ("calls [write]", "deny"),
        ("sessions [work]", "allow"),
        ("sessions [gone]", "deny"),
    ] == [(case.name, str(case.expect)) for case in cases]


def test_case_may_have_its_own_time() -> None:
    """`now` of a case overrides that of the file."""
    (case,) = suite("  - {case: late, now: 2026-01-05T22:30+01:00, session: work, call: read, expect: deny}\n").cases

    assert 1767648600.0 == case.now


def test_a_case_has_a_history() -> None:
    """The calls before, in order, each with what is reported of it; every cell of a table has it."""
    one, two = suite("""  - case: history
    session: work
    after:
      - read
      - {call: write, labels: [x], failed: true}
    calls: [read, write]
    expect: allow
""").cases

    assert (EarlierCall(call="read"), EarlierCall(call="write", labels=("x",), failed=True)) == one.after
    assert one.after == two.after


@pytest.mark.parametrize(
    ("said", "result"),
    [
        ("{id: x, n: [1, 2.5, null]}", '{"id": "x", "n": [1, 2.5, null]}'),
        ("[a]", '["a"]'),
        ("write to a@x.com", '"write to a@x.com"'),
        ("'{}'", '"{}"'),
    ],
)
def test_a_call_of_a_history_has_a_result(said: str, result: str) -> None:
    """A JSON value, or a text as a text."""
    (case,) = suite(
        f"  - {{case: a, session: work, after: [{{call: read, result: {said}}}], call: read, expect: allow}}\n"
    ).cases

    assert (EarlierCall(call="read", result_json=result),) == case.after


def test_a_slip_in_a_history_has_its_line() -> None:
    """The line of the call, not only that of the case."""
    cases = (
        "  - case: a\n    session: work\n    after:\n    - read\n    - call: raed\n    call: read\n    expect: allow\n"
    )

    assert ["tests/files_test.yaml:18: unknown call: `raed`; did you mean `read`?"] == problems(
        f"{HEAD}cases:\n{cases}"
    )


def test_table_with_more_cells_than_memory_holds() -> None:
    """A few lines can name a billion cases; reading stops at a bound."""
    sessions, calls = ([f"{letter}{number}" for number in range(320)] for letter in "sc")
    text = "".join(
        (
            "sessions:\n",
            *(f"  {name}: {{user: alice, agent: coder, tools: [files/*]}}\n" for name in sessions),
            "calls:\n",
            *(f"  {name}: {{tool: files/read}}\n" for name in calls),
            f"cases:\n- {{case: all, sessions: [{', '.join(sessions)}], calls: [{', '.join(calls)}], expect: deny}}\n",
        )
    )

    assert ["tests/files_test.yaml:644: more than 100000 cases in one file"] == problems(text)


def test_step_takes_the_place_of_a_call() -> None:
    """A case may be about a step of a session."""
    (case,) = suite("  - {case: one, session: work, step: approve, expect: allow}\n").cases

    assert (Step.APPROVE, "") == (case.step, case.call)


def test_child_session_has_its_parents_user_and_agent() -> None:
    """What a child does not say of user and agent, its parent says."""
    child = suite(CASE).sessions["child"]

    assert ("ada", "helper", SessionState.ACTIVE) == (child.user, child.agent, child.state)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("case: []", f"{FILE}:1: unknown key: `case`; did you mean `cases`?"),
        ("cases: []", f"{FILE}:1: holds no case"),
        ("name: x\n  y: [", f"{FILE}:2: not YAML: mapping values are not allowed in this context"),
        ("now: 2026-01-05\n" + HEAD[1:].partition("\n")[2] + "cases:\n" + CASE, f"{FILE}:1: `now` must be a time"),
        ("sessions: {s: {user: u}}\ncases: []", f"{FILE}:1: `agent` is missing"),
        ("sessions: {basis: {parent: basis, tools: []}}", f"{FILE}:1: `basis` is a keyword of expectations"),
        ("calls: {obligations: {tool: a/b}}", f"{FILE}:1: `obligations` is a keyword of expectations"),
        ("sessions: {s: {parent: t, tools: []}}", f"{FILE}:1: unknown session: `t`"),
        ("sessions: {s: {parent: s, tools: []}}", f"{FILE}:1: `s` is its own parent"),
        ("sessions:\n  s: {user: u, agent: a, tools: ['*']}", f"{FILE}:2: `*`: must have the form `server/tool`"),
        ("sessions:\n  s: {user: u, agent: a, tools: [x/y], state: revokd}", f"{FILE}:2: unknown state: `revokd`; did"),
        ("sessions:\n  s: {user: u, agent: a, tools: [x/y], duration: 0}", f"{FILE}:2: `duration` must be a number"),
        ("now: 0001-01-01T00:00Z\ncases: []", f"{FILE}:1: `now` must be a time"),
        ("now: 2026-02-30T00:00Z\ncases: []", f"{FILE}:1: `now` must be a time"),
        ('approver: "\\ud800"\ncases: []', f"{FILE}:1: not YAML: found invalid Unicode character escape code"),
        ("calls:\n  c: {tool: git}", f"{FILE}:2: `tool` must be written `server/tool`"),
        ("calls:\n  c: {tool: a/b, arguments: 3}", f"{FILE}:2: `arguments` must be a mapping"),
        ("users:\n  ada: {group: [x]}", f"{FILE}:2: unknown key: `group`; did you mean `groups`?"),
    ],
)
def test_slip_in_file_is_named(text: str, expected: str) -> None:
    """What is wrong with a file is said with file, line and the nearest right word."""
    assert any(problem.startswith(expected) for problem in problems(text)), problems(text)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("{session: work, call: read, expect: allow}", "`case` is missing"),
        ("{case: a, session: work, call: read}", "`expect` is missing"),
        ("{case: a, session: wrk, call: read, expect: allow}", "unknown session: `wrk`; did you mean `work`?"),
        ("{case: a, session: work, calls: [rd], expect: allow}", "unknown call: `rd`; did you mean `read`?"),
        ("{case: a, session: work, call: {tool: a/b}, expect: deny}", "`call` takes names; define them under"),
        ("{case: a, session: {user: u}, call: read, expect: deny}", "`session` takes names; define them under"),
        ("{case: a, session: work, expect: allow}", "a case needs either `call` or `calls`"),
        ("{case: a, session: work, sessions: [work], call: read, expect: allow}", "either `session` or `sessions`"),
        ("{case: a, session: work, call: read, step: approve, expect: allow}", "either a call or a `step`"),
        ("{case: a, session: work, after: [read], step: approve, expect: allow}", "`after` needs a call"),
        ("{case: a, session: work, call: read, by: ada, expect: allow}", "`by` needs `step: approve_call`"),
        ("{case: a, session: work, step: approve_call, expect: allow}", "a case needs either `call` or `calls`"),
        ("{case: a, session: work, approvals: [read], step: approve, expect: allow}", "`approvals` needs a call"),
        (
            "{case: a, session: work, approvals: [read], call: read, step: approve_call, expect: allow}",
            "with `step: approve_call`, `approvals` names calls of `after`",
        ),
        ("{case: a, session: work, approvals: [], call: read, expect: allow}", "`approvals` must hold names of calls"),
        ("{case: a, session: work, approvals: [raed], call: read, expect: allow}", "unknown call: `raed`"),
        ("{case: a, session: work, after: [], call: read, expect: allow}", "`after` must be a list of calls"),
        ("{case: a, session: work, after: read, call: read, expect: allow}", "`after` must be a list of calls"),
        (
            "{case: a, session: work, after: [raed], call: read, expect: allow}",
            "unknown call: `raed`; did you mean `read`?",
        ),
        ("{case: a, session: work, after: [{call: raed}], call: read, expect: allow}", "unknown call: `raed`"),
        ("{case: a, session: work, after: [{labels: [x]}], call: read, expect: allow}", "`call` is missing"),
        (
            "{case: a, session: work, after: [{call: read, result: .nan}], call: read, expect: allow}",
            "`result` must be a JSON value or a text",
        ),
        (
            "{case: a, session: work, after: [{call: read, failed: true, result: x}], call: read, expect: allow}",
            "a call that `failed` has no `result`",
        ),
        (
            "{case: a, session: work, after: [7], call: read, expect: allow}",
            "`after` holds names of calls, or mappings",
        ),
        (
            "{case: a, session: work, after: [{call: read, lables: [x]}], call: read, expect: allow}",
            "unknown key: `lables`; did you mean `labels`?",
        ),
        (
            "{case: a, session: work, after: [{call: read, labels: x}], call: read, expect: allow}",
            "`labels` must be a list of texts",
        ),
        (
            "{case: a, session: work, after: [{call: read, failed: 1}], call: read, expect: allow}",
            "`failed` must be `true` or `false`",
        ),
        (
            "{case: a, session: work, step: open, expect: allow}",
            "`step` must be one of request, approve, delegate, approve_call",
        ),
        ("{case: a, sessions: [work, work], call: read, expect: allow}", "`sessions` must hold names, each once"),
        ("{case: a, session: work, call: read, expect: alow}", "unknown outcome: `alow`; did you mean `allow`?"),
        ("{case: a, session: work, call: read, expect: forbid}", "did you mean `deny forbid`?"),
        ("{case: a, session: work, call: read, expect: deny forbidden}", "unknown basis: `forbidden`; did you mean"),
        ("{case: a, session: work, call: read, expect: allow forbid}", "no decision is `allow forbid`"),
        ("{case: a, session: work, call: read, expect: {outcom: allow}}", "unknown key: `outcom`; did you mean"),
        ("{case: a, session: work, call: read, expect: {}}", "an expectation is a text such as `deny forbid`"),
        ("{case: a, sessions: [work], call: read, expect: {wrk: allow}}", "unknown session: `wrk`"),
        *(
            (
                f"{{case: a, session: work, call: read, expect: {{obligations: {said}}}}}",
                "`obligations` must be a list of",
            )
            for said in ("x", "[7]", "[{a: 1}]", "[{a: {}, b: {}}]", "[{}]", "['']", "{a: {}}", "[{a: {b: .inf}}]")
        ),
        (
            "{case: a, sessions: [work, gone], call: read, expect: {work: allow}}",
            "no expectation for session `gone`",
        ),
        ("{case: a, now: 10:00, session: work, call: read, expect: allow}", "`now` must be a time with its zone"),
    ],
)
def test_slip_in_case_is_named(case: str, expected: str) -> None:
    """What is wrong with a case is said with its line and the nearest right word."""
    found = problems(f"{HEAD}cases:\n  - {case}\n")

    assert any(problem.startswith(f"{FILE}:14: ") and expected in problem for problem in found), found


def test_case_names_stand_once() -> None:
    """Two cases may not have the same name."""
    assert [f"{FILE}:15: case `one` appears twice; first at line 14"] == problems(f"{HEAD}cases:\n{CASE}{CASE}")


def test_all_files_of_a_folder_are_read(tmp_path: Path) -> None:
    """Tests are in `tests/` at any depth, and are read in the order of their names."""
    for name in ("tests/b_test.yaml", "tests/a/a_test.yaml", "tests/notes.md", "other_test.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{HEAD}cases:\n{CASE}", encoding="utf-8")

    suites = read_suites(tmp_path)

    assert ["tests/a/a_test.yaml", "tests/b_test.yaml"] == [one.file for one in suites]


def test_file_that_would_not_run_is_named(tmp_path: Path) -> None:
    """A YAML file beside the tests whose name does not end like a test's is a problem and not passed over."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "git.yaml").write_text("cases: []", encoding="utf-8")

    with pytest.raises(BundleError, match=r"tests/git\.yaml: is not run"):
        read_suites(tmp_path)


def test_tests_are_no_part_of_what_decides(tmp_path: Path) -> None:
    """A change of a test leaves the bundle's version as it was."""
    (tmp_path / "bundle.yaml").write_text("name: x", encoding="utf-8")
    before = version_of(read_folder(tmp_path, DEFAULT_LIMITS))
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "a_test.yaml").write_text(HEAD, encoding="utf-8")
    (tmp_path / "tests" / "a.cedar").write_text("permit (principal, action, resource);", encoding="utf-8")

    assert before == version_of(read_folder(tmp_path, DEFAULT_LIMITS))
