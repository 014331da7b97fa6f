"""Two workers and what calls change: a label counts in both before its call is answered, and a report is taken once."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier

import pytest

from pdp.client import AlreadyReportedError, Answer, Client, ClientSession
from pdp.model import Role
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import write_folder
from pdp.testing.waiting import wait_until
from tests.machinery.servers.server_process import PATIENCE, Callers, ServerProcess
from tests.machinery.servers.several import opened_by, seen_by, workers_of

# So many connections are all of one worker once in half a million runs.
CONNECTIONS = 20
ROUNDS = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Return a server with two workers, whose tool `read` adds a label that closes `write`."""
    folder: Path = tmp_path_factory.mktemp("ledger")
    files = bundle_files(
        policies={
            "notes": """
                @id("notes/all") permit (principal, action, resource);
                @id("notes/tainted") forbid (principal, action == Action::"notes/write", resource)
                when { context.session.labels.containsAny(["read", "suspect"]) };
                @id("notes/unseen") forbid (principal, action == Action::"notes/send", resource)
                unless { ["clean"].containsAll(context.targets.provenance) };
            """
        },
        tools={"notes": [tool("read"), tool("write"), tool("list"), tool("send", {"to": {"type": "string"}})]},
        overlays={"notes": "tools: {read: {adds_labels: [read]}, list: {results: trusted}, send: {targets: [to]}}"},
        directory='users: {alice: {}}\nagents: {coder: {ceiling: ["notes/*"]}}',
        labels=("read", "suspect"),
    )
    write_folder(folder / "policies", files)
    with ServerProcess(folder, server_workers="2") as running:
        yield running


@pytest.fixture
def callers(server: ServerProcess) -> Iterator[Callers]:
    """Return callers of the server."""
    with Callers.of(server) as clients:
        yield clients


@pytest.fixture
def clients(server: ServerProcess) -> Iterator[list[Client]]:
    """Return gateways with a connection each, some of them to one worker and some to the other."""
    with ExitStack() as opened:
        yield [opened.enter_context(server.client(Role.PEP)) for _ in range(CONNECTIONS)]


def seen_by_all(callers: Callers, clients: list[Client]) -> list[ClientSession]:
    """Return a fresh session as each client holds it."""
    opened = opened_by(callers)
    return [seen_by(client, opened) for client in clients]


def basis_everywhere(sessions: list[ClientSession]) -> set[str]:
    """Return what a write rests on, asked over every connection."""
    return {session.authorize("notes", "write").basis for session in sessions}


def test_a_label_counts_everywhere_before_its_call_is_answered(
    server: ServerProcess, callers: Callers, clients: list[Client]
) -> None:
    """Whichever worker has answered; and each worker had answered from memory before."""
    for number in range(ROUNDS):
        sessions = seen_by_all(callers, clients)
        before = basis_everywhere(sessions)
        read = sessions[number % CONNECTIONS].authorize("notes", "read")

        assert ({"permit"}, ("read",), {"forbid"}) == (before, read.labels_added, basis_everywhere(sessions))
    assert 2 == len(workers_of(server))


def test_a_reported_label_counts_everywhere_before_the_report_is_answered(
    callers: Callers, clients: list[Client]
) -> None:
    """The report goes to any worker: it knows the token that another one gave."""
    for number in range(ROUNDS):
        sessions = seen_by_all(callers, clients)
        answer = sessions[number % CONNECTIONS].authorize("notes", "list")
        before = basis_everywhere(sessions)
        clients[(number * 7 + 3) % CONNECTIONS].report_outcome(answer, labels=["suspect"])

        assert ({"permit"}, {"forbid"}) == (before, basis_everywhere(sessions))


def test_a_reported_value_counts_everywhere_before_the_report_is_answered(
    server: ServerProcess, callers: Callers, clients: list[Client]
) -> None:
    """For whichever worker; and no file of the server holds a word of the result."""
    canary = f"canary{secrets.token_hex(8)}"
    for number in range(ROUNDS):
        sessions, to = seen_by_all(callers, clients), f"{canary}-{number}@x.com"
        answer = sessions[number % CONNECTIONS].authorize("notes", "list")
        before = {session.authorize("notes", "send", {"to": to}).basis for session in sessions}
        clients[(number * 7 + 3) % CONNECTIONS].report_outcome(answer, result={"owner": to})
        after = {session.authorize("notes", "send", {"to": to}).basis for session in sessions}

        assert ({"forbid"}, {"permit"}) == (before, after)
    files = [path for path in server.record_folder.parent.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert [] == [path for path in (*files, server.log) if canary.encode() in path.read_bytes()]


def test_of_many_reports_one_is_taken(callers: Callers, clients: list[Client]) -> None:
    """Sent at the same time over all connections: the same ones are all answered, others are not."""
    sessions = seen_by_all(callers, clients)
    answer = sessions[0].authorize("notes", "list")
    barrier = Barrier(CONNECTIONS)

    def report(number: int) -> bool:
        barrier.wait()
        try:
            clients[number].report_outcome(answer, succeeded=number % 2 == 0)
        except AlreadyReportedError:
            return False
        return True

    with ThreadPoolExecutor(max_workers=CONNECTIONS) as threads:
        taken = list(threads.map(report, range(CONNECTIONS)))

    assert [taken[0], taken[1]] * (CONNECTIONS // 2) == taken
    assert taken[0] is not taken[1]


def test_of_many_first_reads_each_is_answered(callers: Callers, clients: list[Client]) -> None:
    """They collide, and are decided again: all are allowed, and the label has one origin."""
    sessions = seen_by_all(callers, clients)
    barrier = Barrier(CONNECTIONS)

    def read(session: ClientSession) -> Answer:
        barrier.wait()
        return session.authorize("notes", "read")

    with ThreadPoolExecutor(max_workers=CONNECTIONS) as threads:
        answers = list(threads.map(read, sessions))
    (origin,) = callers.approver.get_session(sessions[0].id).label_origins

    assert {"permit"} == {answer.basis for answer in answers}
    assert [origin.decision_id] == [answer.decision_id for answer in answers if answer.labels_added]


def test_a_damaged_history_ends_nothing(server: ServerProcess, callers: Callers, clients: list[Client]) -> None:
    """A worker that starts with it serves: what needs the history is denied, and authority is ended. Comes last."""
    opened = opened_by(callers)
    for suffix in ("", "-wal"):
        (server.record_folder.parent / f"history.sqlite{suffix}").write_bytes(os.urandom(65536))
    before = workers_of(server)
    os.kill(before[1], signal.SIGKILL)
    wait_until(lambda: workers_of(server)[1] != before[1], seconds=PATIENCE)
    with server.client(Role.ADMIN) as admin:
        answers = [seen_by(client, opened).authorize("notes", "list") for client in clients]
        revoked = admin.revoke_sessions(session_id=opened.session.session_id, reason="damaged")
        after = [seen_by(client, opened).authorize("notes", "list") for client in clients]

    assert {"permit", "error"} >= {answer.basis for answer in answers}
    assert [opened.session.session_id] == list(revoked)
    assert not any(after)
    assert "those with a budget are denied: the session history is damaged" in server.log.read_text()
