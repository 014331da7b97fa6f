"""`pdp reach`: which tools can be called, for people and for scripts, and what another bundle changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.machinery.servers.commandline import POLICIES, write_bundle

READ = ("files", "read", '{"path": "/a"}')
WANTED = ("--user", "bob", "--agent", "coder", "--purpose", "fix the build", "--tool", "files/*")
PAIR = ("--user", "bob", "--agent", "coder")


def lines(text: str) -> list[str]:
    """Return lines with single blanks."""
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.fixture
def approved(ask: Run) -> str:
    """Return the public id of an active session of bob's."""
    session_id = ask("session", "request", *WANTED, "--handle-file", "handle").stdout.strip()
    assert 0 == ask("session", "approve", session_id, "--yes").exit_code
    return str(session_id)


def test_a_session_is_shown_for_people(ask: Run, approved: str) -> None:
    """Each tool has a line with the verdict, the policies behind it, and when it was last used."""
    assert 0 == ask("authorize", "--session-handle-file", "handle", *READ).exit_code

    done = ask("reach", approved)

    found = lines(done.stdout)
    assert ["active sessions: 1", "tool groups policies by sessions last used"] == found[:2]
    assert found[2].startswith("files/read read_only always files/read 1 20")
    assert found[3].startswith("files/write mutating never 0 not since 20")


def test_the_sessions_of_a_pair_are_shown_for_scripts(ask: Run, approved: str) -> None:
    """The JSON names everything that the server says."""
    found = json.loads(ask("reach", *PAIR, "--json").stdout)

    read = next(one for one in found["tools"] if one["tool"] == "read")
    assert approved in read["session_ids"]
    assert ("always", ["files/read"], "read_only") == (read["visibility"], read["policy_ids"], read["risk"])
    assert (False, "") == (found["sessions_left_out"], found["use_unknown"])


def test_what_a_new_session_could_reach_is_shown(ask: Run) -> None:
    """It says which grant would open more."""
    assert "files/write mutating never writing not since" in " ".join(lines(ask("reach", *PAIR, "--asked-now").stdout))


def test_a_former_bundle_is_shown_beside(ask: Run, approved: str) -> None:
    """With all tools, or only those that it judges differently; for scripts in fields of their own."""
    former = json.loads(ask("bundle", "list", "--json").stdout)[0]["version"]

    assert ["no tools"] == lines(ask("reach", approved, "--former", former, "--changed").stdout)[-1:]
    shown = lines(ask("reach", approved, "--former", former).stdout)
    assert "tool groups policies by formerly by sessions last used" == shown[1]
    assert "files/read read_only always files/read always files/read 1" in shown[2]
    found = json.loads(ask("reach", approved, "--former", former, "--unused", "--json").stdout)
    assert (former, [("write", "never")]) == (
        found["former_version"],
        [(one["tool"], one["former_visibility"]) for one in found["tools"] if one["tool"] == "write"],
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "pass either a session, or --user, --agent or both"),
        (("ses_1", "--user", "bob"), "pass either a session, or --user, --agent or both"),
        (("--user", "bob", "--asked-now"), "--asked-now needs both --user and --agent"),
        (("--user", "bob", "--against", "old"), "--against needs both --user and --agent"),
        ((*PAIR, "--changed"), "--changed needs --former"),
        ((*PAIR, "--asked-now", "--terms", "{"), "`--terms`: "),
        ((*PAIR, "--against", "old"), "`old` is neither a folder nor a folder in a revision of git"),
    ],
)
def test_what_does_not_fit_is_refused(ask: Run, words: tuple[str, ...], says: str) -> None:
    """The error names the options."""
    done = ask("reach", *words)

    assert (2, True) == (done.exit_code, says in done.stderr), done.stderr


def test_changes_between_two_folders(run: Run, tmp_path: Path) -> None:
    """Only what differs is shown: the verdict, or the policies behind it; without a server."""
    write_bundle(tmp_path / "policies")
    closed = POLICIES["files"] + '@id("files/shut")\nforbid (principal, action in Action::"read_only", resource);\n'
    write_bundle(tmp_path / "old", policies={"files": closed})

    people = run("reach", *PAIR, "--against", "old")
    scripts = json.loads(run("reach", *PAIR, "--against", "old", "--json").stdout)
    same = run("reach", *PAIR, "--against", "policies")

    assert ["tool before by now by", "files/read never files/shut always files/read"] == lines(people.stdout)
    (change,) = scripts["tools"]
    assert ("files/read", "never", "always") == (
        change["tool"],
        change["before"]["visibility"],
        change["after"]["visibility"],
    )
    assert "nothing has changed\n" == same.stdout
