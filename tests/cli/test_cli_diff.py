"""`pdp diff`: two bundles side by side, from folders and from git."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pdp.testing.bundles import OPEN_SESSIONS, tool
from tests.cli.conftest import Run
from tests.machinery.servers.commandline import POLICIES, write_bundle

CASES = """
sessions: {work: {user: alice, agent: coder, tools: ["files/*"]}}
calls:
  read: {tool: files/read, arguments: {path: notes}}
  write: {tool: files/write}
cases:
  - {case: read, session: work, call: read, expect: allow}
  - {case: write, session: work, call: write, expect: deny}
"""
WIDER = '\n@id("files/write-always") permit (principal, action == Action::"files/write", resource);\n'


def written(folder: Path, more: str = "", cases: str = CASES) -> Path:
    """Write a bundle with test cases; `more` is policies beside the usual ones."""
    write_bundle(folder, policies={"files": POLICIES["files"] + more})
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "tests/files_test.yaml").write_text(cases, encoding="utf-8")
    return folder


def git(*words: str, stdin: bytes = b"") -> str:
    """Run git in the current folder, with a name and an address; return what it prints."""
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *words], check=True, capture_output=True, input=stdin)
    return done.stdout.decode().strip()


def tree(entries: dict[str, str]) -> str:
    """Write a tree of git by the names and ids of files, whatever the names are; return its id."""
    listed = (b"100644 " + name.encode() + b"\0" + bytes.fromhex(blob) for name, blob in entries.items())
    return git("hash-object", "-t", "tree", "-w", "--stdin", "--literally", stdin=b"".join(listed))


def test_equal_bundles(run: Run) -> None:
    """Nothing is said but how much was compared."""
    old, new = written(Path("old")), written(Path("new"))

    done = run("diff", str(old), str(new))

    assert (0, "2 calls of the test cases compared: 0 newly allowed, 0 newly denied, 0 newly erring\n", "") == (
        done.exit_code,
        done.stdout,
        done.stderr,
    )


def test_an_allow_that_loses_an_obligation_fails(run: Run) -> None:
    """The call is allowed as before, but the gateway need not redact any more; the other way round is fine."""
    permit = '\n@id("files/obliged"){} permit (principal, action == Action::"files/read", resource);\n'
    bare, obliged = permit.format(""), permit.format(' @obligation("redact_result: {fields: [email]}")')
    old, new = written(Path("old"), obliged), written(Path("new"), bare)

    less, more = run("diff", str(old), str(new)), run("diff", str(new), str(old))
    meant = run("diff", str(old), str(new), "--allow-widening")
    as_json = json.loads(run("diff", str(old), str(new), "--json").stdout)

    assert (2, 0, 0) == (less.exit_code, more.exit_code, meant.exit_code)
    assert "0 newly erring, 1 allowed with fewer obligations\n" in less.stdout
    assert 'with redact_result {"fields":["email"]}' in less.stdout
    assert "~ permit files/obliged" in less.stdout
    assert "1 allowed with more obligations\n" in more.stdout
    assert ["less_obliged"] == [one["effect"] for one in as_json["changes"]]


def test_what_is_newly_allowed_fails(run: Run) -> None:
    """The call is named with what decided before and now; exit code 2, unless it was meant."""
    old, new = written(Path("old")), written(Path("new"), WIDER)

    done = run("diff", str(old), str(new))
    meant = run("diff", str(old), str(new), "--allow-widening")

    assert [
        "+ permit files/write-always  files.cedar:8",
        "2 calls of the test cases compared: 1 newly allowed, 0 newly denied, 0 newly erring",
        "",
        "newly allowed: 1",
        "    was: deny default_deny",
        "    now: allow permit by files/write-always",
        "      write  tests/files_test.yaml: write",
    ] == done.stdout.splitlines()
    assert (2, 0) == (done.exit_code, meant.exit_code)


def test_what_is_newly_denied_does_not_fail(run: Run) -> None:
    """The opposite change is reported, and is not a failure."""
    old, new = written(Path("old"), WIDER), written(Path("new"))

    done = run("diff", str(old), str(new), "--json")

    told = json.loads(done.stdout)
    assert (0, [("tests/files_test.yaml: write", "newly_denied")]) == (
        done.exit_code,
        [(one["call"], one["effect"]) for one in told["changes"]],
    )
    assert [("files/write-always", "removed")] == [(one["id"], one["kind"]) for one in told["policies"]]


def test_a_deleted_case_is_replayed_all_the_same(run: Run) -> None:
    """Whoever widens a policy and deletes the case that shows it is found out."""
    old, new = (
        written(Path("old")),
        written(Path("new"), WIDER, CASES.replace("call: write, expect: deny", "call: read, expect: allow")),
    )

    done = run("diff", str(old), str(new))

    assert 2 == done.exit_code
    assert "newly allowed: 1" in done.stdout


def test_without_cases_it_says_so(run: Run) -> None:
    """No calls compared must not look like no calls changed."""
    old, new = write_bundle(Path("old")), write_bundle(Path("new"), policies={"files": POLICIES["files"] + WIDER})

    done = run("diff", str(old), str(new))

    assert ["+ permit files/write-always  files.cedar:8", "no calls of the test cases to compare"] == (
        done.stdout.splitlines()[:2]
    )
    assert 2 == done.exit_code


@pytest.mark.parametrize("revision", ["HEAD", "HEAD:policies", "first"])
def test_revisions_of_git(run: Run, revision: str) -> None:
    """A revision means the same folder as it was then, whatever the working tree holds."""
    written(Path("policies"))
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    git("tag", "first")
    written(Path("policies"), WIDER)

    done = run("diff", revision, "policies")

    assert 2 == done.exit_code
    assert "newly allowed: 1" in done.stdout.splitlines()


@pytest.mark.parametrize("name", ["../outside", "/outside", "tests//../../outside", "."])
def test_revision_with_a_file_outside_its_folder(run: Run, tmp_path: Path, name: str) -> None:
    """Git lists names out of the folder, so the author of a commit could have any file written."""
    name = str(tmp_path / "outside") if name.startswith("/") else name
    git("init")
    commit = git("commit-tree", "-m", "first", tree({name: git("hash-object", "-w", "--stdin", stdin=b"x")}))

    done = run("diff", f"{commit}:.", str(written(Path("policies"))))

    assert 2 == done.exit_code
    assert f"holds a file outside its folder: `{name}`" in done.stderr
    assert not (tmp_path / "outside").exists()


def test_two_revisions_from_below_the_root(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides may be revisions, and paths are those of the present folder."""
    written(Path("team/policies"))
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    written(Path("team/policies"), WIDER)
    git("commit", "-a", "-m", "second")
    shutil.rmtree("team/policies")
    monkeypatch.chdir("team")

    done = run("diff", "HEAD~1", "HEAD", "--allow-widening")

    assert (0, True) == (done.exit_code, "newly allowed: 1" in done.stdout)


@pytest.mark.parametrize("source", ["nowhere", "--output=x", "HEAD:nowhere", ":policies"])
def test_what_is_no_bundle_is_refused(run: Run, source: str) -> None:
    """Neither folder nor revision; nothing of it reaches git as a flag."""
    written(Path("policies"))
    git("init")
    git("add", ".")
    git("commit", "-m", "first")

    done = run("diff", "--", source, "policies")

    assert 2 == done.exit_code
    assert f"error: `{source}` is" in done.stderr
    assert not Path("x").exists()


def test_a_log_is_replayed_too(run: Run) -> None:
    """An empty log changes nothing and is reported; a folder that does not exist is refused."""
    old, new = written(Path("old")), written(Path("new"))
    Path("record").mkdir()

    done = run("diff", str(old), str(new), "--log", "record")
    gone = run("diff", str(old), str(new), "--log", "nowhere")

    assert "no calls of the decision log to compare" == done.stdout.splitlines()[-1]
    assert (2, "error: --log: `nowhere` is not a folder\n") == (gone.exit_code, gone.stderr)


GUARDRAIL = """
@id("files/no-secrets")
forbid (principal, action, resource == Server::"files")
when { context.input has path && context.input.path like "*secret*" };
"""
# No case of these reaches a secret, or a list.
LISTS = """
@id("files/tag-both")
permit (principal, action == Action::"files/tag", resource) when { context.input.tags.OPERATOR(["a", "b"]) };
"""
# Nothing that is tried makes a purpose of such a kind.
OUT_OF_REACH = """
@id("files/never-shown")
permit (principal, action == Action::"files/write", resource)
when { context.session.depth > 1 && context.session.depth < LEAST };
"""


def with_list(folder: Path, operator: str) -> Path:
    """Write a bundle whose policy looks at a list."""
    files = [
        tool("read", {"path": {"type": "string"}}, ["path"]),
        tool("write"),
        tool("tag", {"tags": {"type": "array", "items": {"type": "string"}}}, ["tags"]),
    ]
    policies = {"files": POLICIES["files"] + LISTS.replace("OPERATOR", operator)}
    return write_bundle(folder, policies=policies, tools={"files": files})


def test_a_forbid_that_is_dropped_is_found_out(run: Run) -> None:
    """No case shows it, so a call is made up that does: what was forbidden is newly allowed."""
    old, new = written(Path("old"), GUARDRAIL), written(Path("new"))

    done = run("diff", str(old), str(new))

    assert 2 == done.exit_code
    assert "2 calls of the test cases compared: 0 newly allowed, 0 newly denied, 0 newly erring" in done.stdout
    assert "    was: deny forbid by files/no-secrets\n    now: allow permit by files/read\n" in done.stdout
    assert "files/read" in done.stdout
    assert "secret" in done.stdout


def test_an_operator_that_is_changed_is_found_out(run: Run) -> None:
    """`containsAny` for `containsAll` allows more, and a made-up call shows it; the other way round it denies."""
    both, any_of = with_list(Path("both"), "containsAll"), with_list(Path("any"), "containsAny")

    wider, narrower = run("diff", str(both), str(any_of)), run("diff", str(any_of), str(both), "--json")

    assert (2, 0) == (wider.exit_code, narrower.exit_code)
    told = json.loads(narrower.stdout)
    assert {("files/tag-both", "newly_denied")} == {(one["change"], one["effect"]) for one in told["generated"]}
    assert [] == told["undecided"]


@pytest.mark.parametrize(
    ("condition", "action"),
    [
        ('principal == User::"bob"', "approve_session"),
        ('principal == User::"bob"', "approve_call"),
        ('context.action == "files/write"', "approve_call"),
        ('context.risk == "read_only" && context.user == User::"alice"', "approve_call"),
        ('context.questions.contains("May it write?")', "approve_call"),
    ],
)
def test_who_may_approve_is_found_out(run: Run, condition: str, action: str) -> None:
    """No case asks who approves sessions and calls: approvals that show the change are made up."""
    asking = (
        '\n@id("files/asks") @step_up("May it write?") forbid (principal, action == Action::"files/write", resource);'
    )
    permit = (
        f'\n@id("files/new") permit (principal, action == Action::"pdp/{action}", resource)\n  when {{ {condition} }};'
    )
    sessions = OPEN_SESSIONS.replace('"pdp/approve_call"\n', '"pdp/request_session"\n')
    if action == "approve_session":
        sessions = sessions.replace("approve_session", "request_session")
    old, new = written(Path("old"), WIDER + asking), written(Path("new"), WIDER + asking + permit)
    for folder in (old, new):
        (folder / "sessions.cedar").write_text(sessions, encoding="utf-8")

    done = run("diff", str(old), str(new), "--json")

    assert 2 == done.exit_code
    told = json.loads(done.stdout)
    assert [] == told["undecided"]
    assert {("files/new", "newly_allowed")} == {(one["change"], one["effect"]) for one in told["generated"]}


def test_what_no_call_shows_is_undecided(run: Run) -> None:
    """It is said, it is not success, and it can be accepted."""
    old, new = (
        written(Path(name), OUT_OF_REACH.replace("LEAST", least)) for name, least in (("old", "2"), ("new", "1"))
    )

    done = run("diff", str(old), str(new))
    accepted = run("diff", str(old), str(new), "--allow-undecided", "--json")

    last = "undecided: no call shows what the change of `files/never-shown` does; write a test case for it"
    assert (3, last) == (done.exit_code, done.stdout.splitlines()[-1])
    assert (0, ["files/never-shown"]) == (accepted.exit_code, json.loads(accepted.stdout)["undecided"])


def test_what_says_the_same_is_no_change(run: Run) -> None:
    """Layout, comments, brackets and annotations of policies, and the layout of other files, change nothing."""
    old = written(Path("old"), GUARDRAIL)
    laid_out = '@description("keep out") // why\nforbid (\n  principal'
    said_again = GUARDRAIL.replace("forbid (principal", laid_out).replace("input has path &&", "input has path\n    &&")
    new = written(Path("new"), said_again)
    for name, more in (("directory.yaml", "\n# a comment\n"), ("schema.cedarschema", "\n// a comment\n\n")):
        file = new / name
        file.write_text(more + file.read_text(encoding="utf-8"), encoding="utf-8")

    done = run("diff", str(old), str(new))

    assert (0, "2 calls of the test cases compared: 0 newly allowed, 0 newly denied, 0 newly erring\n") == (
        done.exit_code,
        done.stdout,
    )


def test_other_files_are_judged_as_well(run: Run) -> None:
    """A case shows what a user can newly do; without one the effect of the changed file is undecided."""
    old, new = written(Path("old")), written(Path("new"))
    file = new / "directory.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("bob: {}", "bob: {}, carol: {}"), encoding="utf-8")

    unknown = run("diff", str(old), str(new))
    carols = CASES.replace("user: alice", "user: carol")
    for folder in (old, new):
        (folder / "tests/files_test.yaml").write_text(carols, encoding="utf-8")
    shown = run("diff", str(old), str(new))

    last = "undecided: no call shows what the change of `directory.yaml` does; write a test case for it"
    assert (3, last) == (unknown.exit_code, unknown.stdout.splitlines()[-1])
    assert (2, True) == (shown.exit_code, "newly allowed: 1" in shown.stdout)
