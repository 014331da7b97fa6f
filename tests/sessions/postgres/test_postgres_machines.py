"""Server processes on two machines that answer from memory under leases, while processes and networks fail.

One machine has a folder and one process, the other a folder, two processes, and a proxy before the database. The last
test kills one of them.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest

from pdp.client import Answer, Client, ToolCallStopped
from pdp.client.health import is_serving
from pdp.model import Role
from pdp.testing.inprocess import write_folder
from pdp.testing.waiting import wait_until
from pdp.v1 import policy_pb2, session_pb2
from pdp.v1.fence_pb2 import FENCED_BY_CONFIRMED, FENCED_BY_WAITED
from pdp.v1.policy_pb2_grpc import PolicyServiceStub
from pdp.v1.session_pb2_grpc import SessionServiceStub
from tests.machinery.servers.notes import READ, WRITE, notes_bundle
from tests.machinery.servers.server_process import PATIENCE, THIS_PROGRAM, Callers, ServerProcess
from tests.sessions.postgres.onpostgres import basis, older, open_session
from tests.sessions.postgres.postgresserver import PostgresServer
from tests.sessions.postgres.tcpproxy import Proxy

pytestmark = pytest.mark.replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """Callers of the process of one machine, and of those of the other, and what can fail there."""

    here: Callers
    main: ServerProcess
    there: dict[int, Callers]
    processes: dict[int, ServerProcess]
    folder: Path
    proxy: Proxy
    database: psycopg.Connection[Any]

    def holder(self) -> int:
        """Return the process of the other machine that renews its lease; 0 when none does."""
        inode = (self.folder / "data" / "lease").stat().st_ino
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            _, kind, _, _, pid, place, *_ = line.split()
            if kind == "FLOCK" and place.endswith(f":{inode}") and int(pid) in self.processes:
                return int(pid)
        return 0

    def others(self) -> list[Callers]:
        """Return the callers of the processes of the other machine that do not renew its lease."""
        holder = self.holder()
        return [callers for pid, callers in self.there.items() if pid != holder]

    def beside(self, pid: int) -> list[ServerProcess]:
        """Return the other process of the other machine, and that of this one."""
        return [*(process for one, process in self.processes.items() if one != pid), self.main]

    def opened(self) -> session_pb2.RequestSessionResponse:
        """Open a session here, in which each process of the other machine allows calls, and remembers that.

        Before, wait until both machines have leases.
        """
        leases = "SELECT count(*) FROM pdp_sessions.replicas JOIN pdp_sessions.confirmations USING (id)"
        wait_until(lambda: self.database.execute(leases).fetchall() == [(2,)])
        opened = open_session(self.here)
        assert ["permit"] * 2 * len(self.there) == [basis(one, opened) for one in self.there.values() for _ in range(2)]
        return opened

    def activate(self, name: str) -> None:
        """Have the process of the first machine load another bundle."""
        write_folder(self.main.folder / "policies", notes_bundle(name))
        with self.main.client(Role.AUTHOR) as author:
            assert author.reload_bundle().changed

    def revoke(self, opened: session_pb2.RequestSessionResponse) -> session_pb2.RevokeSessionsResponse:
        """Revoke it here."""
        request = session_pb2.RevokeSessionsRequest(session_id=opened.session.session_id, reason="enough")
        metadata = (("authorization", f"Bearer {self.main.token(Role.APPROVER)}"),)
        with self.main.channel() as channel:
            revoke = SessionServiceStub(channel).RevokeSessions  # type: ignore[no-untyped-call]
            answer: session_pb2.RevokeSessionsResponse = revoke(request, metadata=metadata, timeout=PATIENCE)
            return answer


def _following(callers: Callers) -> Iterator[session_pb2.WatchSessionsResponse]:
    """Begin a watch of all sessions with many messages."""
    feed = callers.pep.watch_sessions(heartbeat=0.25)
    next(feed)
    return feed


def _first(
    feed: Iterator[session_pb2.WatchSessionsResponse], wanted: Callable[[session_pb2.WatchSessionsResponse], bool]
) -> session_pb2.WatchSessionsResponse:
    """Return the first message that is wanted, of those that come within a while."""
    return next(message for message in islice(feed, 400) if wanted(message))


@pytest.fixture(scope="module", params=["same", pytest.param("older", marks=pytest.mark.long)])
def machines(
    request: pytest.FixtureRequest, server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machines]:
    """Give the processes, on a database of their own; those of the other machine of the `same` program, or `older`."""
    program, database = older() if request.param == "older" else THIS_PROGRAM, f"machines_{request.param}"
    with server.connect() as connection:
        connection.execute(f"CREATE DATABASE {database}".encode())
    folders = [tmp_path_factory.mktemp(name) for name in ("here", "there")]
    with ExitStack() as opened:
        proxy = opened.enter_context(closing(Proxy(server.port)))
        for folder, port in zip(folders, (server.port, proxy.port), strict=True):
            write_folder(folder / "policies", notes_bundle())
            file = folder / "postgres"
            file.touch(mode=0o600)
            file.write_text(server.conninfo_at(port).replace("dbname=postgres", f"dbname={database}"), encoding="utf-8")

        def started(folder: Path, program: Sequence[str]) -> ServerProcess:
            file = str(folder / "postgres")
            settings = {"sessions_store": "postgres", "sessions_postgres_file": file, "sessions_lease_seconds": "1"}
            return opened.enter_context(ServerProcess(folder, program=program, **settings))

        # An older program goes on with what a newer one has prepared, but does not begin with it.
        there = [started(folders[1], program) for _ in range(2)]
        here = started(folders[0], THIS_PROGRAM)
        machines = Machines(
            here=opened.enter_context(Callers.of(here)),
            main=here,
            there={one.pid: opened.enter_context(Callers.of(one)) for one in there},
            processes={one.pid: one for one in there},
            folder=folders[1],
            proxy=proxy,
            database=opened.enter_context(server.connect(dbname=database)),
        )
        wait_until(lambda: machines.holder() > 0)
        yield machines


def test_a_revocation_holds_on_all_machines(machines: Machines) -> None:
    """At the next call, in each of their processes; the answer says how long it took."""
    opened = machines.opened()
    answer = machines.revoke(opened)

    assert answer.fenced_by in (FENCED_BY_CONFIRMED, FENCED_BY_WAITED)
    assert answer.HasField("fence_duration")
    assert ["session_revoked"] * 2 == [basis(one, opened) for one in machines.there.values()]


def test_a_machine_that_is_cut_off_allows_nothing_that_was_revoked(machines: Machines) -> None:
    """The revocation waits for its lease; then it has no answer, until the network is back."""
    opened = machines.opened()
    machines.proxy.stalled.set()
    answer = machines.revoke(opened)
    cut_off = [basis(one, opened) for one in machines.there.values()]
    machines.proxy.stalled.clear()

    assert FENCED_BY_WAITED == answer.fenced_by
    assert "permit" not in cut_off
    wait_until(lambda: all(basis(one, opened) == "session_revoked" for one in machines.there.values()), seconds=60)


def test_a_change_is_told_on_all_machines(machines: Machines) -> None:
    """To all who follow any of their processes, with a revision that each machine knows when it is insisted on."""
    opened = machines.opened()
    feeds = [_following(one) for one in machines.there.values()]
    machines.revoke(opened)
    told = [_first(feed, lambda message: bool(message.changes)) for feed in feeds]
    revoked = [(opened.session.session_id, session_pb2.SESSION_STATE_REVOKED)]

    assert [revoked] * 2 == [[(one.session_id, one.state) for one in message.changes] for message in told]
    assert ["session_revoked"] * 2 == [basis(machines.here, opened, message.revision) for message in told]


def test_a_call_that_is_under_way_is_stopped_on_all_machines(machines: Machines) -> None:
    """Its gateway asks one machine, and the revocation is made at another."""
    opened = machines.opened()
    gateway = next(iter(machines.there.values())).pep
    answer = gateway.authorize(opened.session_handle, "notes", READ, {"name": "shopping"})
    told = Event()

    def make() -> None:
        with gateway.under_way(answer) as call:
            call.on_stop(told.set)
            machines.revoke(opened)
            assert told.wait(PATIENCE)

    with pytest.raises(ToolCallStopped, match="its session is revoked"):
        make()


def test_a_call_stops_when_its_machine_is_cut_off_for_too_long(machines: Machines) -> None:
    """Where its gateway has asked for that: the machine goes on to tell how old its news are."""
    opened = machines.opened()
    gateway = next(iter(machines.there.values())).pep
    answer = gateway.authorize(opened.session_handle, "notes", READ, {"name": "shopping"})
    told = Event()

    def make() -> None:
        with gateway.under_way(answer, unheard=3.0) as call:
            call.on_stop(told.set)
            machines.proxy.stalled.set()
            assert told.wait(PATIENCE)

    try:
        with pytest.raises(ToolCallStopped, match="nothing was heard of its session for 3 s"):
            make()
    finally:
        machines.proxy.stalled.clear()


def test_what_is_heard_of_before_it_is_acknowledged_is_insisted_on(machines: Machines) -> None:
    """A machine that is cut off remembers otherwise under its lease; asked for that revision, it allows nothing."""
    opened = machines.opened()
    feed = _following(machines.here)
    machines.proxy.stalled.set()
    with ThreadPoolExecutor(1) as pool:
        revoking = pool.submit(machines.revoke, opened)
        heard = _first(feed, lambda message: bool(message.changes))
        insisted = [basis(one, opened, heard.revision) for one in machines.there.values()]
        revoking.result()
    machines.proxy.stalled.clear()

    assert "permit" not in insisted
    wait_until(lambda: all(basis(one, opened) == "session_revoked" for one in machines.there.values()), seconds=60)


def test_a_machine_that_is_cut_off_says_how_old_its_news_are(machines: Machines) -> None:
    """Until it is back: the age stays below the lease while there is one, and grows afterwards."""
    machines.opened()
    feed = _following(next(iter(machines.there.values())))
    fresh = [_first(feed, lambda message: message.age.ToSeconds() < 1)]
    machines.proxy.stalled.set()

    def is_stale(message: session_pb2.WatchSessionsResponse) -> bool:
        # Until the last moment there can be news, such as that of a heartbeat.
        fresh.extend([message] if message.age.ToSeconds() < 1 else [])
        return message.age.ToSeconds() >= 2

    stale = _first(feed, is_stale)
    machines.proxy.stalled.clear()
    again = _first(feed, lambda message: message.age.ToSeconds() < 1)

    assert fresh[-1].revision == stale.revision
    assert not any(one.reset or one.changes for one in (stale, again))


def test_an_activation_holds_on_all_machines(machines: Machines) -> None:
    """While they are asked without pause, each is answered, and none that begins afterwards by the bundle before."""
    opened, enough = machines.opened(), Event()
    pauses: list[float] = []

    def ask(server: ServerProcess) -> list[tuple[float, Answer]]:
        answers = []
        with server.client(Role.PEP, sleep=pauses.append) as pep:
            while not enough.is_set():
                began_at = time.monotonic()
                answers.append((began_at, _written(pep, opened)))
        return answers

    with ThreadPoolExecutor() as threads:
        asked = [threads.submit(ask, one) for one in machines.processes.values()]
        machines.activate("two")
        active_at = time.monotonic()
        bases = [_written(one.pep, opened).basis for one in machines.there.values()]
        enough.set()
        answers = [answer for one in asked for answer in one.result()]

    assert ["forbid"] * len(bases) == bases
    assert {"permit", "forbid"} >= {answer.error or answer.basis for _, answer in answers}
    assert "permit" not in {answer.basis for began_at, answer in answers if began_at >= active_at}
    # None was asked again because there was no answer.
    assert not pauses


def test_a_machine_that_is_stopped_does_not_go_on_by_the_bundle_before(machines: Machines) -> None:
    """The activation waits for it some seconds; what it is asked then, it answers by the new bundle, or not at all."""
    opened = machines.opened()
    stopped, callers = next(iter(machines.there.items()))
    machines.processes[stopped].send(signal.SIGSTOP)
    try:
        wait_until(lambda: ") T " in Path(f"/proc/{stopped}/stat").read_text(encoding="ascii"))
        machines.activate("three")
    finally:
        machines.processes[stopped].send(signal.SIGCONT)
    policies: list[str] = []

    def answered() -> bool:
        answer = _written(callers.pep, opened)
        policies.extend(answer.policies)
        return not answer.error

    wait_until(answered, seconds=60)
    assert {"guardrails/three"} == set(policies)


def test_a_change_is_asked_for_again_at_another_machine(machines: Machines) -> None:
    """It tells what came of it, and does not load what its own source holds."""
    write_folder(machines.main.folder / "policies", notes_bundle("four"))
    other = next(iter(machines.processes.values()))
    first, again = (_reloaded(server, request_id="again") for server in (machines.main, other))

    assert (first.bundle.version, True) == (again.bundle.version, again.changed)
    assert first.bundle.version != _reloaded(other, request_id="anew").bundle.version


def test_a_process_that_stops_while_it_renews_the_lease_delays_only(machines: Machines) -> None:
    """The revocation waits for the lease; the other process goes on by asking, and the stopped one finds it revoked."""
    opened = machines.opened()
    stopped = machines.holder()
    machines.processes[stopped].send(signal.SIGSTOP)
    try:
        wait_until(lambda: ") T " in Path(f"/proc/{stopped}/stat").read_text(encoding="ascii"))
        answer = machines.revoke(opened)
        others = [basis(one, opened) for one in machines.others()]
        without, main = machines.beside(stopped)
        ready = is_serving(without.connection(), "", timeout=PATIENCE)
        # On a busy machine it, too, can be without a lease for a moment.
        wait_until(lambda: is_serving(main.connection(), "", timeout=PATIENCE))
    finally:
        machines.processes[stopped].send(signal.SIGCONT)

    assert FENCED_BY_WAITED == answer.fenced_by
    assert ["session_revoked"] == others
    # A machine without a lease answers, and should not be sent calls.
    assert not ready
    assert "session_revoked" == basis(machines.there[stopped], opened)


def test_another_process_takes_over_when_the_one_that_renews_is_killed(machines: Machines) -> None:
    """Its machine has a lease again, and revocations are seen as before."""
    opened = machines.opened()
    killed, (other,) = machines.holder(), machines.others()
    machines.processes[killed].kill()
    wait_until(lambda: machines.holder() not in (0, killed))
    before = basis(other, opened)
    machines.revoke(opened)

    assert ("permit", "session_revoked") == (before, basis(other, opened))


def _written(pep: Client, opened: session_pb2.RequestSessionResponse) -> Answer:
    session = pep.attach(opened.session_handle, session_id=opened.session.session_id)
    return session.authorize("notes", WRITE, {"name": "shopping"})


def _reloaded(server: ServerProcess, *, request_id: str) -> policy_pb2.ReloadBundleResponse:
    metadata = (("authorization", f"Bearer {server.token(Role.AUTHOR)}"),)
    with server.channel() as channel:
        load = PolicyServiceStub(channel).ReloadBundle  # type: ignore[no-untyped-call]
        request = policy_pb2.ReloadBundleRequest(request_id=request_id)
        answer: policy_pb2.ReloadBundleResponse = load(request, metadata=metadata, timeout=PATIENCE)
        return answer
