"""Commands that speak to a real server, which `pdp serve` runs in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path

import pytest

from pdp.cli.bundle import versions
from pdp.client import Answer, fencing
from pdp.client.fencing import Fence
from pdp.limits import MOST_POLICIES
from pdp.model import Role
from tests.cli.conftest import Run
from tests.machinery.servers.commandline import (
    DEADLINE_SECONDS,
    Server,
    clean_environment,
    start_server,
    stop_server,
    write_bundle,
)

WANTED = ("--user", "alice", "--agent", "coder", "--purpose", "fix the build", "--tool", "files/*")
READ = ("files", "read", '{"path": "/a"}')


@pytest.fixture
def requested(ask: Run) -> str:
    """Ask for a session, put its handle into the file `handle`, and return its public id."""
    done = ask("session", "request", *WANTED, "--handle-file", "handle")
    assert 0 == done.exit_code, done.output
    return str(done.stdout.strip())


@pytest.fixture
def approved(ask: Run, requested: str) -> str:
    """Return the public id of an approved session; its handle is in the file `handle`."""
    done = ask("session", "approve", requested, "--yes")
    assert 0 == done.exit_code, done.output
    return requested


def shown(ask: Run, session_id: str) -> dict[str, object]:
    """Return what `session show --json` says."""
    found: dict[str, object] = json.loads(ask("session", "show", session_id, "--json").stdout)
    return found


def test_handle_goes_to_stdout_alone(ask: Run) -> None:
    """Without a file, stdout holds the secret handle and nothing else, and stderr does not hold it."""
    done = ask("session", "request", *WANTED)

    assert 0 == done.exit_code
    assert done.stdout.startswith("pdps_")
    assert 1 == done.stdout.count("\n")
    assert "pdps_" not in done.stderr
    assert "next: pdp session approve ses_" in done.stderr


def test_handle_file_is_for_its_owner_alone(requested: str) -> None:
    """With `--handle-file` the handle is in a file of mode 0600, and stdout holds the public id."""
    path = Path("handle")

    assert requested.startswith("ses_")
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert path.read_text(encoding="ascii").startswith("pdps_")


def test_handle_file_is_never_overwritten(ask: Run) -> None:
    """A file that is there may hold the handle of a live session: it stays, and no session is asked for."""
    Path("handle").write_text("precious", encoding="ascii")
    before = ask("session", "list", "--json").stdout

    done = ask("session", "request", *WANTED, "--handle-file", "handle")

    assert (2, "error: `handle` already exists; remove it, or name a new file\n") == (done.exit_code, done.stderr)
    assert "precious" == Path("handle").read_text(encoding="ascii")
    assert before == ask("session", "list", "--json").stdout


def test_refused_request_leaves_no_file(ask: Run) -> None:
    """When the server refuses, no empty handle file stays behind."""
    done = ask("session", "request", *WANTED, "--user", "nobody", "--handle-file", "handle")

    assert 2 == done.exit_code
    assert done.stderr.startswith("error: ")
    assert not Path("handle").exists()


def test_request_as_json_holds_the_handle_once(ask: Run) -> None:
    """JSON holds the handle, unless it went to a file."""
    to_stdout = json.loads(ask("session", "request", *WANTED, "--json").stdout)
    to_file = json.loads(ask("session", "request", *WANTED, "--json", "--handle-file", "handle").stdout)

    assert to_stdout["session_handle"].startswith("pdps_")
    assert "session_handle" not in to_file
    assert ("requested", 3600.0) == (to_file["state"], to_file["duration"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("--terms", '{"ticket": "OPS-1", "max_sum": 922337203685477.5807, "targets": ["b", "a"]}'),
            {"ticket": "OPS-1", "max_sum": "922337203685477.5807", "targets": ["a", "b"]},
        ),
        (
            ("--term", "ticket=OPS-1", "--term", "max_sum=20.50", "--term", 'targets=["a=b"]', "--term", "urgent=true"),
            {"ticket": "OPS-1", "max_sum": "20.5", "targets": ["a=b"], "urgent": True},
        ),
        (("--term", "ticket=", "--term", 'targets=["7"]'), {"ticket": "", "targets": ["7"]}),
        (("--term", 'ticket="7"'), {"ticket": "7"}),
        (("--term", "ticket=NaN"), {"ticket": "NaN"}),
        (("--term", "ticket=-Infinity"), {"ticket": "-Infinity"}),
        ((), {}),
    ],
)
def test_terms_are_asked_for_and_shown(ask: Run, words: tuple[str, ...], expected: dict[str, object]) -> None:
    """As JSON, or one by one: a value that is JSON is taken so, and any other as a text."""
    done = ask("session", "request", *WANTED, *words, "--handle-file", "handle")
    assert 0 == done.exit_code, done.output

    assert expected == shown(ask, done.stdout.strip())["terms"]


def test_the_approver_sees_the_terms(ask: Run) -> None:
    """Each on a line of its own, before the question, and in what `show` prints."""
    words = ("--term", "ticket=OPS-1", "--term", "max_sum=20.50", "--term", 'targets=["b","a"]')
    session_id = ask("session", "request", *WANTED, *words, "--handle-file", "handle").stdout.strip()

    asked = ask("session", "approve", session_id, stdin="n\n").stdout
    printed = ask("session", "show", session_id).stdout

    for text in (asked, printed):
        lines = [" ".join(line.split()) for line in text.splitlines()]
        at = lines.index("term max_sum 20.5")
        assert ['term targets ["a", "b"]', 'term ticket "OPS-1"'] == lines[at + 1 : at + 3]


def test_show_says_what_is_left_of_budgets(ask: Run) -> None:
    """For people and for scripts."""
    words = ("--term", "ticket=a", "--term", "max_sum=20.5", "--handle-file", "handle")
    session_id = ask("session", "request", *WANTED, *words).stdout.strip()
    printed = [" ".join(line.split()) for line in ask("session", "show", session_id).stdout.splitlines()]

    assert "left of max_sum 20.5000 of 20.5000" in printed
    figures = {"most": "20.5000", "left": "20.5000", "spent": "0.0000", "held": "0.0000"}
    assert {"max_sum": figures} == shown(ask, session_id)["budgets"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--term", "ticket"), "error: `--term` must be written `name=value`: `ticket`\n"),
        (("--term", "=x"), "error: `--term` must be written `name=value`: `=x`\n"),
        (("--terms", "{}", "--term", "ticket=x"), "error: pass either --terms or --term\n"),
    ],
)
def test_terms_that_cannot_be_sent(ask: Run, words: tuple[str, ...], said: str) -> None:
    """What is wrong with the words is said before the server is asked."""
    done = ask("session", "request", *WANTED, *words)

    assert 2 == done.exit_code
    assert done.stderr.endswith(said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--term", "tickt=OPS-1"), "`--term`: `$`: unknown term: `tickt`; did you mean `ticket`?\n"),
        (("--terms", '{"tickt": "OPS-1"}'), "`--terms`: `$`: unknown term: `tickt`; did you mean `ticket`?\n"),
        (("--terms", '{"ticket": 7}'), "`--terms`: `$.ticket`: must be a string\n"),
        (
            ("--term", "urgent=true", "--term", "ticket=7"),
            "`--term`: `$.ticket`: must be a string; `7` is read as JSON; a text is written --term 'ticket=\"7\"'\n",
        ),
    ],
)
def test_refused_terms_are_named(ask: Run, words: tuple[str, ...], said: str) -> None:
    """By the option that holds them, with the nearest known term, or how the same is written as a text."""
    done = ask("session", "request", *WANTED, *words)

    assert 2 == done.exit_code
    assert f"error: invalid_argument: {said}" == done.stderr.splitlines(keepends=True)[-1]


def test_approval_shows_what_is_approved(ask: Run, requested: str) -> None:
    """Before it asks, the command shows user, agent, purpose, tools with risk, duration and grants."""
    done = ask("session", "approve", requested, "--grant", "writing", stdin="y\n")

    assert 0 == done.exit_code
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for line in (
        "user alice",
        "agent coder",
        "purpose fix the build",
        "duration 1h",
        "grants writing",
        "files/read read_only always files/read",
        "files/write mutating always files/write-when-granted",
    ):
        assert line in lines
    assert f"approved {requested}" in done.stdout
    assert ["writing"] == shown(ask, requested)["grants"]


def test_an_id_token_goes_with_the_approval(ask: Run, requested: str) -> None:
    """It is read from a file; beside a token that has no issuer the server refuses it, and nothing is approved."""
    Path("id.token").write_text("a.b.c\n")

    done = ask("session", "approve", requested, "--yes", "--id-token-file", "id.token")

    assert 2 == done.exit_code
    assert "`pdp-id-token`: the ID token is not accepted: it counts only beside an access token" in done.stderr
    assert "requested" == shown(ask, requested)["state"]


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("\n", 1), ("", 2)])
def test_no_answer_is_no_approval(ask: Run, requested: str, answer: str, code: int) -> None:
    """Anything but yes approves nothing."""
    done = ask("session", "approve", requested, stdin=answer)

    assert code == done.exit_code
    assert "requested" == shown(ask, requested)["state"]


def test_approval_without_a_terminal_says_what_to_do(ask: Run, requested: str) -> None:
    """If the question cannot be answered, the last line names the option that needs no answer."""
    done = ask("session", "approve", requested, stdin="")

    last = "error: no answer, so nothing is approved; `--yes` approves without asking"
    assert (2, last) == (done.exit_code, done.stderr.splitlines()[-1])


def test_the_beginning_of_an_id_is_enough(ask: Run, requested: str) -> None:
    """A person types the first characters, with or without what all ids begin with; JSON says which session it was."""
    shown_too = ask("session", "show", requested[:14], "--json")
    done = ask("session", "deny", requested.removeprefix("ses_")[:12], "--reason", "not now", "--json")

    assert (requested, requested) == tuple(json.loads(one.stdout)["session_id"] for one in (shown_too, done))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", ""), "error: the session id is empty"),
        (("show", "ses_a"), "error: `ses_a` is too short to select a session; type at least 4 characters after `ses_`"),
        (("show", "0000"), "error: none of the newest 1000 sessions begins with `ses_0000`"),
        (("approve", "0000"), "error: none of the newest 1000 requested sessions begins with `ses_0000`"),
    ],
)
def test_a_beginning_that_names_no_session(ask: Run, words: tuple[str, ...], message: str) -> None:
    """Nothing is guessed."""
    done = ask("session", *words)

    assert (2, message) == (done.exit_code, done.stderr.splitlines()[-1])


def test_approval_is_bound_to_the_digest(ask: Run, requested: str) -> None:
    """A script that saw one request cannot approve another; with the right digest it can."""
    digest = str(shown(ask, requested)["request_digest"])

    other = ask("session", "approve", requested, "--yes", "--request-digest", "sha256:0")
    same = ask("session", "approve", requested, "--yes", "--json", "--request-digest", digest)

    assert 2 == other.exit_code
    assert other.stderr.startswith("error: the request is not the one that was shown")
    assert (0, "active") == (same.exit_code, json.loads(same.stdout)["state"])


def test_question_and_json_exclude_each_other(ask: Run, requested: str) -> None:
    """`--json` without `--yes` is a wrong use."""
    assert 2 == ask("session", "approve", requested, "--json", stdin="y\n").exit_code


def test_approved_session_is_not_approved_again(ask: Run, approved: str) -> None:
    """A session that waits for nothing is not shown for approval."""
    done = ask("session", "approve", approved, "--yes")

    assert (2, "error: the session is active and does not wait for approval\n") == (done.exit_code, done.stderr)


def test_gateway_cannot_approve(ask: Run, server: Server, requested: str) -> None:
    """With the PEP's token an approval fails."""
    token = str(server.folder / ".pdp/tokens/pep.token")

    done = ask("session", "approve", requested, "--yes", "--token-file", token)

    assert 2 == done.exit_code
    assert done.stderr.startswith("error: permission_denied")
    assert "requested" == shown(ask, requested)["state"]


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (READ, 0, "allow  permit  files/read"),
        (("files", "write", "{}"), 1, "deny  default_deny"),
        (("files", "write"), 1, "deny  default_deny"),
        (("files", "none", "{}"), 1, "deny  unknown_tool"),
        (("files", "read", "{"), 1, "deny  invalid_arguments"),
    ],
)
def test_authorize_answers_by_exit_code(ask: Run, approved: str, words: tuple[str, ...], code: int, line: str) -> None:
    """0 is allow and 1 is deny; the first line says why."""
    done = ask("authorize", "--session-handle-file", "handle", *words)

    assert (code, "") == (done.exit_code, done.stderr)
    assert line == done.stdout.splitlines()[0]
    assert approved in done.stdout


def test_authorize_reads_arguments_and_handle_from_elsewhere(ask: Run, approved: str) -> None:
    """Arguments may come from stdin and the handle from the environment."""
    handle = Path("handle").read_text(encoding="ascii").strip()

    done = ask("authorize", "--json", *READ[:2], "-", stdin='{"path": "/a"}', env={"PDP_SESSION_HANDLE": handle})

    answer = json.loads(done.stdout)
    assert (0, "allow", "permit", ["files/read"]) == (
        done.exit_code,
        answer["outcome"],
        answer["basis"],
        answer["policies"],
    )
    assert approved == answer["session_id"]
    assert handle not in done.output
    # What a report needs to know of a result is for programs.
    assert {field.name for field in fields(Answer)} - {"result_reading"} == answer.keys()


def test_policies_that_an_answer_does_not_name_are_counted(run: Run, policies: Path) -> None:
    """Of more policies than are named the rest is counted, for people and for scripts."""
    ids = [f"files/{number:03}" for number in range(MOST_POLICIES + 6)]
    many = "".join(f'@id("{one}") permit (principal, action == Action::"files/read", resource);\n' for one in ids)
    write_bundle(policies, policies={"files": many})
    server = start_server(policies.parent)
    known = {"PDP_ADDRESS": server.address}
    requested = run("session", "request", *WANTED, "--handle-file", "handle", env=known).stdout.strip()
    run("session", "approve", requested, "--yes", env=known)

    text = run("authorize", "--session-handle-file", "handle", *READ, env=known)
    as_json = run("authorize", "--session-handle-file", "handle", "--json", *READ, env=known)
    stop_server(server)

    assert text.stdout.splitlines()[0].endswith(f" {ids[MOST_POLICIES - 1]} and 6 more")
    assert (ids[:MOST_POLICIES], 6) == tuple(map(json.loads(as_json.stdout).get, ("policies", "policies_left_out")))


def test_no_answer_is_exit_code_2(run: Run, approved: str, server: Server) -> None:
    """A server that cannot be reached gives no answer: neither allow nor deny."""
    data = ("--data-dir", str(server.folder / ".pdp"))
    words = ("authorize", "--session-handle-file", "handle", *data, "--address", "127.0.0.1:1", *READ)

    done = run(*words)
    as_json = run(*words, "--json")

    assert approved
    assert (2, "") == (done.exit_code, done.stdout)
    assert done.stderr.startswith("error: unavailable: nothing answers at `127.0.0.1:1`; is `pdp serve` running")
    assert 1 == done.stderr.count("\n")
    assert (2, "deny", "error") == (as_json.exit_code, *map(json.loads(as_json.stdout).get, ("outcome", "basis")))


@pytest.mark.parametrize("words", [("authorize", *READ), ("session", "end")])
def test_handle_is_required(ask: Run, words: tuple[str, ...]) -> None:
    """Without a handle the command says how to pass it."""
    done = ask(*words)

    assert (2, "error: pass --session-handle-file or PDP_SESSION_HANDLE\n") == (done.exit_code, done.stderr)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"two words"], ids=repr)
@pytest.mark.parametrize("words", [("authorize", *READ), ("session", "end")], ids=lambda words: words[0])
def test_file_without_a_handle_is_named(ask: Run, words: tuple[str, ...], content: bytes) -> None:
    """A file that holds something else is an error of one line that names it and quotes nothing of it."""
    Path("handle").write_bytes(content)

    done = ask(*words, "--session-handle-file", "handle")

    assert (2, "error: the file `handle` holds no session handle\n") == (done.exit_code, done.stderr)


def test_arguments_that_are_no_text_are_denied(ask: Run, approved: str) -> None:
    """What an agent wrote is judged and recorded, also when it is not UTF-8."""
    done = ask("authorize", "--session-handle-file", "handle", "files", "read", os.fsdecode(b'{"path": "\xff"}'))

    assert (1, "deny  invalid_arguments") == (done.exit_code, done.stdout.splitlines()[0])
    assert approved in done.stdout


@pytest.mark.parametrize("option", ["--user", "--purpose", "--tool", "--label"])
def test_option_that_is_no_text_is_an_error(ask: Run, option: str) -> None:
    """A value that is not UTF-8 is shown with an escape, in one line."""
    done = ask("session", "request", *WANTED, option, os.fsdecode(b"\xff"))

    assert (2, "error: `\\udcff` is not UTF-8 text\n") == (done.exit_code, done.stderr)


def test_deny_refuses_a_request(ask: Run, requested: str) -> None:
    """A denied session says why."""
    done = ask("session", "deny", requested, "--reason", "not this week")

    found = shown(ask, requested)
    assert (0, f"denied {requested}\n") == (done.exit_code, done.stdout)
    assert ("denied", "not this week", "approver") == (found["state"], found["reason"], found["ended_by"])


def test_end_closes_by_handle(ask: Run, approved: str) -> None:
    """The owner ends the session, and the next call is denied."""
    done = ask("session", "end", "--session-handle-file", "handle")

    assert (0, f"ended {approved}\n") == (done.exit_code, done.stdout)
    assert ask("authorize", "--session-handle-file", "handle", *READ).stdout.startswith("deny  session_ended")


def test_less_can_be_approved(ask: Run) -> None:
    """Tools, time and terms that the approver leaves out are not in the session, and are named above the question."""
    words = ("--term", "ticket=a", "--term", "max_sum=20.5", "--handle-file", "handle")
    session_id = ask("session", "request", *WANTED, *words).stdout.strip()
    less = ("--tool", "files/read", "--duration", "10m", "--term", "max_sum=5.5")

    wider = ask("session", "approve", session_id, "--term", "max_sum=30")
    done = ask("session", "approve", session_id, *less, stdin="y\n")

    assert "`--term`: `$.max_sum`: must not be more than in the request" in wider.stderr
    assert 0 == done.exit_code, done.output
    assert 2 == done.stdout.count("less than was asked for: 1 of 2 tools, 10m of 1h, smaller terms\n")
    found = shown(ask, session_id)
    assert ("active", 600, {"max_sum": "5.5", "ticket": "a"}) == (found["state"], found["duration"], found["terms"])
    assert ask("authorize", "--session-handle-file", "handle", "files", "write", "{}").stdout.startswith("deny")


def test_a_change_says_what_it_has_waited_for(ask: Run, requested: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words on stderr and as fields of the JSON; there is nothing to say where no server answers from memory."""
    approve, narrow = ("session", "approve", requested, "--yes"), ("session", "narrow", requested, "--tool", "files/*")
    before = ask(*approve).stderr, json.loads(ask(*narrow, "--json").stdout)
    for module in (fencing, versions):
        monkeypatch.setattr(module, "fence_of", lambda _: Fence(by="waited", seconds=1.013, revision="r1"))
    reload, revoke = ("bundle", "reload"), ("session", "revoke", requested, "--reason", "x")
    texts = [ask(*one).stderr for one in (narrow, reload, revoke)]
    fields = [json.loads(ask(*one, "--json").stdout) for one in (reload, revoke)]

    assert ("", "", None) == (before[0], before[1]["fenced_by"], before[1]["fence_duration"])
    assert ["a server did not confirm it; after 1.01 s none can answer from before it any more\n"] * 3 == [
        text.removeprefix("no live session matched\n") for text in texts
    ]
    assert [("waited", 1.013, "r1")] * 2 == [
        (one["fenced_by"], one["fence_duration"], one["revision"]) for one in fields
    ]
    assert [] == fields[0]["servers_lacking"]


@pytest.mark.parametrize("selector", ["id", "--agent"])
def test_revoke_stops_sessions(ask: Run, approved: str, selector: str) -> None:
    """Revoked by id or by agent, the next call is denied."""
    words = (approved,) if selector == "id" else (selector, "coder", "--of-tenant", "default")

    done = ask("session", "revoke", *words, "--reason", "acts strangely", "--json")

    assert approved in json.loads(done.stdout)["revoked"]
    assert ask("authorize", "--session-handle-file", "handle", *READ).stdout.startswith("deny  session_revoked")


def test_revoke_shows_before_what_it_would_stop(ask: Run, approved: str) -> None:
    """A preview lists the sessions and stops none; a reason belongs to a revocation."""
    listed = ask("session", "revoke", "--agent", "coder", "--preview")
    plain = json.loads(ask("session", "revoke", approved, "--preview", "--json").stdout)
    both = ask("session", "revoke", approved, "--preview", "--reason", "x")
    elsewhere = ask("session", "revoke", approved, "--of-tenant", "elsewhere", "--preview")

    assert approved in listed.stdout
    assert listed.stderr.startswith("would revoke ")
    assert (1, [approved]) == (plain["would_revoke"], [one["session_id"] for one in plain["sessions"]])
    assert (2, "error: pass either --reason or --preview\n") == (both.exit_code, both.stderr)
    assert (2, True) == (elsewhere.exit_code, "no such session" in elsewhere.stderr)
    assert "active" == shown(ask, approved)["state"]


@pytest.mark.parametrize("words", [(), ("ses_a", "--user", "alice"), ("--user", "alice", "--agent", "coder")])
def test_revoke_takes_one_selector(ask: Run, words: tuple[str, ...]) -> None:
    """Not exactly one selector is a wrong use."""
    done = ask("session", "revoke", *words, "--reason", "x")

    assert (2, "error: pass exactly one of SESSION_ID, --user, --agent and --tenant\n") == (done.exit_code, done.stderr)


def test_revoke_that_stops_nothing_says_so(ask: Run) -> None:
    """When no live session matches, stdout stays empty and stderr says it."""
    done = ask("session", "revoke", "--user", "bob", "--reason", "x")

    assert (0, "", "no live session matched\n") == (done.exit_code, done.stdout, done.stderr)


def test_narrow_takes_tools_and_time(ask: Run, approved: str) -> None:
    """A narrowed session has fewer tools, an earlier end and one more label."""
    before = shown(ask, approved)

    done = ask("session", "narrow", approved, "--tool", "files/write", "--ends-in", "10m", "--label", "tainted")

    after = shown(ask, approved)
    assert (0, f"narrowed {approved}: 1 tool until {after['expire_time']}\n") == (done.exit_code, done.stdout)
    assert str(after["expire_time"]) < str(before["expire_time"])
    assert (["tainted"], 1) == (after["labels"], len(list(after["tools"])))  # type: ignore[call-overload] # JSON
    assert ask("authorize", "--session-handle-file", "handle", *READ).stdout.startswith("deny  out_of_scope")


def test_narrow_needs_something_to_do(ask: Run) -> None:
    """A narrowing that narrows nothing is a wrong use."""
    assert 2 == ask("session", "narrow", "ses_x").exit_code


def test_list_filters(ask: Run, approved: str) -> None:
    """Sessions are listed newest first, by state, and no more than asked for."""
    newest = json.loads(ask("session", "request", *WANTED, "--json").stdout)["session_id"]

    active = json.loads(ask("session", "list", "--state", "active", "--json").stdout)
    first = ask("session", "list", "--limit", "1").stdout.splitlines()

    assert {"active"} == {one["state"] for one in active}
    assert approved == active[0]["session_id"]
    assert ["session", newest] == [line.split()[0] for line in first]
    assert "pdps_" not in json.dumps(active)


def test_unknown_session_is_an_error(ask: Run) -> None:
    """An id that does not exist is one line."""
    done = ask("session", "show", "ses_aaaaaaaaaaaaaaaaaaaaaaaaaa")

    assert (2, "") == (done.exit_code, done.stdout)
    assert done.stderr.startswith("error: not_found")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_stops_on_signal(own_server: Server, number: signal.Signals) -> None:
    """A first start says where the tokens are; a signal ends the server with exit code 0 and nothing on stdout."""
    own_server.process.send_signal(number)
    out, err = own_server.process.communicate(timeout=DEADLINE_SECONDS)

    assert (0, "") == (own_server.process.returncode, out)
    assert "first start: the tokens of all callers are in `.pdp/tokens`" in err
    assert "development: true" in (own_server.folder / ".pdp" / "callers.yaml").read_text()
    assert "Traceback" not in err


def test_callers_are_read_again_on_signal(own_server: Server, run: Run) -> None:
    """A caller that was taken out of the file is refused after SIGHUP."""
    callers = own_server.folder / ".pdp" / "callers.yaml"
    text = callers.read_text(encoding="ascii")
    listing = ("session", "list", "--json")
    environment = {"PDP_ADDRESS": own_server.address}

    def codes_until(wanted: int) -> int:
        own_server.process.send_signal(signal.SIGHUP)
        # The signal is handled a moment later; the run's own time limit bounds the waiting.
        while (code := run(*listing, env=environment).exit_code) != wanted:
            own_server.process.send_signal(signal.SIGHUP)
        return code

    callers.write_text(text.replace("approver:", "somebody:").replace("[approver]", "[author]"), encoding="ascii")
    assert 2 == codes_until(2)
    callers.write_text(text, encoding="ascii")
    assert 0 == codes_until(0)
    assert lines_until(own_server, f"the file of callers was read again; callers: {len(Role)}")


def test_sessions_outlive_the_server(own_server: Server, run: Run) -> None:
    """A second start makes no new tokens, and a session from before is still approved."""
    run("session", "request", *WANTED, "--handle-file", "handle", env={"PDP_ADDRESS": own_server.address})
    listed = json.loads(run("session", "list", "--json", env={"PDP_ADDRESS": own_server.address}).stdout)
    run("session", "approve", listed[0]["session_id"], "--yes", env={"PDP_ADDRESS": own_server.address})
    stop_server(own_server)

    again = start_server(own_server.folder)
    done = run("authorize", "--session-handle-file", "handle", *READ, env={"PDP_ADDRESS": again.address})
    _, _, err = stop_server(again)

    assert done.stdout.startswith("allow  permit")
    assert "first start" not in err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--policies-folder", "bad"), ["error: bad/files.cedar:1: "]),
        (("--server-address", "0.0.0.0:1"), ["error: `server.address` `0.0.0.0:1` can be reached by others"]),
        (("--policies-folder", "nope"), ["error: nope: does not exist"]),
    ],
)
def test_server_that_cannot_start_says_why(tmp_path: Path, flags: tuple[str, ...], expected: list[str]) -> None:
    """Each thing that keeps the server from starting has one line and exit code 2, as with many workers."""
    write_bundle(tmp_path / "bad", policies={"files": "permit (principal, action, resource"})

    alone = ("--server-address", "127.0.0.1:0", "--server-workers", "1")
    done = subprocess.run(
        [sys.executable, "-m", "pdp.cli", "serve", *alone, *flags],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )

    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (2, "") == (done.returncode, done.stdout)
    assert len(expected) == len(errors)
    assert all(line.startswith(start) for line, start in zip(errors, expected, strict=True))
    assert "Traceback" not in done.stderr


def test_bad_folder_is_told_at_the_start_and_after(own_server: Server) -> None:
    """A server that starts with a bad folder reports it and serves the last good bundle; it reports the fix as well."""
    stop_server(own_server)
    policy = own_server.folder / "policies" / "files.cedar"
    good = policy.read_text(encoding="utf-8")
    policy.write_text("permit (principal, action, resource", encoding="utf-8")

    again = start_server(own_server.folder)
    lines = lines_until(again, "the server keeps its active bundle: files.cedar:1: ")
    policy.write_text(good, encoding="utf-8")
    lines += lines_until(again, "runs: 3 policies, 2 tools, sha256:")
    _, _, rest = stop_server(again)

    assert [True, False, True] == ["runs: 3 policies, 2 tools" in line for line in lines]
    assert "Traceback" not in rest


def test_new_bundle_is_told(own_server: Server) -> None:
    """A changed folder that loads is reported, with the bundle that is active from then on."""
    lines_until(own_server, "runs: 3 policies, 2 tools, sha256:")
    # One file alone: several would be a change half-way if writing them took half a second.
    (own_server.folder / "policies" / "files.cedar").write_text(
        '@id("files/a")\npermit (principal, action == Action::"files/read", resource);', encoding="utf-8"
    )

    lines = lines_until(own_server, "runs: 2 policies, 2 tools, sha256:")

    assert 1 == len(lines)


def lines_until(server: Server, wanted: str) -> list[str]:
    """Return what a server logs up to the line that holds `wanted`."""
    assert server.process.stderr is not None
    # A server that says nothing is ended, and then its log has an end.
    watchdog = threading.Timer(DEADLINE_SECONDS, server.process.kill)
    watchdog.start()
    lines: list[str] = []
    for line in server.process.stderr:
        if "first start" not in line and "requests that end authority" not in line:
            lines.append(line)
        if wanted in line:
            break
    else:
        pytest.fail(f"`{wanted}` is not in the log: {lines}")
    watchdog.cancel()
    return lines
