"""As many idle streams as a caller may have, and one more: calls stay healthy, and the one more is refused."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest

from pdp.client import AuthorizationStream, Client, ClientSession
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Role
from pdp.testing.inprocess import write_folder
from pdp.v1.authorization_pb2_grpc import AuthorizationServiceStub
from tests.machinery.servers.notes import READ, notes_bundle
from tests.machinery.servers.server_process import PATIENCE, Callers, ServerProcess

BOUND = 16
CALLS = 200
NOTE = {"name": "shopping"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Return a server with default limits."""
    folder = tmp_path_factory.mktemp("streams")
    write_folder(folder / "policies", notes_bundle())
    with ServerProcess(folder) as running:
        yield running


@pytest.fixture
def callers(server: ServerProcess) -> Iterator[Callers]:
    """Return the callers of the server."""
    with Callers.of(server) as clients:
        yield clients


@pytest.fixture
def session(callers: Callers) -> ClientSession:
    """Return an approved session."""
    opened = callers.pep.request_session(user="alice", agent="coder", purpose="keep notes", tools=("notes/*",))
    callers.approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
    return callers.pep.attach(opened.session_handle, session_id=opened.session.session_id)


def test_the_default_is_what_is_tested() -> None:
    """The server takes 32 streams by default, and of one caller half of them."""
    assert BOUND == DEFAULT_LIMITS.streams // 2


def test_silent_streams_starve_nobody(server: ServerProcess, session: ClientSession) -> None:
    """Of 17 streams on which nothing is ever said one is refused; while 16 stay open all calls are answered."""
    with silent_streams(server, BOUND + 1) as (streams, refused):
        first = refused.get(timeout=PATIENCE)
        allowed = allowed_at_once(session)
        still_open = sum(stream.is_active() for stream in streams)

    # Which one is for gRPC to say: those that wait for the connection begin in no order of their own.
    assert first in streams
    assert grpc.StatusCode.RESOURCE_EXHAUSTED == first.code()
    assert BOUND == still_open
    assert CALLS == allowed


def test_the_client_is_told_and_denies(callers: Callers, session: ClientSession) -> None:
    """Of 17 streams of the client library the last one denies with the reason, and the others go on."""
    with ExitStack() as opened:
        freed = opened.enter_context(ExitStack())
        streams = [freed.enter_context(working_stream(callers.pep, session))]
        streams += [opened.enter_context(working_stream(callers.pep, session)) for _ in range(BOUND - 1)]
        with callers.pep.stream() as last:
            refused = [last.authorize(session.handle, "notes", READ, NOTE) for _ in range(2)]
        allowed = allowed_at_once(session)
        served = [stream.authorize(session.handle, "notes", READ, NOTE) for stream in streams]

        freed.close()
        with working_stream(callers.pep, session) as another:
            answer = another.authorize(session.handle, "notes", READ, NOTE)

    assert not any(refused)
    assert all(one.error.startswith("resource_exhausted: ") for one in refused)
    assert CALLS == allowed
    assert all(served)
    # A stream that ended makes room for another one.
    assert answer.allowed


@contextmanager
def silent_streams(server: ServerProcess, count: int) -> Iterator[tuple[list[Any], queue.SimpleQueue[Any]]]:
    """Open streams on which nothing is said; yield them, and a queue of those that the server ends."""
    over, ended = threading.Event(), queue.SimpleQueue[Any]()
    token = server.token(Role.PEP)
    with server.channel() as channel:
        stub = AuthorizationServiceStub(channel)  # type: ignore[no-untyped-call]  # generated without types
        streams = [
            stub.AuthorizeStream(nothing_until(over), metadata=(("authorization", f"Bearer {token}"),))
            for _ in range(count)
        ]
        for stream in streams:
            stream.add_done_callback(ended.put)
        try:
            yield streams, ended
        finally:
            over.set()
            for stream in streams:
                stream.cancel()


def nothing_until(over: threading.Event) -> Iterator[Any]:
    """Send nothing, and end when it is over."""
    over.wait()
    yield from ()


@contextmanager
def working_stream(client: Client, session: ClientSession) -> Iterator[AuthorizationStream]:
    """Open a stream that has answered once: the server may need a moment to notice that another one has ended."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with client.stream() as stream:
            answer = stream.authorize(session.handle, "notes", READ, NOTE)
            if answer or time.monotonic() >= deadline:
                assert answer.allowed, answer.error
                yield stream
                return


def allowed_at_once(session: ClientSession) -> int:
    """Ask about many calls from several threads, and return how many were allowed."""
    with ThreadPoolExecutor(max_workers=8) as threads:
        answers = threads.map(lambda _: session.authorize("notes", READ, NOTE), range(CALLS))
        return sum(answer.allowed for answer in answers)
