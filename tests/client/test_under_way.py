"""Calls that are under way stop when their session is over, in both clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pdp.client import Answer, AsyncClient, Client, InvalidRequestError, NotFoundError, ToolCallStopped, threads
from pdp.client.aio.underway import AsyncCallsUnderWay, AsyncCallUnderWay
from pdp.client.errors import UnavailableError
from pdp.client.following import Followed, Known
from pdp.client.tasks import Feed, Stopping
from pdp.identity.callersfile import write_token
from pdp.model import AT_EACH_CALL, Caller, Outcome, Role
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import ONE_OF_EACH_ROLE, RunningServer, running_server
from pdp.testing.waiting import wait_until
from pdp.v1.session_pb2 import (
    SESSION_STATE_ACTIVE,
    SESSION_STATE_EXPIRED,
    SESSION_STATE_REQUESTED,
    SESSION_STATE_REVOKED,
    Session,
    SessionChange,
    SessionState,
    WatchSessionsResponse,
)
from tests.machinery.pages import blocks
from tests.machinery.servers.running import PATIENCE

OTHER = Caller(id="other", kind="token", roles=frozenset({Role.PEP}), authenticated_at=AT_EACH_CALL)
FILES = bundle_files(
    policies={"git": '@id("git/all") permit (principal, action, resource);'},
    tools={"git": [tool("commit"), tool("log")]},
    overlays={"git": "risk: mutating"},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['git/*']}}}",
)


@pytest.fixture(autouse=True)
def _read_however_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have clients wait for what they read of a session: on a busy machine the product's time can pass."""
    for client in ("aio", "sync"):
        monkeypatch.setattr(f"pdp.client.{client}.underway._READ_SECONDS", PATIENCE)


@pytest.fixture
def server() -> Iterator[RunningServer]:
    """Return a running server with two gateways."""
    with running_server(FILES, callers=(*ONE_OF_EACH_ROLE, OTHER)) as running:
        yield running


def allowed(server: RunningServer) -> tuple[Answer, str]:
    """Open a session and ask about a call in it; return the answer and the handle."""
    opened = server.client("pep").request_session(user="alice", agent="coder", purpose="p", tools=("git/*",))
    shown = opened.session
    server.client("approver").approve_session(shown.session_id, request_digest=shown.request_digest)
    answer = server.client("pep").authorize(opened.session_handle, "git", "log")
    assert answer.allowed
    return answer, opened.session_handle


def revoked(server: RunningServer, session_id: str, _: str) -> None:
    """Revoke it."""
    server.client("approver").revoke_sessions(session_id=session_id, reason="enough")


def ended(server: RunningServer, _: str, handle: str) -> None:
    """End it."""
    server.client("pep").end_session(handle)


def frozen(server: RunningServer, _: str, __: str) -> None:
    """Freeze its tenant."""
    server.client("admin").set_freeze(tenant="default", reason="enough")


Deed = Callable[[RunningServer, str, str], None]
DEEDS = pytest.mark.parametrize(
    ("deed", "why"),
    [
        (revoked, "its session is revoked"),
        (ended, "its session is ended"),
        (frozen, "people have stopped all calls for now"),
    ],
)


@DEEDS
def test_a_thread_is_told_to_stop(server: RunningServer, deed: Deed, why: str) -> None:
    """By `stop`; and what its call has brought is not handed on."""
    answer, handle = allowed(server)
    told = Event()

    def make() -> None:
        with server.client("pep").under_way(answer) as call:
            call.on_stop(told.set)
            deed(server, answer.session_id, handle)
            assert told.wait(PATIENCE)

    with pytest.raises(ToolCallStopped, match=f"`git/log` was stopped: {why}") as stopped:
        make()
    assert (answer, why) == (stopped.value.answer, stopped.value.why)


@DEEDS
def test_a_task_is_cancelled(server: RunningServer, deed: Deed, why: str) -> None:
    """At the point where it waits; the task itself goes on."""
    answer, handle = allowed(server)

    async def make() -> str:
        async with AsyncClient(server.address, token=server.token("pep"), plaintext=True) as client:
            try:
                async with client.under_way(answer), asyncio.timeout(PATIENCE):
                    await asyncio.to_thread(deed, server, answer.session_id, handle)
                    await asyncio.Event().wait()
            except ToolCallStopped as stopped:
                await asyncio.sleep(0)
                return stopped.why
        return ""

    assert why == asyncio.run(make())


def test_a_client_is_closed_however_often_its_task_is_cancelled(server: RunningServer) -> None:
    """As a scope of anyio does it, each time that the task waits, also for the end of the watch."""
    answer, handle = allowed(server)

    async def run() -> Answer:
        client = AsyncClient(server.address, token=server.token("pep"), plaintext=True)
        inside = asyncio.Event()

        async def hold() -> None:
            async with client, client.under_way(answer):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(hold())
        await asyncio.wait_for(inside.wait(), PATIENCE)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        return await client.authorize(handle, "git", "log")

    assert "closed" in asyncio.run(run()).error


@pytest.mark.parametrize("stopping", [Stopping, threads.Stopping])
def test_what_is_set_too_late_is_called_at_once(stopping: type[Stopping | threads.Stopping]) -> None:
    """Such as the end of a process that was started meanwhile."""
    told: list[str] = []
    one = stopping()
    one.stop()
    one.set(lambda: told.append("stop"))

    assert ["stop"] == told


@pytest.mark.parametrize("raised", [RuntimeError, SystemExit])
def test_what_a_gateway_raises_stops_no_thread_of_the_client(raised: type[BaseException]) -> None:
    """`sys.exit()` would end only the thread that has other calls stop as well."""

    def stop() -> None:
        raise raised

    stopping = threads.Stopping()
    stopping.set(stop)

    stopping.stop()


def test_a_call_that_ends_before_is_not_stopped(server: RunningServer) -> None:
    """Nor is one whose session only has fewer tools, and other sessions do not matter."""
    (answer, _), (other, _) = allowed(server), allowed(server)
    client, approver = server.client("pep"), server.client("approver")
    told = Event()

    def make_the_other() -> None:
        with client.under_way(other) as call:
            call.on_stop(told.set)
            approver.narrow_session(answer.session_id, tools=("git/commit",))
            approver.revoke_sessions(session_id=other.session_id, reason="enough")
            assert told.wait(PATIENCE)

    with client.under_way(answer) as call:
        with pytest.raises(ToolCallStopped):
            make_the_other()
        assert "" == call.why


def test_a_session_that_is_over_begins_no_call(server: RunningServer) -> None:
    """The tool is not called any more."""
    answer, handle = allowed(server)
    ended(server, "", handle)

    with pytest.raises(ToolCallStopped, match="its session is ended"), server.client("pep").under_way(answer):
        pytest.fail("the tool was called")


def test_who_is_not_told_of_a_session_cannot_follow_its_calls(server: RunningServer) -> None:
    """Another gateway has opened it: this is said before the tool is called, and not when it is too late."""
    answer, _ = allowed(server)

    with pytest.raises(NotFoundError), server.client("other").under_way(answer):
        pytest.fail("the tool was called")


def test_only_an_allowed_call_is_under_way(server: RunningServer) -> None:
    """A deny has nothing to stop."""
    denied = server.client("pep").authorize("pdps_unknown", "git", "log")

    with pytest.raises(InvalidRequestError):
        server.client("pep").under_way(denied)


def test_the_page_does_what_it_says(
    server: RunningServer, project_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its programs run as they are shown: a process and a task are stopped, and a narrowing counts."""
    monkeypatch.setenv("PDP_ADDRESS", server.address)
    monkeypatch.setattr("pdp.client.Client", partial(Client, plaintext=True))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".pdp" / "tokens").mkdir(parents=True)
    for role in ("pep", "approver"):
        write_token(tmp_path / ".pdp" / "tokens" / f"{role}.token", server.token(role))
    page, told = project_root / "pdp" / "client" / "README.md", dict[str, Any]()
    for kind in ("python stopping", "python cancelling", "python insisting"):
        (text,) = blocks(page, kind)
        exec(text, told)  # noqa: S102 - our own page
    (answer, handle), (narrowed, other) = allowed(server), allowed(server)
    started = tmp_path / "started"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(told["run"], handle, "log", ["sh", "-c", f"touch {started}; exec sleep 600"])
        wait_until(started.exists)
        revoked(server, answer.session_id, "")
        stopped = running.result(PATIENCE)
    insisted = told["narrow_and_ask"](".pdp/tokens/approver.token", other, narrowed.session_id)

    async def cancel() -> str:
        async with AsyncClient(server.address, token=server.token("pep"), plaintext=True) as client:

            async def run() -> None:
                await asyncio.to_thread(revoked, server, narrowed.session_id, "")
                await asyncio.Event().wait()

            return str(await told["call"](client.attach(other), "log", run))

    assert ["the call of `git/log` was stopped: its session is revoked"] * 2 == [stopped, asyncio.run(cancel())]
    assert "out_of_scope" == insisted


# Without a server


ANSWER = Answer(outcome=Outcome.ALLOW, basis="permit", server="git", tool="log", request_id="r", session_id="ses_1")
ACTIVE = Session(session_id="ses_1", state=SESSION_STATE_ACTIVE, epoch=2, tenant="t")


@dataclass(eq=False)
class Server:
    """What a client is told: feeds that a test fills, and what a reading finds."""

    now: float = 100.0
    found: Session | None = field(default_factory=lambda: ACTIVE)
    begun: list[str] = field(default_factory=list)
    feeds: list[asyncio.Queue[WatchSessionsResponse | None]] = field(default_factory=list)

    def begin(self, revision: str) -> Feed:
        """Open a watch."""
        self.begun.append(revision)
        self.feeds.append(asyncio.Queue())
        return cast("Feed", _Feed(self.feeds[-1]))

    async def read(self, _: str, __: float) -> Session:
        """Read the session."""
        if self.found is None:
            raise UnavailableError("away")
        return self.found

    @asynccontextmanager
    async def following(self) -> AsyncIterator[AsyncCallsUnderWay]:
        """Return the calls of a client of this server."""
        calls = AsyncCallsUnderWay(self.begin, self.read, clock=lambda: self.now, wall=lambda: self.now)
        try:
            yield calls
        finally:
            await calls.close()


@dataclass(eq=False)
class _Feed:
    messages: asyncio.Queue[WatchSessionsResponse | None]

    async def next(self) -> WatchSessionsResponse | None:
        return await self.messages.get()

    def cancel(self) -> None:
        """Nothing is open."""


def call_of(calls: AsyncCallsUnderWay, unheard: float | None = None) -> AsyncCallUnderWay:
    """Return a call that notes that it must stop."""
    call = AsyncCallUnderWay(calls, ANSWER, Stopping(), unheard)
    call.on_stop(lambda: None)
    return call


async def settled() -> None:
    """Let the tasks of a client have their turns."""
    for _ in range(20):
        await asyncio.sleep(0)


def told(revision: str, *changes: SessionChange, **more: Any) -> WatchSessionsResponse:
    """Return a message of a watch."""
    return WatchSessionsResponse(revision=revision, changes=changes, **more)


def test_a_watch_that_ends_is_opened_again_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never began, at the beginning. What a broken watch cannot tell is read."""
    monkeypatch.setattr("pdp.client.aio.underway._REOPEN_SECONDS", 0.0)

    async def follow() -> tuple[list[str], str]:
        server = Server()
        async with server.following() as calls:
            call = call_of(calls)
            await calls.enter(call)
            await settled()
            server.feeds[-1].put_nowait(told("one"))
            server.feeds[-1].put_nowait(None)
            await _until(lambda: len(server.feeds) == 2)
            server.feeds[-1].put_nowait(None)
            await _until(lambda: len(server.feeds) == 3)
            server.found = Session(session_id="ses_1", state=SESSION_STATE_REVOKED, epoch=3, tenant="t")
            server.feeds[-1].put_nowait(None)
            await _until(lambda: bool(call.why))
            return server.begun[:3], call.why

    assert (["", "one", ""], "its session is revoked") == asyncio.run(follow())


@pytest.mark.parametrize("messages", [[told("one")], [told("one"), told("two", reset=True)]], ids=["first", "reset"])
def test_what_a_watch_may_not_have_told_is_read(messages: list[WatchSessionsResponse]) -> None:
    """What happened before its first message, and what a reset leaves out."""

    async def follow() -> str:
        server = Server()
        async with server.following() as calls:
            call = call_of(calls)
            await calls.enter(call)
            await settled()
            for message in messages[:-1]:
                server.feeds[-1].put_nowait(message)
                await settled()
            server.found = Session(session_id="ses_1", state=SESSION_STATE_REVOKED, epoch=3, tenant="t")
            server.feeds[-1].put_nowait(messages[-1])
            await settled()
            return call.why

    assert "its session is revoked" == asyncio.run(follow())


def test_what_was_read_before_a_watch_begins_is_read_again() -> None:
    """A session can be over between the two, of which neither tells."""

    async def follow() -> str:
        server, go_on = Server(), asyncio.Event()

        async def read(_: str, __: float) -> Session:
            found = await server.read(_, __)
            await go_on.wait()
            return found

        calls = AsyncCallsUnderWay(server.begin, read, clock=lambda: server.now, wall=lambda: server.now)
        call = call_of(calls)
        entering = asyncio.ensure_future(calls.enter(call))
        await settled()
        server.found = Session(session_id="ses_1", state=SESSION_STATE_REVOKED, epoch=3, tenant="t")
        server.feeds[-1].put_nowait(told("one"))
        await settled()
        go_on.set()
        await entering
        await settled()
        await calls.close()
        return call.why

    assert "its session is revoked" == asyncio.run(follow())


def test_calls_of_any_number_of_sessions_stop_together() -> None:
    """Also of more than are known while they have no calls."""
    answers = [replace(ANSWER, session_id=f"ses_{number}") for number in range(1100)]
    revoked_ones = [SessionChange(session_id=one.session_id, state=SESSION_STATE_REVOKED, epoch=3) for one in answers]

    async def follow() -> int:
        server = Server(found=None)
        async with server.following() as calls:
            under_way = [AsyncCallUnderWay(calls, answer, Stopping(), None) for answer in answers]
            for call in under_way:
                call.on_stop(lambda: None)
                await calls.enter(call)
            await settled()
            server.feeds[-1].put_nowait(told("one", *revoked_ones))
            await settled()
            return sum(bool(call.why) for call in under_way)

    assert len(answers) == asyncio.run(follow())


def test_what_is_known_of_sessions_without_calls_is_bounded() -> None:
    """Those go first of which nothing was told for longest."""
    followed = Followed()
    for number in range(1100):
        followed.note(f"ses_{number}", Known.of(ACTIVE))
    followed.keep({"ses_0"})

    assert [False, True, False] == [followed.must_be_read(f"ses_{number}", 1.0) for number in (0, 1, 1099)]
    assert 1024 == sum(not followed.must_be_read(f"ses_{number}", 1.0) for number in range(1100))


@pytest.mark.parametrize(
    ("age", "later", "expected"),
    [(0.0, 4.0, ""), (0.0, 5.5, "nothing was heard of its session for 5 s"), (4.0, 2.0, "nothing was heard")],
    ids=["heard of lately", "silent", "the news are old"],
)
def test_a_call_stops_when_nothing_can_be_known(age: float, later: float, expected: str) -> None:
    """Only if that was asked for: for as long as it says, the age of the news included."""

    async def follow() -> tuple[str, str]:
        server = Server()
        async with server.following() as calls:
            strict, lenient = call_of(calls, 5.0), call_of(calls)
            await calls.enter(strict)
            await settled()
            server.feeds[-1].put_nowait(told("one", age=Duration(seconds=int(age))))
            await settled()
            server.now += later
            server.found = None
            await calls.enter(lenient)
            await settled()
            return strict.why, lenient.why

    strict, lenient = asyncio.run(follow())
    assert strict.startswith(expected)
    assert (bool(expected), "") == (bool(strict), lenient)


def test_a_caller_that_is_cancelled_is_cancelled() -> None:
    """It is not told that its call was stopped."""

    async def follow() -> bool:
        server = Server()
        async with server.following() as calls:

            async def make() -> None:
                async with AsyncCallUnderWay(calls, ANSWER, Stopping(), None):
                    await asyncio.Event().wait()

            task = asyncio.ensure_future(make())
            await settled()
            task.cancel()
            await asyncio.wait([task])
            return task.cancelled()

    assert asyncio.run(follow())


def changed(epoch: int, state: SessionState = SESSION_STATE_ACTIVE, ends_at: int = 200) -> SessionChange:
    """Return a message about a session."""
    return SessionChange(session_id="ses_1", state=state, epoch=epoch, expire_time=Timestamp(seconds=ends_at))


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        pytest.param([], "", id="nothing is known"),
        pytest.param([changed(2)], "", id="active"),
        pytest.param([changed(1, SESSION_STATE_REQUESTED)], "", id="news from before the call was allowed"),
        pytest.param([changed(2), changed(3, SESSION_STATE_REVOKED)], "its session is revoked", id="revoked"),
        pytest.param([changed(3, SESSION_STATE_REVOKED), changed(2)], "its session is revoked", id="old news"),
        pytest.param([changed(2, cast("Any", 99))], "its session is unknown", id="a state of a later server"),
    ],
)
def test_what_is_known_last_counts(notes: list[SessionChange], expected: str) -> None:
    """By the epoch, in whatever order it came."""
    followed = Followed()
    for one in notes:
        followed.note(one.session_id, Known.of(one))

    assert expected == followed.why_over("ses_1")


def test_a_session_is_frozen_by_its_tenant() -> None:
    """Which only a reading tells: until then it must be read."""
    followed = Followed()
    followed.take(told("one", changed(2), frozen_tenants=["t"]))
    before = followed.must_be_read("ses_1", 150.0), followed.why_over("ses_1")
    followed.note("ses_1", Known.of(ACTIVE))

    assert (True, "") == before
    assert not followed.must_be_read("ses_1", 150.0)
    assert "people have stopped all calls for now" == followed.why_over("ses_1")


def test_a_session_is_read_when_it_should_have_expired() -> None:
    """Its server knows the time; until it says so, the session is asked about again."""
    followed = Followed()
    followed.note("ses_1", Known.of(ACTIVE))
    followed.take(told("one", changed(3)))
    must = [followed.must_be_read("ses_1", now) for now in (199.0, 200.0)]
    followed.take(told("two", changed(4, SESSION_STATE_EXPIRED)))

    assert [False, True] == must
    assert (False, "its session is expired") == (followed.must_be_read("ses_1", 200.0), followed.why_over("ses_1"))


async def _until(true: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, true)


def test_the_names_of_both_clients_are_one() -> None:
    """What is generated takes the same arguments."""
    assert Client.under_way.__annotations__.keys() == AsyncClient.under_way.__annotations__.keys()
