"""`pdp serve` with two workers on one port: calls reach both, and what happens to one is no matter of the other."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from pdp.cli.root import root
from pdp.client import Answer, Client
from pdp.client.health import is_serving
from pdp.model import Role
from pdp.record import read_records
from pdp.record.keys import PUBLIC_KEY_FILE, PublicKeys
from pdp.record.verify import verify
from pdp.testing.inprocess import write_folder
from pdp.testing.otlp import OTLPReceiver, attributes_of
from pdp.v1.session_pb2 import RequestSessionResponse, SessionState
from pdp.workers.cores import bound, core_of, usable_cores
from pdp.workers.telling import LEFT
from tests.machinery.servers.notes import READ, notes_bundle
from tests.machinery.servers.server_process import PATIENCE, Callers, ServerProcess
from tests.machinery.servers.several import chains_of, opened_by, seen_by, workers_of

NOTE = {"name": "shopping"}
ROUNDS = 20
# So many connections are all of one worker once in half a million runs.
CONNECTIONS = 20
# Between two calls of a load, in seconds.
PAUSE = 0.005
# Root may read the memory of every process; without this capability it is a user like any other.
_AS_A_USER = () if os.geteuid() else ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")
# What a call is told at once that nobody has decided: there is no server, or it stops.
NOT_DECIDED = ("unavailable: ", "cancelled: ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with policies."""
    write_folder(tmp_path / "policies", notes_bundle())
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[ServerProcess]:
    """Return a server with two workers."""
    with ServerProcess(folder, server_workers="2") as running:
        yield running


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Return a server with two workers, for all tests that leave both alone."""
    folder = tmp_path_factory.mktemp("unharmed")
    write_folder(folder / "policies", notes_bundle())
    with ServerProcess(folder, server_workers="2") as running:
        yield running


@pytest.fixture
def callers(server: ServerProcess) -> Iterator[Callers]:
    """Return callers of a server, each with a connection of its own to one of the workers."""
    with Callers.of(server) as clients:
        yield clients


@dataclass(slots=True)
class Load:
    """Threads that ask about one session until they are told to stop, each over a connection of its own."""

    answers: list[Answer] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self, client: Client, opened: RequestSessionResponse) -> None:
        """Ask again and again."""
        session = seen_by(client, opened)
        # Without a pause the load would take the cores from a worker that starts.
        while not self.stopping.wait(PAUSE):
            self.answers.append(session.authorize("notes", READ, NOTE))


def findings(server: ServerProcess) -> list[str]:
    """Return what is wrong with the record."""
    keys = PublicKeys.load([server.record_folder.parent / PUBLIC_KEY_FILE])
    return [str(finding) for finding in verify(server.record_folder, keys).findings]


def recorded(server: ServerProcess) -> Counter[str]:
    """Return how often each decision is in the record."""
    return Counter(one.record["id"] for one in read_records(server.record_folder) if one.record["kind"] == "decision")


def until(condition: Callable[[], bool]) -> bool:
    """Look again and again; False when it takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not (holds := condition()) and time.monotonic() < deadline:
        # Without a pause this takes a core from the workers that it waits for.
        time.sleep(0.01)
    return holds


def lives(process: int) -> bool:
    """Say whether a process runs; one that waits to be buried does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def time_of_children(process: int) -> int:
    """Return the core time that the ended children of a process have used, in ticks."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
    return int(fields[13]) + int(fields[14])


def test_both_workers_are_reached(unharmed: ServerProcess) -> None:
    """Connections are spread over the workers, each records what it decided, and the record is shown as one."""
    with Callers.of(unharmed) as callers, ExitStack() as clients:
        opened = opened_by(callers)
        sessions = [seen_by(clients.enter_context(unharmed.client(Role.PEP)), opened) for _ in range(CONNECTIONS)]
        answers = [session.authorize("notes", READ, NOTE) for session in sessions]
    done = CliRunner().invoke(root, ["top", str(unharmed.record_folder), "--once", "--json", "--window=1h"])

    chains = chains_of(unharmed)
    assert ["permit"] * CONNECTIONS == [answer.basis for answer in answers]
    assert 2 == len({chains[answer.decision_id] for answer in answers})
    # Those of other tests of this server are among them.
    assert recorded(unharmed).total() == json.loads(done.stdout)["decisions"] >= CONNECTIONS


def test_where_they_run(unharmed: ServerProcess) -> None:
    """The parent of the workers has no gRPC; each worker has, and runs on the core that is meant for it."""
    maps = {
        process: Path(f"/proc/{process}/maps").read_text() for process in (unharmed.pid, *workers_of(unharmed).values())
    }
    cores = {number: os.sched_getaffinity(process) for number, process in workers_of(unharmed).items()}
    meant = {number: core_of(number, usable_cores(), bound()) for number in (1, 2)}

    assert [False, True, True] == ["cygrpc" in text for text in maps.values()]
    assert cores == {number: set(usable_cores()) if core is None else {core} for number, core in meant.items()}


def test_their_memory_is_closed_to_others_of_their_user(folder: Path) -> None:
    """Workers hold keys of call tokens: no process of their user looks into them, unlike their parent."""
    with ServerProcess(folder, through=_AS_A_USER, server_workers="2") as server:
        files = [f"/proc/{process}/io" for process in (server.pid, *workers_of(server).values())]
        looks = [subprocess.run([*_AS_A_USER, "cat", file], capture_output=True, check=False) for file in files]

    assert [0, 1, 1] == [look.returncode for look in looks]


def test_what_is_done_once_is_done_once(unharmed: ServerProcess) -> None:
    """At a first start one worker compiles and activates the bundle, and the other finds it compiled and active."""

    def kinds() -> Counter[str]:
        return Counter(one.record["kind"] for one in read_records(unharmed.record_folder))

    # The two workers and the control process: a server listens before its record says so.
    started = until(lambda: kinds()["server.started"] == 3)

    assert (True, 1, 0) == (started, kinds()["bundle.activated"], kinds()["bundle.refused"])
    # Each compiles in a child.
    assert [True, False] == [time_of_children(workers_of(unharmed)[number]) > 0 for number in (1, 2)]


def test_what_was_compiled_is_kept_as_long_as_the_server_runs(server: ServerProcess) -> None:
    """A worker that takes the place of another one need not compile, and nothing is left behind."""
    file = server.record_folder.parent / LEFT
    before = workers_of(server)[1]
    there = file.exists()
    os.kill(before, signal.SIGKILL)
    replaced = until(lambda: workers_of(server)[1] != before)
    compiling = time_of_children(workers_of(server)[1])
    server.terminate()

    assert (True, True, 0, False) == (there, replaced, compiling, file.exists())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"policies_folder": "bad"}, r"error: bad/notes\.cedar:1: .*"),
        ({"policies_folder": "none"}, r"error: none: does not exist.*"),
        (
            {"server_address": "TAKEN"},
            r"error: `server\.address`: cannot listen on `127\.0\.0\.1:\d+`: is it in use, or not allowed\?",
        ),
        (
            {"sessions_store": "memory"},
            r"error: `server\.workers` must be `1` with `sessions\.store: memory`, not `2`: workers share no memory",
        ),
        (
            {"server_address": "unix:socket"},
            r"error: `server\.workers` must be `1` on a Unix socket, not `2`: workers can share only a port",
        ),
    ],
    ids=["bad bundle", "no bundle", "port", "memory", "socket"],
)
def test_what_keeps_it_from_starting_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], expected: str
) -> None:
    """The start ends with one line that says why, exit code 2, and no worker left, whichever process found it."""
    write_folder(tmp_path / "policies", notes_bundle())
    write_folder(tmp_path / "bad", {**notes_bundle(), "notes.cedar": b"permit (principal"})
    monkeypatch.chdir(tmp_path)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = {name: address if value == "TAKEN" else value for name, value in settings.items()}
        ended = ServerProcess.refused(tmp_path, server_workers="2", **flags)

    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert (2, "") == (ended.returncode, ended.stdout)
    assert 1 == len(errors)
    assert re.fullmatch(expected, errors[0])
    assert "Traceback" not in ended.stderr


def test_the_port_of_other_workers_is_refused(unharmed: ServerProcess, folder: Path) -> None:
    """A second server of the same user does not join a shared port: it would take half of the calls."""
    ended = ServerProcess.refused(folder, server_workers="2", server_address=unharmed.address)

    expected = f"error: `server.address`: cannot listen on `{unharmed.address}`: is it in use, or not allowed?"
    assert (2, expected) == (ended.returncode, ended.stderr.splitlines()[-1])


def test_a_killed_worker_is_replaced(server: ServerProcess, callers: Callers) -> None:
    """While workers are killed calls go on, no answer is wrong, each is recorded once, and sessions are as before."""
    opened, load = opened_by(callers), Load()
    with ExitStack() as clients, ThreadPoolExecutor(max_workers=4) as threads:
        asking = [clients.enter_context(server.client(Role.PEP)) for _ in range(4)]
        running = [threads.submit(load.run, client, opened) for client in asking]
        replaced = []
        for number in (1, 2):
            before = workers_of(server)
            os.kill(before[number], signal.SIGKILL)
            replaced.append(until(lambda number=number, before=before: workers_of(server)[number] != before[number]))  # type: ignore[misc] # the values of this turn
        before_last = len(load.answers)
        went_on = until(lambda: len(load.answers) > before_last + 100)
        load.stopping.set()
        for one in running:
            one.result(PATIENCE)
    state = SessionState.Name(callers.pep.get_session(opened.session.session_id).state)
    code = server.terminate()

    decided = [answer for answer in load.answers if not answer.error]
    counts = recorded(server)
    assert ([True, True], True, 0) == (replaced, went_on, code)
    assert "SESSION_STATE_ACTIVE" == state
    assert {"permit"} == {answer.basis for answer in decided}
    assert {1} == {counts[answer.decision_id] for answer in decided}
    # Only what was under way at a worker that was killed has no answer.
    assert all(answer.error.startswith(NOT_DECIDED) for answer in load.answers if answer.error)
    assert findings(server) == []


def test_a_stopped_worker_is_replaced(server: ServerProcess, callers: Callers) -> None:
    """A worker that is stopped is silent; after five seconds it is killed, and another one answers in its place."""
    opened, before = opened_by(callers), workers_of(server)

    os.kill(before[2], signal.SIGSTOP)
    replaced = until(lambda: workers_of(server)[2] != before[2])
    with ExitStack() as clients:
        sessions = [seen_by(clients.enter_context(server.client(Role.PEP)), opened) for _ in range(CONNECTIONS)]
        answers = [session.authorize("notes", READ, NOTE) for session in sessions]

    assert replaced
    assert before[1] == workers_of(server)[1]
    assert ["permit"] * CONNECTIONS == [answer.basis for answer in answers]
    assert 0 == server.terminate()


def test_who_comes_while_a_worker_is_away_reaches_the_others(server: ServerProcess, callers: Callers) -> None:
    """Once a killed worker is gone every new connection is answered, calls and probes alike: the server is healthy."""
    opened, worker = opened_by(callers), workers_of(server)[2]

    os.kill(worker, signal.SIGKILL)
    # Not when its first thread has ended: others may have its connections still.
    gone = until(lambda: "ended with signal `SIGKILL`" in server.log.read_text())
    probes = [is_serving(server.connection(), timeout=PATIENCE) for _ in range(CONNECTIONS)]
    with ExitStack() as clients:
        sessions = [seen_by(clients.enter_context(server.client(Role.PEP)), opened) for _ in range(CONNECTIONS)]
        answers = [session.authorize("notes", READ, NOTE) for session in sessions]

    assert gone
    assert [True] * CONNECTIONS == probes
    assert ["permit"] * CONNECTIONS == [answer.basis for answer in answers]


@pytest.mark.parametrize("kind", ["revoked", "ended"])
def test_what_one_acknowledges_the_other_obeys(unharmed: ServerProcess, kind: str) -> None:
    """A session that is revoked or ended over one connection is over for all others at their next call."""
    with Callers.of(unharmed) as callers, ExitStack() as clients:
        gateways = [clients.enter_context(unharmed.client(Role.PEP)) for _ in range(CONNECTIONS)]
        before, after = set(), set()
        for _ in range(ROUNDS):
            opened = opened_by(callers)
            before |= {seen_by(gateway, opened).authorize("notes", READ, NOTE).basis for gateway in gateways}
            if kind == "revoked":
                callers.approver.revoke_sessions(session_id=opened.session.session_id, reason="enough")
            else:
                callers.pep.end_session(opened.session_handle)
            after |= {seen_by(gateway, opened).authorize("notes", READ, NOTE).basis for gateway in gateways}

    assert ({"permit"}, {f"session_{kind}"}) == (before, after)


def test_a_drain_leaves_no_call_without_an_answer(server: ServerProcess, callers: Callers) -> None:
    """Calls that are under way when the server is stopped are answered and recorded; later ones are refused at once."""
    opened, load = opened_by(callers), Load()
    with ExitStack() as clients, ThreadPoolExecutor(max_workers=8) as threads:
        asking = [clients.enter_context(server.client(Role.PEP)) for _ in range(8)]
        running = [threads.submit(load.run, client, opened) for client in asking]
        busy = until(lambda: len(load.answers) > 200)
        code = server.terminate()
        load.stopping.set()
        for one in running:
            one.result(PATIENCE)

    decided = [answer for answer in load.answers if not answer.error]
    counts = recorded(server)
    assert (True, 0) == (busy, code)
    assert {"permit"} == {answer.basis for answer in decided}
    assert {1} == {counts[answer.decision_id] for answer in decided}
    # Whoever decided something told it.
    assert len(decided) == counts.total()
    assert all(answer.error.startswith(NOT_DECIDED) for answer in load.answers if answer.error)
    assert findings(server) == []


def test_a_second_signal_ends_all_at_once(server: ServerProcess) -> None:
    """An open stream holds up the drain; the second signal ends parent and workers in the midst of it."""
    workers = list(workers_of(server).values())
    with server.channel() as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        next(watch(b""))
        server.send(signal.SIGTERM)
        draining = until(lambda: "stopping" in server.log.read_text())
        server.send(signal.SIGTERM)
        code = server.wait()
        gone = until(lambda: not any(lives(worker) for worker in workers))

    assert (True, -signal.SIGTERM, True) == (draining, code, gone)


def test_workers_end_with_their_parent(server: ServerProcess) -> None:
    """When the parent is killed its workers stop serving and end, and the record is whole."""
    workers = list(workers_of(server).values())

    server.kill()

    assert until(lambda: not any(lives(worker) for worker in workers))
    assert findings(server) == []


def test_callers_are_read_again_by_all(server: ServerProcess, callers: Callers) -> None:
    """After SIGHUP a caller who was taken out of the file is refused over every connection, and nobody ends."""
    opened, workers = opened_by(callers), workers_of(server)
    file = server.record_folder.parent / "callers.yaml"
    file.write_text(file.read_text(encoding="ascii").replace("[pep]", "[author]"), encoding="ascii")

    server.send(signal.SIGHUP)

    with ExitStack() as clients:
        sessions = [seen_by(clients.enter_context(server.client(Role.PEP)), opened) for _ in range(CONNECTIONS)]
        assert until(lambda: all(session.authorize("notes", READ, NOTE).error for session in sessions))
    assert workers == workers_of(server)
    assert 0 == server.terminate()


@pytest.mark.parametrize("chosen", ["", "web-1"])
def test_metrics_of_workers_add_up(folder: Path, chosen: str) -> None:
    """Each worker is a sender of its own, also where the operator chose the name, and the sum counts each call once."""
    with OTLPReceiver() as receiver:
        named = {"OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id={chosen}"} if chosen else {}
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, **named}
        with (
            ServerProcess(folder, environment, server_workers="2") as server,
            Callers.of(server) as callers,
        ):
            opened = opened_by(callers)
            with ExitStack() as clients:
                for _ in range(CONNECTIONS):
                    seen_by(clients.enter_context(server.client(Role.PEP)), opened).authorize("notes", READ, NOTE)
            assert 0 == server.terminate()

        latest: dict[str, dict[str, int]] = {}
        numbers: dict[str, object] = {}
        for metrics in (part for request in receiver.requests for part in getattr(request, "resource_metrics", ())):
            resource = attributes_of(metrics.resource)
            instance = str(resource["service.instance.id"])
            numbers[instance] = resource["pdp.worker"]
            for metric in metrics.scope_metrics[0].metrics:
                points = metric.sum.data_points or metric.gauge.data_points
                latest.setdefault(instance, {})[metric.name] = sum(point.as_int for point in points)

    # The third is the control process.
    assert [1, 2, 3] == sorted(numbers.values(), key=str)
    assert not chosen or {f"{chosen}/{number}": number for number in (1, 2, 3)} == numbers
    assert CONNECTIONS == sum(found.get("pdp.decisions", 0) for found in latest.values())
    # Each runs the bundle, whichever has activated it.
    assert [1, 1, 1] == [found["pdp.bundle.info"] for found in latest.values()]
