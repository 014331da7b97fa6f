"""`pdp audit`: the investigator's commands on files and on a server, with the same answers."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from click.testing import Result

from pdp.broker.opening import opened_record
from pdp.broker.v1 import secret_pb2, secret_pb2_grpc
from pdp.cli.audit.entries import tail_line
from pdp.cli.audit.remote import ServerSource
from pdp.client import Client, UnavailableError
from pdp.observer import Event, EventKind
from pdp.serving.listener import Listener
from pdp.testing.waiting import wait_until
from tests.machinery.ports import free_port
from tests.machinery.servers.commandline import (
    DEADLINE_SECONDS,
    Server,
    clean_environment,
    start_server,
    stop_server,
    write_bundle,
)

Run = Callable[..., Result]


class Case(NamedTuple):
    """A session on the server with an allowed and a denied call."""

    session_id: str
    allowed: str
    denied: str
    handle_file: str


@pytest.fixture
def case(ask: Run, tmp_path: Path) -> Case:
    """Return a session whose coder read a file and was not allowed to write one."""
    handle = tmp_path / "handle"
    words = ("--user", "alice", "--agent", "coder", "--purpose", "look", "--tool", "files/*")
    session_id = ask("session", "request", *words, "--handle-file", str(handle)).stdout.strip()
    ask("session", "approve", session_id, "--yes")
    allowed, denied = [
        json.loads(ask("authorize", "--session-handle-file", str(handle), "files", *call, "--json").stdout)[
            "decision_id"
        ]
        for call in (("read", '{"path": "a"}'), ("write", "{}"))
    ]
    return Case(session_id, allowed, denied, str(handle))


both = pytest.mark.parametrize("where", [(), ("--server",)], ids=["files", "server"])


def answer(result: Result) -> Any:
    """Return what a command that went well printed as JSON."""
    assert 0 == result.exit_code, result.stderr
    return json.loads(result.stdout)


@both
def test_show(ask: Run, case: Case, where: tuple[str, ...]) -> None:
    """A decision is shown as it was recorded."""
    [record] = answer(ask("audit", "show", case.denied, "--json", *where))

    assert (case.denied, "deny", "default_deny") == (record["id"], record["outcome"], record["basis"])
    assert (case.session_id, "alice", "coder", "pep") == tuple(
        record[name] for name in ("session_id", "user", "agent", "caller_id")
    )


@both
def test_session(ask: Run, case: Case, where: tuple[str, ...]) -> None:
    """The history is request, approval, calls and end, in order."""
    ask("session", "end", "--session-handle-file", case.handle_file)

    shown = answer(ask("audit", "session", case.session_id, "--json", *where))

    asked, requested, approved, ended = (f"session.{what}" for what in ("decided", "requested", "approved", "ended"))
    assert [asked, requested, asked, approved, "decision", "decision", ended] == [
        entry["kind"] for entry in shown["entries"]
    ]
    assert ("ended", "pep", "approver") == tuple(
        shown["session"][name] for name in ("state", "requested_by", "approved_by")
    )
    assert shown == answer(ask("audit", "session", case.allowed, "--json", *where))


@both
def test_who_approved(ask: Run, case: Case, where: tuple[str, ...]) -> None:
    """A session, and the session of a decision, name their approver."""
    of_session = answer(ask("audit", "who-approved", case.session_id, "--json", *where))

    assert [(case.session_id, "approver", False)] == [
        (one["session_id"], one["approved_by"], one["delegated"]) for one in of_session
    ]
    assert of_session == answer(ask("audit", "who-approved", case.denied, "--json", *where))


@both
def test_executed_by(ask: Run, case: Case, where: tuple[str, ...]) -> None:
    """Allowed calls are listed, denied ones when they are asked for."""
    words = ("audit", "executed-by", f"session:{case.session_id}", "agent:coder", "--since", "1h", "--json", *where)

    assert [case.allowed] == [one["id"] for one in answer(ask(*words))]
    assert [case.denied] == [one["id"] for one in answer(ask(*words, "--outcome", "deny"))]
    assert [case.allowed, case.denied] == [one["id"] for one in answer(ask(*words, "--outcome", "all"))]
    of_calls = ("server:files", "tool:files/write", "basis:default_deny", "--outcome", "all")
    assert [case.denied] == [one["id"] for one in answer(ask(*words, *of_calls))]
    assert [] == answer(ask(*words, "tool:files/read", "resource:elsewhere"))


@both
def test_touched(ask: Run, case: Case, where: tuple[str, ...]) -> None:
    """What was reached is listed apart from what was denied."""
    shown = answer(ask("audit", "touched", f"session:{case.session_id}", "--json", *where))

    assert (["files/read"], ["files/write"]) == (shown["allowed"]["tools"], shown["denied"]["tools"])
    assert [("read", 1, 0), ("write", 0, 1)] == [(one["tool"], one["allowed"], one["denied"]) for one in shown["calls"]]


@both
def test_revoke_plan_and_apply(ask: Run, case: Case, where: tuple[str, ...]) -> None:
    """The plan names the session; applied, it is revoked, the next call is denied, and nothing is left to revoke."""
    words = ("audit", "revoke-plan", f"session:{case.session_id}", "tool:files/read", "--json", *where)

    planned = answer(ask(*words))
    applied = answer(ask(*words, "--apply", "--reason", "leak", "--yes"))

    assert [case.session_id] == [one["session_id"] for one in planned["sessions"]]
    assert {case.session_id: "revoked"} == applied["outcomes"]
    assert [] == answer(ask(*words))["sessions"]
    call = ask("authorize", "--session-handle-file", case.handle_file, "files", "read", '{"path": "a"}', "--json")
    assert "session_revoked" == json.loads(call.stdout)["basis"]


@both
def test_a_plan_for_a_secret_that_leaked(ask: Run, case: Case, tmp_path: Path, where: tuple[str, ...]) -> None:
    """The live sessions that used it, by the record of the broker, in the window of the use alone."""
    with opened_record(tmp_path / "broker") as record:
        for version, session_id in (("1", case.session_id), ("2", case.session_id), ("3", "ses_of_another_server")):
            facts = {"connection": "github", "version": version, "token_id": f"t{version}", "decision_id": "d"}
            used = Event(kind=EventKind.CALL_TOKEN_USED, at=10.0 * int(version), facts=facts, session_id=session_id)
            record.event(used)
    broker = ("--connection", "github", "--broker", str(tmp_path / "broker" / "record"))

    def planned(*words: str) -> list[str]:
        shown = answer(ask("audit", "revoke-plan", *broker, *words, "--json", *where))
        return [one["session_id"] for one in shown["sessions"]]

    assert (
        [case.session_id] == planned() == planned("--secret-version", "2") == planned("agent:coder", "tool:files/read")
    )
    assert [case.session_id] == planned("--since", "1970-01-01T00:00:15Z", "--until", "1970-01-01T00:00:25Z")
    assert [] == planned("--since", "1970-01-01T00:00:25Z") + planned("--secret-version", "3") + planned("agent:other")
    unknown = ask("audit", "revoke-plan", *broker, "--secret-version", "4", *where)
    assert (1, True) == (unknown.exit_code, "never names version 4 of `github`" in unknown.stderr)


def test_a_secret_that_leaked_is_contained(ask: Run, case: Case, server: Server, tmp_path: Path) -> None:
    """Its sessions are revoked, the broker replaces what it can, and the rest is listed: to do, and beyond recall."""
    with opened_record(tmp_path / "broker") as record:
        known = {"connection": "github", "version": "1", "token_id": "t", "decision_id": "d"}
        for kind, facts in (
            (EventKind.CALL_TOKEN_USED, {"mode": "proxy"}),
            (EventKind.CALL_TOKEN_ANSWERED, {"bytes": "70"}),
            (EventKind.CALL_TOKEN_USED, {"mode": "checkout"}),
            (EventKind.CREDENTIAL_CHECKED_OUT, {}),
        ):
            record.event(Event(kind=kind, at=10.0, facts={**known, **facts}, session_id=case.session_id))
    words = ("--connection", "github", "--broker", str(tmp_path / "broker" / "record"), "--json")
    apply = ("audit", "revoke-plan", *words, "--apply", "--reason", "leak", "--yes")
    approver = (server.folder / ".pdp" / "tokens" / "approver.token").read_text().strip()
    address = f"unix:{tmp_path}/calls.sock"

    with _broker(approver, address) as asked:
        done = ask(*apply, "--broker-address", address)
    away, by_operators = ask(*apply, "--broker-address", address), ask(*apply)

    assert [("github", 0)] == asked
    assert (
        f"nothing answers at `{address}`; is `pdp-broker serve` running" in json.loads(away.stdout)["secret"]["problem"]
    )
    assert (1, 1) == (done.exit_code, by_operators.exit_code), done.stderr
    shown, later = json.loads(done.stdout), json.loads(by_operators.stdout)
    assert {case.session_id: "revoked"} == shown["outcomes"]
    assert {"requests": 1, "answers": 1, "answer_bytes": 70, "credentials": 1} == shown["beyond_recall"]
    assert {
        "secret": "not replaced",
        "credentials_ended": 2,
        "credentials_left": ["`chk_1` of `ses_1` until 2026-11-28T00:00:00Z: away"],
        "to_do": [
            "end it where it was issued, get another one there, and store that: `pdp-broker secret rotate github`"
        ],
        "problem": "",
    } == shown["secret"]
    assert "end what was handed out: `pdp-broker checkout revoke --connection github`" == later["secret"]["to_do"][0]


def test_without_an_answer_nothing_is_revoked(ask: Run, case: Case, tmp_path: Path) -> None:
    """The question promises nothing about a secret without a broker that could replace it."""
    with opened_record(tmp_path / "broker") as record:
        facts = {"connection": "github", "version": "1", "token_id": "t", "decision_id": "d"}
        record.event(Event(kind=EventKind.CALL_TOKEN_USED, at=10.0, facts=facts, session_id=case.session_id))
    words = ("--connection", "github", "--broker", str(tmp_path / "broker" / "record"), "--apply", "--reason", "leak")

    done = ask("audit", "revoke-plan", *words)

    assert (2, True) == (done.exit_code, "\nrevoke 1 session? [y/N]: " in done.stdout)
    assert done.stderr.endswith("error: no answer, so nothing is revoked; `--yes` revokes without asking\n")


@contextmanager
def _broker(token: str, address: str) -> Iterator[list[tuple[str, int]]]:
    """Serve what people ask a broker about secrets; it replaces none, and cannot end one credential of three."""
    asked: list[tuple[str, int]] = []

    class Secrets(secret_pb2_grpc.SecretServiceServicer):
        def ReplaceSecret(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            assert ("authorization", f"Bearer {token}") in context.invocation_metadata()
            asked.append((request.connection_id, request.version))
            left = secret_pb2.CredentialLeft(checkout_id="chk_1", session_id="ses_1", problem="away")
            left.expire_time.FromSeconds(1_795_824_000)
            by_hand = secret_pb2.REPLACEMENT_BY_HAND
            return secret_pb2.ReplaceSecretResponse(replacement=by_hand, version=1, ended_count=2, left=[left])

    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        secret_pb2_grpc.add_SecretServiceServicer_to_server(Secrets(), server)  # type: ignore[no-untyped-call]  # generated
        Listener(address=address).bind(server)
        server.start()
        yield asked
        server.stop(None).wait()


@pytest.mark.parametrize("order", [("ses_above", "ses_below"), ("ses_below", "ses_above")])
def test_a_session_below_that_used_a_secret_itself_is_named(ask: Run, tmp_path: Path, order: tuple[str, ...]) -> None:
    """It is in the plan once, as one that was matched, whichever of the two used the secret first."""
    with opened_record(tmp_path / "server") as record:
        for session_id, parent in (("ses_above", ""), ("ses_below", "ses_above"), ("ses_unused", "ses_above")):
            facts = {"parent_id": parent}
            record.event(Event(kind=EventKind.SESSION_REQUESTED, at=1.0, facts=facts, session_id=session_id))
    with opened_record(tmp_path / "broker") as record:
        for number, session_id in enumerate(order):
            facts = {"connection": "github", "version": "1", "token_id": f"t{number}"}
            used = Event(kind=EventKind.CALL_TOKEN_USED, at=10.0 + number, facts=facts, session_id=session_id)
            record.event(used)
    words = ("--connection", "github", "--broker", str(tmp_path / "broker" / "record"), "--json")

    shown = answer(ask("audit", "revoke-plan", *words, "--record", str(tmp_path / "server" / "record")))

    assert {"ses_above": True, "ses_below": True, "ses_unused": False} == {
        one["session_id"]: one["matched"] for one in shown["sessions"]
    }


def test_a_denied_call_is_planned_for_when_asked(ask: Run, case: Case) -> None:
    """Without --tried only allowed calls count."""
    words = ("audit", "revoke-plan", f"session:{case.session_id}", "tool:files/write", "--json")

    assert [] == answer(ask(*words))["sessions"]
    assert [case.session_id] == [one["session_id"] for one in answer(ask(*words, "--tried"))["sessions"]]


def test_apply_reports_each_session(ask: Run, case: Case, server: Server, tmp_path: Path) -> None:
    """A session that the server does not know is reported, and the exit code is 1; the others are revoked."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in (server.folder / ".pdp" / "record").glob("record-*.jsonl"):
        (copy / path.name).write_bytes(path.read_bytes())
    line = b'{"kind":"session.requested","session_id":"ses_gone","user":"alice","agent":"ghost","time":"%s"}\n'
    segment = next(copy.iterdir())
    segment.write_bytes(segment.read_bytes() + line % b"2026-01-05T10:00:00Z")
    words = ("audit", "revoke-plan", "--record", str(copy), "--apply", "--reason", "x", "--yes")

    revoked = ask(*words, f"session:{case.session_id}", "--json")
    again = ask(*words, f"session:{case.session_id}", "--json")
    unknown = ask(*words, "agent:ghost")

    assert (0, "revoked") == (revoked.exit_code, json.loads(revoked.stdout)["outcomes"][case.session_id])
    assert (0, "already over") == (again.exit_code, json.loads(again.stdout)["outcomes"][case.session_id])
    assert (1, True) == (unknown.exit_code, "unknown to the server  ses_gone" in unknown.stdout)


@both
def test_export(ask: Run, case: Case, where: tuple[str, ...], tmp_path: Path) -> None:
    """The lines of a session are written as they are, to a private file."""
    out = tmp_path / "out.jsonl"

    done = ask("audit", "export", f"session:{case.session_id}", "--output", str(out), *where)

    assert (0, "wrote 6 records\n") == (done.exit_code, done.stderr)
    assert case.session_id == json.loads(out.read_bytes().splitlines()[0])["session_id"]
    assert 0o600 == stat.S_IMODE(out.stat().st_mode)
    assert out.read_text() == ask("audit", "export", f"session:{case.session_id}", *where).stdout


@both
@pytest.mark.parametrize("command", ["show", "session", "who-approved"])
def test_an_unknown_id_is_exit_code_1(ask: Run, where: tuple[str, ...], command: str) -> None:
    """There is no such thing: that is an answer, and no failure."""
    done = ask("audit", command, "dec_0", *where)

    kind = "decision" if command == "show" else "session or decision"
    assert (1, "") == (done.exit_code, done.stdout)
    assert done.stderr.endswith(f"no such {kind}: `dec_0`\n")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("touched", "coder"), "`coder` must be written KIND:ID"),
        (("touched", "approver:x"), "`approver:x` must be written KIND:ID"),
        (("touched", "tool:git"), "`tool:git` must be written tool:SERVER/TOOL"),
        (("touched", "basis:denied"), "`denied` is not a basis; use one of"),
        (("touched", "agent:a", "agent:b"), "`agent` is given twice"),
        (("touched", "agent:a", "--delegated"), "--delegated needs"),
        (("executed-by", "agent:a", "--since", "soon"), "`soon` is not a time"),
        (("executed-by", "agent:a", "--since", "1h", "--until", "2h"), "--since must be before --until"),
        (("revoke-plan",), "name at least one"),
        (("revoke-plan", "--connection", "github"), "--connection and --broker need each other"),
        (("revoke-plan", "agent:a", "--secret-version", "2"), "--secret-version needs --connection"),
        (("revoke-plan", "agent:a", "--apply"), "--apply needs --reason"),
        (("revoke-plan", "agent:a", "--apply", "--reason", "x", "--json"), "--json needs --yes"),
        (("export", "--format", "parquet"), "needs --output"),
        (("show", "dec_0", "--server", "--record", "x"), "--server cannot be combined"),
        (("show", "dec_0", "--record", "nowhere"), "there is no record in `nowhere`"),
    ],
)
def test_wrong_use_is_exit_code_2(ask: Run, words: tuple[str, ...], problem: str) -> None:
    """Each refusal names what is wrong."""
    done = ask("audit", *words)

    assert (2, True) == (done.exit_code, problem in done.stderr), done.stderr


def test_people_read_tables(ask: Run, case: Case) -> None:
    """Without --json every command prints columns with what matters."""
    printed = {
        command: ask("audit", command, *words).stdout
        for command, words in {
            "show": [case.allowed],
            "session": [case.session_id],
            "who-approved": [case.session_id],
            "executed-by": [f"session:{case.session_id}"],
            "touched": [f"session:{case.session_id}"],
            "revoke-plan": [f"session:{case.session_id}"],
            "tail": ["--no-follow", f"session:{case.session_id}"],
        }.items()
    }

    for command, text in printed.items():
        expected = "files/read" if command in ("session", "executed-by", "touched", "tail") else "alice"
        assert expected in text, command


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("revoke-plan", "no live session matches\n"),
        ("executed-by", "no call matches\n"),
        ("touched", "no call matches\n"),
    ],
)
def test_an_answer_that_is_nothing_says_so(ask: Run, command: str, said: str) -> None:
    """An empty table alone could be an error."""
    done = ask("audit", command, "user:nobody")

    assert (0, said) == (done.exit_code, done.stderr)


def test_a_folder_that_cannot_be_written_is_still_read(ask: Run, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """An investigator with a read-only copy gets answers, and a line says that the index is not kept."""
    monkeypatch.setattr("pdp.cli.audit.source._can_write", lambda _: False)

    done = ask("audit", "show", case.allowed, "--json")

    assert [case.allowed] == [one["id"] for one in json.loads(done.stdout)]
    assert "--index FILE keeps one" in done.stderr


@contextmanager
def _served(folder: Path, *flags: str) -> Iterator[Server]:
    server = start_server(folder, *flags)
    try:
        yield server
    finally:
        stop_server(server)


def test_following_a_server_survives_its_restart(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the server is away nothing comes, said once; what it records afterwards follows, each record once."""
    folder = tmp_path_factory.mktemp("restart")
    write_bundle(folder / "policies")
    # One that no connection of others gets while the server is away.
    listens = ("--server-address", f"127.0.0.1:{free_port()}")
    tokens = folder / ".pdp" / "tokens"
    with ExitStack() as opened:
        with _served(folder, *listens) as server:
            client = opened.enter_context(
                Client(server.address, token_file=tokens / "auditor.token", data_dir=folder / ".pdp")
            )
            pep = opened.enter_context(
                Client(server.address, token_file=tokens / "pep.token", data_dir=folder / ".pdp")
            )
            source = ServerSource(client)
            source.start()
            seen = source.poll()
        away = [source.poll(), source.poll()]
        opened.enter_context(_served(folder, *listens))

        def came() -> bool:
            # The client waits a while before it connects again.
            with suppress(UnavailableError):
                pep.request_session(user="alice", agent="coder", purpose="x", tools=["files/*"])
            seen.extend(source.poll())
            return any(one.record()["kind"] == "session.requested" for one in seen)

        wait_until(came, seconds=DEADLINE_SECONDS)

    assert away == [[], []]
    assert 1 == capsys.readouterr().err.count("cannot reach the server; its records will follow later")
    assert len(seen) == len({one.mark for one in seen})


def test_apply_asks_first(ask: Run, case: Case) -> None:
    """No is an answer: nothing is revoked, exit code 1."""
    words = ("audit", "revoke-plan", f"session:{case.session_id}")

    done = ask(*words, "--apply", "--reason", "x", stdin="n\n")

    assert (1, True) == (done.exit_code, "revoke 1 session?" in done.stdout)
    assert [case.session_id] == [one["session_id"] for one in answer(ask(*words, "--json"))["sessions"]]


@pytest.mark.parametrize("lines", ["0", "1"])
def test_tail_begins_with_as_many_as_were_asked_for(ask: Run, case: Case, lines: str) -> None:
    """What is not wanted, and what the log says of itself, does not count."""
    done = ask("audit", "tail", "--no-follow", "-n", lines, "--outcome", "allow", f"session:{case.session_id}")

    assert int(lines) == len(done.stdout.splitlines())


@both
def test_tail_shows_what_happens_now(
    ask: Run, case: Case, server: Server, where: tuple[str, ...], tmp_path: Path
) -> None:
    """A record appears while the command runs, as one line of JSON."""
    shown = tmp_path / "shown"
    with shown.open("wb") as out:
        tail = subprocess.Popen(
            [sys.executable, "-m", "pdp.cli", "audit", "tail", "--json", "--address", server.address, *where],
            cwd=server.folder,
            env=clean_environment() | {"PYTHONUNBUFFERED": "1"},
            stdout=out,
        )
        try:

            def seen() -> bool:
                call = (
                    "authorize",
                    "--session-handle-file",
                    case.handle_file,
                    "files",
                    "read",
                    '{"path": "b"}',
                    "--json",
                )
                decision_id = json.loads(ask(*call).stdout)["decision_id"]
                known.append(decision_id)
                return any(one.encode() in shown.read_bytes() for one in known)

            known: list[str] = []
            wait_until(seen, seconds=DEADLINE_SECONDS)
        finally:
            tail.terminate()
            tail.wait(timeout=DEADLINE_SECONDS)

    lines = [json.loads(line) for line in shown.read_bytes().splitlines()]
    ids = [line["id"] for line in lines if line.get("id") in known]
    assert ids == [one for one in known if one in ids]


def test_a_line_is_a_line_whatever_an_agent_wrote() -> None:
    """Control and direction characters of a tool's name are shown as escapes."""
    line = tail_line({"kind": "decision", "time": "t", "outcome": "deny", "server": "a", "tool": "b\n\x1b[2J\u202ec"})

    assert "t  deny   a/b\\n\\x1b[2J\\u202ec" == line.strip()


ODD = [
    '{"time":"2026-01-05T10:00:00Z","kind":["x"],"id":"dec_1","session_id":"ses_1"}',
    '{"time":"2026-01-05T10:00:01Z","id":"dec_2","session_id":"ses_1","user":"\u202ealice\u009b2J"}',
    '{"time":"2026-01-05\u202e10:00:02+00:00","kind":"session.requested","session_id":"ses_1","facts":"none"}',
    '{"time":"2026-01-05T10:00:03Z","kind":"session.approved","session_id":"ses_1","facts":[]}',
    '{"time":"2026-01-05T10:00:04Z","kind":"decision","id":"dec_3","session_id":"ses_1","policies":["\\ud800"]}',
    '{"time":"2026-01-05T10:00:05Z","kind":"calltoken.used","session_id":"ses_1","facts":{"token_id":"\\ud800","version":"%s"}}'
    % ("9" * 5000),
]
ODD_QUESTIONS = [
    ("tail", "--no-follow"),
    ("tail", "--no-follow", "--json"),
    ("show", "dec_2"),
    ("session", "ses_1"),
    ("session", "ses_1", "--json"),
    ("who-approved", "ses_1"),
    ("executed-by", "session:ses_1", "--outcome", "all"),
    ("touched", "--json"),
    ("revoke-plan", "--since", "2026-01-01"),
    ("export", "--format", "csv"),
    ("export", "--format", "parquet", "--output", "odd.parquet"),
]


@pytest.mark.parametrize("words", ODD_QUESTIONS, ids=" ".join)
def test_a_log_from_others_is_answered_from_whatever_it_holds(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Fields of other types are no error, and no character of the log moves or hides what the terminal shows."""
    (tmp_path / f"record-{'a' * 12}-000001.jsonl").write_text("".join(f"{one}\n" for one in ODD), encoding="utf-8")

    done = run("audit", *words, "--record", str(tmp_path))

    assert (0, "") == (done.exit_code, "".join(line for line in done.stderr.splitlines() if "error" in line))
    assert not {"\u202e", "\u009b"} & set(done.stdout)


def test_a_number_of_others_is_none_of_ours(run: Run, tmp_path: Path) -> None:
    """A number with more digits than any of ours does not end the comparison of records."""
    (tmp_path / f"record-{'a' * 12}-000001.jsonl").write_text("".join(f"{one}\n" for one in ODD), encoding="utf-8")

    done = run("audit", "reconcile", str(tmp_path), "--record", str(tmp_path))

    assert "internal error" not in done.stderr
    assert 1 == done.exit_code
