"""Workers and a new bundle: all have loaded it before it is active, so that no call is refused meanwhile."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from pdp.client import Answer, Client
from pdp.client.errors import PDPClientError, UnavailableError
from pdp.model import Role
from pdp.policy.contents import version_of
from pdp.record import read_records
from pdp.testing.inprocess import write_folder
from pdp.testing.waiting import wait_until
from pdp.v1.session_pb2 import RequestSessionResponse
from tests.machinery.servers.notes import WRITE, notes_bundle
from tests.machinery.servers.server_process import PATIENCE, Callers, ServerProcess
from tests.machinery.servers.several import chains_of, opened_by, seen_by, workers_of

WORKERS = 3
THREADS = 6
# All connections of one worker: once in ten million runs.
CONNECTIONS = 15
# Between two calls of a thread, in seconds.
PAUSE = 0.005


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with policies that permit everything."""
    write_folder(tmp_path / "policies", notes_bundle())
    return tmp_path


@pytest.fixture
def server(folder: Path, request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """Return a server with several workers; `watch` as parameter has it watch its folder."""
    watch = {"policies_watch": "true"} if getattr(request, "param", "") == "watch" else {}
    with ServerProcess(folder, server_workers=str(WORKERS), **watch) as running:
        yield running


@pytest.fixture
def callers(server: ServerProcess) -> Iterator[Callers]:
    """Return callers of the server."""
    with Callers.of(server) as clients:
        yield clients


class Asked(NamedTuple):
    """One answer, with the last switch that was acknowledged before, and the last that had begun afterwards."""

    done: int
    begun: int
    answer: Answer


class Load:
    """Threads that ask all the time, each over ever new connections. `pauses` holds each wish to try again later."""

    def __init__(self, server: ServerProcess, opened: RequestSessionResponse) -> None:
        self._server = server
        self._opened = opened
        self._enough = threading.Event()
        self.begun = 0
        self.done = 0
        self.pauses: list[float] = []
        self.asked: list[Asked] = []

    def run(self) -> None:
        """Ask until it is enough."""
        while not self._enough.is_set():
            with self._server.client(Role.PEP, sleep=self.pauses.append) as client:
                self._ask(client)

    def settle(self) -> None:
        """Wait until there are answers of connections that are new."""
        wanted = len(self.asked) + 20 * THREADS
        wait_until(lambda: len(self.asked) >= wanted)

    def stop(self) -> None:
        """Ask no more."""
        self._enough.set()

    def _ask(self, client: Client) -> None:
        session = seen_by(client, self._opened)
        for number in range(20):
            done = self.done
            name = "shopping" if number % 2 else f"{len(self.asked)}"
            answer = session.authorize("notes", WRITE, {"name": name})
            self.asked.append(Asked(done, self.begun, answer))
            # Else the load would take the cores from the workers that load a bundle.
            self._enough.wait(PAUSE)


def runs(server: ServerProcess, files: dict[str, bytes]) -> bool:
    """Say whether a bundle is active, as a new connection has it."""
    try:
        with server.client(Role.ADMIN) as admin:
            return admin.get_bundle().bundle.version == version_of(files)
    except UnavailableError:
        return False


def reloaded(admin: Client) -> bool:
    """Reload; say whether that was answered."""
    try:
        admin.reload_bundle()
    except PDPClientError:
        return False
    return True


@pytest.mark.parametrize(
    ("server", "ways"),
    [("", ("reload", "reload", "rollback", "rollback")), ("watch", ("watch",) * 4)],
    indirect=["server"],
    ids=["asked", "watched"],
)
def test_no_call_is_refused_while_bundles_change(
    server: ServerProcess, callers: Callers, folder: Path, ways: tuple[str, ...]
) -> None:
    """All workers answer all the time, each by a version that was active meanwhile, and rightly."""
    author = callers.admin
    permitting = author.get_bundle().bundle.version
    write_folder(folder / "policies", notes_bundle("no_writing"))
    if "watch" in ways:
        wait_until(lambda: author.get_bundle().bundle.version != permitting)
    else:
        author.reload_bundle()
    forbidding = author.get_bundle().bundle.version
    right = {permitting: ("permit", ("notes/everything",)), forbidding: ("forbid", ("guardrails/no_writing",))}
    bundles = {permitting: notes_bundle(), forbidding: notes_bundle("no_writing")}
    # What is active after each switch.
    active = [forbidding, *([permitting, forbidding] * (len(ways) // 2))]
    load = Load(server, opened_by(callers))

    with ThreadPoolExecutor(THREADS) as threads:
        asking = [threads.submit(load.run) for _ in range(THREADS)]
        try:
            for switch, way in enumerate(ways, 1):
                load.settle()
                load.begun = switch
                if way == "rollback":
                    author.activate_bundle(active[switch])
                else:
                    write_folder(folder / "policies", bundles[active[switch]])
                if way == "reload":
                    author.reload_bundle()
                wait_until(lambda switch=switch: author.get_bundle().bundle.version == active[switch])  # type: ignore[misc] # the value of this turn
                load.done = switch
            load.settle()
        finally:
            load.stop()
        for one in asking:
            one.result(PATIENCE)
    code = server.terminate()

    answers = [one.answer for one in load.asked]
    assert [] == [answer for answer in answers if answer.error] + load.pauses
    assert [] == [answer for answer in answers if right[answer.bundle_version] != (answer.basis, answer.policies)]
    assert [] == [one for one in load.asked if one.answer.bundle_version not in active[one.done : one.begun + 1]]
    assert {permitting, forbidding} == {one.answer.bundle_version for one in load.asked if one.done == one.begun}
    assert (0, WORKERS) == (code, len(set(chains_of(server).values())))


@pytest.mark.parametrize("server", ["watch"], indirect=True)
def test_a_bad_bundle_is_refused_once_and_all_say_why(server: ServerProcess, callers: Callers, folder: Path) -> None:
    """One worker looks at the source: the record tells once that it is bad, and every worker shows it, and its end."""
    good = callers.admin.get_bundle()

    with ExitStack() as clients:
        admins = [clients.enter_context(server.client(Role.ADMIN)) for _ in range(CONNECTIONS)]
        write_folder(folder / "policies", {**notes_bundle(), "notes.cedar": b"permit (principal"})
        wait_until(lambda: all(admin.get_bundle().load_errors for admin in admins))
        bad = [admin.get_bundle() for admin in admins]
        write_folder(folder / "policies", notes_bundle())
        wait_until(lambda: not any(admin.get_bundle().load_errors for admin in admins))

    refused = [one for one in read_records(server.record_folder) if one.record["kind"] == "bundle.refused"]
    assert 1 == len(refused)
    assert {good.bundle.version} == {shown.bundle.version for shown in bad}
    assert 1 == len({tuple(shown.load_errors) for shown in bad})


@pytest.mark.parametrize("server", ["watch"], indirect=True)
def test_who_watches_the_source_is_replaced(server: ServerProcess, folder: Path) -> None:
    """A change comes through although the worker that watches is killed just then, and so does the next one."""
    watcher = workers_of(server)[1]

    write_folder(folder / "policies", notes_bundle("one"))
    os.kill(watcher, signal.SIGKILL)
    wait_until(lambda: runs(server, notes_bundle("one")), seconds=PATIENCE)
    write_folder(folder / "policies", notes_bundle("two"))
    wait_until(lambda: runs(server, notes_bundle("two")), seconds=PATIENCE)

    assert watcher != workers_of(server)[1]


@pytest.mark.long  # until a worker that is silent is replaced
def test_a_worker_that_stands_still_holds_nobody_up(server: ServerProcess, folder: Path) -> None:
    """A bundle becomes active although one worker is stopped, and that one is replaced."""
    stopped = workers_of(server)[3]
    write_folder(folder / "policies", notes_bundle("one"))

    with ExitStack() as clients:
        # One worker is to reload that is not the one that stands still.
        admins = [clients.enter_context(server.client(Role.ADMIN, management_timeout=20.0)) for _ in range(CONNECTIONS)]
        for admin in admins:
            admin.get_bundle()
        os.kill(stopped, signal.SIGSTOP)
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            done = [one.result() for one in [threads.submit(reloaded, admin) for admin in admins]]
    wait_until(lambda: 3 in workers_of(server) and stopped != workers_of(server)[3], seconds=PATIENCE)

    assert True in done
    assert {True} == {runs(server, notes_bundle("one")) for _ in range(CONNECTIONS)}
