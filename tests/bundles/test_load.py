"""Reloads and rollbacks under load: no call is dropped, and every answer is right for the version that it names."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import NamedTuple

import pytest

from pdp.client import Answer, Client
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import RunningServer, running_server
from pdp.testing.waiting import wait_until

THREADS = 4
SWITCHES = 12
PATIENCE = 60.0
PERMIT = '@id("files/everything") permit (principal, action, resource);'
FORBID = '@id("guardrails/nothing") forbid (principal, action == Action::"files/read", resource);'


def files(*, allowed: bool) -> dict[str, bytes]:
    """Return one of two bundles: one allows everything, the other one nothing."""
    return bundle_files(
        policies={"files": PERMIT, "guardrails": "" if allowed else FORBID},
        tools={"files": [tool("read", {"path": {"type": "string"}}, ["path"])]},
        directory="users: {alice: {}}\nagents: {worker: {ceiling: ['files/*']}}",
    )


class Asked(NamedTuple):
    """One answer, with the last switch that was acknowledged before, and the last that had begun afterwards."""

    done: int
    begun: int
    answer: Answer


class Load:
    """Threads that ask without pause. `pauses` holds each time that a client wanted to wait and try again."""

    def __init__(self, server: RunningServer, handle: str) -> None:
        self._server = server
        self._handle = handle
        self._enough = threading.Event()
        self.begun = 0
        self.done = 0
        self.pauses: list[float] = []
        self.asked: list[Asked] = []

    def ask(self, name: int) -> None:
        """Ask, about the same file and about ever new ones, until it is enough."""
        token = self._server.token("pep")
        with Client(
            self._server.address, token=token, timeout=PATIENCE, sleep=self.pauses.append, plaintext=True
        ) as client:
            session = client.attach(self._handle)
            for number in count():
                if self._enough.is_set():
                    return
                done = self.done
                path = "/always" if number % 2 else f"/{name}/{number}"
                answer = session.authorize("files", "read", {"path": path})
                self.asked.append(Asked(done, self.begun, answer))

    def settle(self) -> None:
        """Wait until the threads have asked some times more."""
        wanted = len(self.asked) + 3 * THREADS
        wait_until(lambda: len(self.asked) >= wanted)

    def stop(self) -> None:
        """Ask no more."""
        self._enough.set()


@pytest.fixture
def server() -> Iterator[RunningServer]:
    """Serve the bundle that allows everything."""
    with running_server(files(allowed=True)) as running:
        yield running


def open_session(server: RunningServer) -> str:
    """Return the handle of an approved session."""
    opened = server.client("pep").request_session(user="alice", agent="worker", purpose="to read", tools=["files/*"])
    server.client("approver").approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
    return str(opened.session_handle)


@pytest.mark.parametrize("way", ["reload", "rollback"])
def test_changing_bundles_under_load(server: RunningServer, way: str) -> None:
    """No call is dropped or told to wait; each is answered by a version that was active meanwhile, and rightly."""
    author = server.client("author")
    allowing = author.get_bundle().bundle.version
    server.write_policies(files(allowed=False))
    denying = author.reload_bundle().bundle.version
    right = {allowing: ("permit", ("files/everything",)), denying: ("forbid", ("guardrails/nothing",))}
    # What is active after each switch.
    active = [denying, *([allowing, denying] * (SWITCHES // 2))]
    load = Load(server, open_session(server))

    with ThreadPoolExecutor(THREADS) as threads:
        asking = [threads.submit(load.ask, name) for name in range(THREADS)]
        try:
            for switch in range(1, SWITCHES + 1):
                load.settle()
                server.write_policies(files(allowed=active[switch] == allowing))
                load.begun = switch
                done = author.reload_bundle() if way == "reload" else author.activate_bundle(active[switch])
                load.done = switch
                assert (True, active[switch]) == (done.changed, done.bundle.version)
            load.settle()
        finally:
            load.stop()
        for one in asking:
            one.result(PATIENCE)

    answers = [one.answer for one in load.asked]
    assert [] == [answer for answer in answers if answer.error] + load.pauses
    assert [] == [answer for answer in answers if right[answer.bundle_version] != (answer.basis, answer.policies)]
    assert [] == [one for one in load.asked if one.answer.bundle_version not in active[one.done : one.begun + 1]]
    assert {allowing, denying} == {one.answer.bundle_version for one in load.asked if one.done == one.begun}
