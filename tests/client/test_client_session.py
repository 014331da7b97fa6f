"""A held session is approved before it is used and over after it, and guards the functions of an agent."""

from __future__ import annotations

import _thread
import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import anyio
import grpc
import pytest

from pdp.client import (
    AsyncClient,
    Client,
    NotFoundError,
    PDPClientError,
    SessionNotApprovedError,
    ToolCall,
    ToolCallDenied,
    UnavailableError,
    tasks,
    threads,
)
from pdp.v1 import decision_pb2, session_pb2
from pdp.v1.decision_pb2 import Decision
from pdp.v1.session_pb2 import Session
from tests.machinery.servers.running import PATIENCE

if TYPE_CHECKING:
    from tests.machinery.servers.scripted import ScriptedServer

CONDITION = threading.Condition
WANTED: dict[str, Any] = {"user": "alice", "agent": "coder", "purpose": "fix", "tools": ["files/*"]}


class Life:
    """The life of one session on a scripted server, and time that passes only in `sleep`."""

    def __init__(self, server: ScriptedServer, *states: int) -> None:
        self.states = list(states) or [session_pb2.SESSION_STATE_ACTIVE]
        self.now = 0.0
        self.announced: list[str] = []
        server.scripts["RequestSession"] = lambda _, __: session_pb2.RequestSessionResponse(
            session=self._session(), session_handle="pdps_secret"
        )
        server.scripts["GetSession"] = lambda _, __: session_pb2.GetSessionResponse(session=self._session())
        server.scripts["EndSession"] = lambda _, __: session_pb2.EndSessionResponse()

    def _session(self) -> Session:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return Session(session_id="ses_1", state=state, reason="no" * (state == 3))  # type: ignore[arg-type]  # a number

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def announce(self, session: Session) -> None:
        """Take note of a session that waits."""
        self.announced.append(session.session_id)


def _hold(address: str, life: Life, body: Callable[[Any], Any], **options: Any) -> Any:
    with (
        Client(address, clock=lambda: life.now, sleep=life.sleep) as client,
        client.session(**WANTED, announce=life.announce, **options) as session,
    ):
        return body(session)


def _hold_async(address: str, life: Life, body: Callable[[Any], Any], **options: Any) -> Any:
    async def run() -> Any:
        async with (
            AsyncClient(address, clock=lambda: life.now, sleep=life.sleep_async) as client,
            client.session(**WANTED, announce=life.announce, **options) as session,
        ):
            result = body(session)
            return await result if hasattr(result, "__await__") else result

    return asyncio.run(run())


Hold = Callable[..., Any]
both = pytest.mark.parametrize("hold", [_hold, _hold_async], ids=["sync", "async"])
REQUESTED, ACTIVE = session_pb2.SESSION_STATE_REQUESTED, session_pb2.SESSION_STATE_ACTIVE


class OutOfTimeError(Exception):
    """What the handler of a signal raises for a task that takes too long, in workers of queues."""


@contextmanager
def interrupted_by(kind: type[BaseException]) -> Iterator[None]:
    """Expect that a signal raises an error, also where the tests run in the background."""

    def handle(*_: object) -> None:
        raise kind

    before = signal.signal(signal.SIGINT, handle)
    try:
        with pytest.raises(kind):
            yield
    finally:
        signal.signal(signal.SIGINT, before)


by_signal = pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, OutOfTimeError])


def _methods(server: ScriptedServer) -> list[str]:
    return [name for name, _ in server.requests]


@both
def test_a_session_is_asked_for_used_and_ended(server: ScriptedServer, address: str, hold: Hold) -> None:
    """A session that lives at once is used without waiting and ended on the way out."""
    life = Life(server)

    answer = hold(address, life, lambda session: session.authorize("files", "read", {"path": "/a"}))

    assert answer.allowed
    assert _methods(server) == ["RequestSession", "Authorize", "EndSession"]
    assert server.sent("Authorize")[0].call.session_handle == "pdps_secret"
    assert server.sent("EndSession")[0].session_handle == "pdps_secret"
    assert (life.announced, life.now) == ([], 0.0)


@both
def test_a_held_session_has_terms(server: ScriptedServer, address: str, hold: Hold) -> None:
    """They go with the request; bytes go as they are, so that a decimal keeps its digits."""
    hold(address, Life(server), lambda _: None, terms={"ticket": "OPS-1"})
    hold(address, Life(server), lambda _: None, terms=b'{"max_sum": 922337203685477.5807}')

    assert [b'{"ticket":"OPS-1"}', b'{"max_sum": 922337203685477.5807}'] == [
        request.terms_json for request in server.sent("RequestSession")
    ]


@both
def test_a_session_waits_for_its_approval(server: ScriptedServer, address: str, hold: Hold) -> None:
    """The session is announced once and looked at after each pause, until it lives."""
    life = Life(server, REQUESTED, REQUESTED, REQUESTED, ACTIVE)

    hold(address, life, lambda session: session.authorize("files", "read"), poll=2.0)

    assert life.announced == ["ses_1"]
    assert life.now == 6.0
    assert _methods(server) == ["RequestSession", *["GetSession"] * 3, "Authorize", "EndSession"]


@both
def test_a_session_that_nobody_approves_is_given_up(server: ScriptedServer, address: str, hold: Hold) -> None:
    """After `wait` the request is ended and the body never runs."""
    life = Life(server, REQUESTED)

    with pytest.raises(SessionNotApprovedError, match="not approved within 5 s"):
        hold(address, life, lambda session: session.authorize("files", "read"), wait=5.0, poll=2.0)

    assert life.now == 5.0
    assert _methods(server) == ["RequestSession", *["GetSession"] * 3, "EndSession"]


@both
@pytest.mark.parametrize(
    ("state", "text"),
    [
        (session_pb2.SESSION_STATE_DENIED, "is denied: no"),
        (session_pb2.SESSION_STATE_ENDED, "is ended"),
        (session_pb2.SESSION_STATE_EXPIRED, "is expired"),
        (session_pb2.SESSION_STATE_REVOKED, "is revoked"),
        (session_pb2.SESSION_STATE_UNSPECIFIED, "is unspecified"),
        (77, "is unknown"),
    ],
)
def test_a_session_that_will_not_live_is_an_error(
    server: ScriptedServer, address: str, hold: Hold, state: int, text: str
) -> None:
    """Any state but waiting and living ends the wait at once."""
    life = Life(server, REQUESTED, state)

    with pytest.raises(SessionNotApprovedError, match=text):
        hold(address, life, lambda session: session.authorize("files", "read"))

    assert "Authorize" not in _methods(server)


@both
@pytest.mark.parametrize(
    "reply",
    [
        session_pb2.RequestSessionResponse(),
        session_pb2.RequestSessionResponse(session=Session(session_id="ses_1", state=ACTIVE)),
        session_pb2.RequestSessionResponse(session=Session(state=ACTIVE), session_handle="pdps_secret"),
    ],
    ids=["empty", "no handle", "no id"],
)
def test_a_reply_without_a_session_is_an_error(server: ScriptedServer, address: str, hold: Hold, reply: Any) -> None:
    """Without handle or id there is nothing to hold."""
    life = Life(server)
    server.scripts["RequestSession"] = lambda _, __: reply

    with pytest.raises(PDPClientError, match="returned no session"):
        hold(address, life, lambda session: session.authorize("files", "read"))


@both
def test_a_server_that_is_away_for_a_moment_has_refused_nothing(
    server: ScriptedServer, address: str, hold: Hold
) -> None:
    """While it waits, the client looks again after a server that could not answer."""
    life = Life(server, REQUESTED, ACTIVE)
    look, away = server.scripts["GetSession"], [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED]
    server.scripts["GetSession"] = lambda request, context: (
        context.abort(away.pop(), "") if away else look(request, context)
    )

    answer = hold(address, life, lambda session: session.authorize("files", "read"), poll=1.0)

    assert (answer.allowed, life.now) == (True, 3.0)


@both
def test_a_failing_body_ends_the_session_too(server: ScriptedServer, address: str, hold: Hold) -> None:
    """The body's exception passes through, after the session was ended."""
    life = Life(server)

    with pytest.raises(ZeroDivisionError):
        hold(address, life, lambda _: 1 / 0)

    assert _methods(server) == ["RequestSession", "EndSession"]


def test_a_cancelled_task_ends_its_session(server: ScriptedServer, address: str) -> None:
    """Cancelling the task that holds a session ends the session before the task is gone."""
    Life(server)

    async def run() -> None:
        inside = asyncio.Event()

        async def hold() -> None:
            async with AsyncClient(address) as client, client.session(**WANTED):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(hold())
        await asyncio.wait_for(inside.wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())

    assert _methods(server) == ["RequestSession", "EndSession"]


@pytest.mark.parametrize("ends", [True, False])
def test_a_task_that_is_cancelled_again_and_again_ends_its_session(
    server: ScriptedServer, address: str, *, ends: bool
) -> None:
    """As a scope of anyio does it, each time that the task waits."""
    Life(server)
    if not ends:
        server.scripts["EndSession"] = lambda _, context: context.abort(grpc.StatusCode.INTERNAL, "broken")

    async def run() -> None:
        inside = asyncio.Event()

        async def hold(client: AsyncClient) -> None:
            async with client.session(**WANTED):
                inside.set()
                await asyncio.Event().wait()

        async with AsyncClient(address) as client:
            task = asyncio.create_task(hold(client))
            await asyncio.wait_for(inside.wait(), PATIENCE)
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
            assert task.cancelled()

    asyncio.run(run())

    assert _methods(server) == ["RequestSession", "EndSession"]


@pytest.mark.parametrize("insisting", [False, True])
def test_a_request_of_a_task_that_is_cancelled_is_withdrawn(
    server: ScriptedServer, address: str, *, insisting: bool
) -> None:
    """A person could approve it, and nobody would hold the session."""
    Life(server)
    asked, answers, answer = threading.Event(), threading.Event(), server.scripts["RequestSession"]

    def late(request: Any, context: Any) -> Any:
        asked.set()
        answers.wait(PATIENCE)
        return answer(request, context)

    server.scripts["RequestSession"] = late

    async def run() -> None:
        async with AsyncClient(address) as client:
            task = asyncio.create_task(client.request_session(**WANTED))
            await asyncio.to_thread(asked.wait, PATIENCE)
            task.cancel()
            await asyncio.sleep(0)
            answers.set()
            while not task.done():
                if insisting:
                    task.cancel()
                await asyncio.sleep(0)
            assert task.cancelled()

    asyncio.run(run())

    assert _methods(server) == ["RequestSession", "EndSession"]
    assert server.sent("EndSession")[0].session_handle == "pdps_secret"


@by_signal
def test_a_request_of_a_thread_that_is_interrupted_is_withdrawn(
    server: ScriptedServer, address: str, kind: type[BaseException]
) -> None:
    """By Ctrl+C, or by what else the handler of a signal raises."""
    Life(server)
    answer = server.scripts["RequestSession"]

    def interrupt(request: Any, context: Any) -> Any:
        _thread.interrupt_main()
        return answer(request, context)

    server.scripts["RequestSession"] = interrupt
    with Client(address) as client, interrupted_by(kind):
        client.request_session(**WANTED)

    assert _methods(server) == ["RequestSession", "EndSession"]
    assert server.sent("EndSession")[0].session_handle == "pdps_secret"


def test_a_request_without_an_answer_holds_up_no_interrupt(
    server: ScriptedServer, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Withdrawing is bounded in time."""
    monkeypatch.setattr(threads, "_UNDO_SECONDS", 0.1)

    def hang(*_: Any) -> session_pb2.RequestSessionResponse:
        _thread.interrupt_main()
        server.released.wait(PATIENCE)
        return session_pb2.RequestSessionResponse()

    server.scripts["RequestSession"] = hang
    start = time.monotonic()
    with Client(address) as client, interrupted_by(KeyboardInterrupt):
        client.request_session(**WANTED)

    assert time.monotonic() - start < PATIENCE / 2
    assert "EndSession" not in _methods(server)


def test_a_request_without_an_answer_holds_up_no_cancelling(
    server: ScriptedServer, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Withdrawing is bounded in time, and what was not begun is left to end by its own time."""
    monkeypatch.setattr(tasks, "_UNDO_SECONDS", 0.1)
    asked = threading.Event()

    def hang(*_: Any) -> session_pb2.RequestSessionResponse:
        asked.set()
        server.released.wait(PATIENCE)
        return session_pb2.RequestSessionResponse()

    server.scripts["RequestSession"] = hang

    async def run() -> None:
        async with AsyncClient(address) as client:
            task = asyncio.create_task(client.request_session(**WANTED))
            await asyncio.to_thread(asked.wait, PATIENCE)
            task.cancel()
            await asyncio.wait([task], timeout=PATIENCE / 2)
            assert task.cancelled()

    asyncio.run(run())

    assert _methods(server) == ["RequestSession"]


@pytest.mark.parametrize(
    ("interrupted", "kind"),
    [("Authorize", KeyboardInterrupt), ("Authorize", SystemExit), ("GetSession", OutOfTimeError)],
)
def test_what_an_interrupt_breaks_in_grpc_holds_up_nothing_later(
    server: ScriptedServer, address: str, interrupted: str, kind: type[BaseException]
) -> None:
    """It can leave the lock of a channel held for ever: the session is ended, and the client used, over another one."""
    Life(server)
    locks: list[threading.Condition] = []

    def kept(*args: Any) -> threading.Condition:
        locks.append(CONDITION(*args))
        return locks[-1]

    with patch("threading.Condition", kept):
        client = Client(address)

    def interrupt(*_: Any) -> Any:
        for lock in locks:
            lock.acquire()
        _thread.interrupt_main()
        server.released.wait(PATIENCE)

    answer, server.scripts[interrupted] = server.scripts[interrupted], interrupt

    def hold() -> None:
        with client.session(**WANTED) as session:
            if interrupted == "Authorize":
                session.authorize("files", "read")
            else:
                client.get_session("ses_1")

    def go_on() -> bool:
        hold_anew = client.attach("pdps_secret").authorize("files", "read")
        client.close()
        return hold_anew.allowed

    with interrupted_by(kind):
        hold()
    server.scripts[interrupted] = answer
    later = ThreadPoolExecutor(1).submit(go_on)

    assert later.result(PATIENCE)
    assert "EndSession" in _methods(server)


def test_a_scope_that_is_cancelled_does_not_keep_the_event_loop_busy(server: ScriptedServer, address: str) -> None:
    """A scope of anyio cancels a task at each turn of the loop while it waits, unless the task shields itself."""
    Life(server)
    cancelled: list[object] = []

    class Task(asyncio.Task[Any]):
        """A task that notes how often it is cancelled."""

        def cancel(self, msg: object = None) -> bool:
            cancelled.append(msg)
            return super().cancel(msg)

    def slow(*_: Any) -> session_pb2.EndSessionResponse:
        server.released.wait(0.3)
        return session_pb2.EndSessionResponse()

    server.scripts["EndSession"] = slow

    async def hold() -> None:
        async with AsyncClient(address) as client:
            with anyio.CancelScope() as scope:
                async with client.session(**WANTED):
                    scope.cancel()
                    await asyncio.Event().wait()

    async def run() -> None:
        await Task(hold())

    asyncio.run(run())

    assert _methods(server) == ["RequestSession", "EndSession"]
    assert len(cancelled) < 20


@both
def test_an_end_that_fails_does_not_hide_the_body(server: ScriptedServer, address: str, hold: Hold) -> None:
    """The body's exception stays, with a note about the session."""
    life = Life(server)
    server.scripts["EndSession"] = lambda _, context: context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    with pytest.raises(ZeroDivisionError) as caught:
        hold(address, life, lambda _: 1 / 0)

    assert caught.value.__notes__ == ["the session could not be ended: unavailable: away"]


@both
def test_an_end_that_fails_is_told(server: ScriptedServer, address: str, hold: Hold) -> None:
    """When nothing else went wrong, a session that could not be ended is an error."""
    life = Life(server)
    server.scripts["EndSession"] = lambda _, context: context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    with pytest.raises(UnavailableError, match="away"):
        hold(address, life, lambda session: session.authorize("files", "read"))


@both
@pytest.mark.parametrize("code", [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND])
def test_a_session_that_is_over_already_needs_no_end(
    server: ScriptedServer, address: str, hold: Hold, code: grpc.StatusCode
) -> None:
    """A session that was revoked or expired meanwhile is over, which is what was wanted."""
    life = Life(server)
    server.scripts["EndSession"] = lambda _, context: context.abort(code, "revoked")

    answer = hold(address, life, lambda session: session.authorize("files", "read"))

    assert answer.allowed


@both
def test_a_refused_request_is_raised(server: ScriptedServer, address: str, hold: Hold) -> None:
    """A request that fails is an exception, and there is nothing to end."""
    life = Life(server)
    server.scripts["RequestSession"] = lambda _, context: context.abort(grpc.StatusCode.NOT_FOUND, "no such user")

    with pytest.raises(NotFoundError):
        hold(address, life, lambda session: session.authorize("files", "read"))

    assert _methods(server) == ["RequestSession"]


@both
def test_an_answer_about_another_session_is_a_deny(server: ScriptedServer, address: str, hold: Hold) -> None:
    """A held session knows its id, and demands it in each answer."""
    life = Life(server)

    def other(request: Any, _: Any) -> Decision:
        decision = server.honest(request)
        decision.session_id = "ses_2"
        return decision

    server.decide = other

    answer = hold(address, life, lambda session: session.authorize("files", "read"))

    assert (answer.allowed, answer.error) == (False, "the decision is about another session")


@both
def test_the_definition_digest_is_stated_where_it_is_known(server: ScriptedServer, address: str, hold: Hold) -> None:
    """A held session states the digest of the live tool; what the caller states goes first."""
    life = Life(server)
    calls = [
        ToolCall(server="files", tool="read"),
        ToolCall(server="files", tool="write"),
        ToolCall(server="files", tool="read", definition_digest="sha256:mine"),
    ]

    hold(address, life, lambda session: session.batch(calls), definitions={("files", "read"): "sha256:live"})

    sent = [each.call.definition_digest for each in server.sent("BatchAuthorize")[0].requests]
    assert sent == ["sha256:live", "", "sha256:mine"]


# Guards -------------------------------------------------------------------------------------------------------------

Guarded = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def _guard_function(address: str, function: Callable[..., Any], args: Any, kwargs: Any, **options: Any) -> Any:
    with Client(address) as client:
        guard = client.attach("pdps_secret").guard(server="files", tool="read", **options)
        return guard(function)(*args, **kwargs)


def _guard_coroutine(address: str, function: Callable[..., Any], args: Any, kwargs: Any, **options: Any) -> Any:
    with Client(address) as client:
        guard = client.attach("pdps_secret").guard(server="files", tool="read", **options)
        return asyncio.run(guard(_awaited(function))(*args, **kwargs))


def _guard_async(address: str, function: Callable[..., Any], args: Any, kwargs: Any, **options: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(address) as client:
            guard = client.attach("pdps_secret").guard(server="files", tool="read", **options)
            return await guard(_awaited(function))(*args, **kwargs)

    return asyncio.run(run())


def _awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    awaited.__wrapped__ = function  # type: ignore[attr-defined]  # what `functools.wraps` would set
    return awaited


every_guard = pytest.mark.parametrize(
    "guard", [_guard_function, _guard_coroutine, _guard_async], ids=["function", "coroutine", "async client"]
)


@every_guard
def test_an_allowed_function_runs(server: ScriptedServer, address: str, guard: Guarded) -> None:
    """The function is called with its arguments and its result comes back."""
    result = guard(address, lambda path, limit=10: (path, limit), ("/a",), {})

    assert result == ("/a", 10)
    assert [request.call.arguments_json for request in server.sent("Authorize")] == [b'{"path":"/a","limit":10}']


@every_guard
def test_a_denied_function_does_not_run(server: ScriptedServer, address: str, guard: Guarded) -> None:
    """A deny raises with the answer, and the function is not called."""
    ran: list[str] = []

    def deny(request: Any, _: Any) -> Decision:
        decision = server.honest(request)
        decision.outcome, decision.basis = decision_pb2.OUTCOME_DENY, decision_pb2.BASIS_FORBID
        return decision

    server.decide = deny

    with pytest.raises(ToolCallDenied) as caught:
        guard(address, ran.append, ("/a",), {})

    assert ran == []
    assert (caught.value.answer.basis, str(caught.value)) == ("forbid", "denied: `files/read`: forbid files/read")


@every_guard
def test_an_error_does_not_run_the_function_either(server: ScriptedServer, address: str, guard: Guarded) -> None:
    """Without an answer the function is not called."""
    ran: list[str] = []
    server.decide = lambda _, context: context.abort(grpc.StatusCode.INTERNAL, "lost")

    with pytest.raises(ToolCallDenied, match="internal: lost"):
        guard(address, lambda path: ran.append(path), ("/a",), {})  # noqa: PLW0108 - a parameter with a name

    assert ran == []


@every_guard
@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_arguments_that_are_no_json_do_not_run_the_function(
    server: ScriptedServer, address: str, guard: Guarded, value: object
) -> None:
    """What cannot be asked about is denied."""
    ran: list[object] = []

    with pytest.raises(ToolCallDenied, match="`arguments`"):
        guard(address, lambda path: ran.append(path), (value,), {})  # noqa: PLW0108 - a parameter with a name

    assert (ran, server.requests) == ([], [])


@every_guard
def test_what_was_authorised_is_what_runs(server: ScriptedServer, address: str, guard: Guarded) -> None:
    """A list that its owner changes while the answer is under way reaches the function as it was asked about."""
    paths = ["/a"]

    def decide(request: Any, _: Any) -> Decision:
        paths.append("/etc/shadow")
        return server.honest(request)

    server.decide = decide

    assert guard(address, lambda paths: paths, (paths,), {}) == ["/a"]
    assert paths == ["/a", "/etc/shadow"]


def _arguments(address: str, server: ScriptedServer, function: Any, *args: Any, skip: Any = (), **kwargs: Any) -> bytes:
    _guard_function(address, function, args, kwargs, skip=skip)
    sent: bytes = server.sent("Authorize")[-1].call.arguments_json
    return sent


def test_arguments_go_by_name(server: ScriptedServer, address: str) -> None:
    """However an argument is passed, it is asked about under its name, in the order of the parameters."""

    def function(first: int, /, second: int, *, third: int = 3, **rest: int) -> None: ...

    by_place = _arguments(address, server, function, 1, 2, fourth=4)
    by_name = _arguments(address, server, function, 1, third=3, second=2, fourth=4)

    assert by_place == by_name == b'{"first":1,"second":2,"third":3,"fourth":4}'


def test_a_default_of_none_is_an_absent_argument(server: ScriptedServer, address: str) -> None:
    """None counts only where the caller wrote it."""

    def function(path: str, limit: int | None = None) -> None: ...

    assert _arguments(address, server, function, "/a") == b'{"path":"/a"}'
    assert _arguments(address, server, function, "/a", None) == b'{"path":"/a","limit":null}'


def test_skipped_parameters_are_not_the_agents(server: ScriptedServer, address: str) -> None:
    """What the program adds itself is passed on, not asked about, and need not be JSON."""
    seen: list[object] = []
    connection = object()

    def function(connection: object, path: str) -> None:
        seen.extend([connection, path])

    assert _arguments(address, server, function, connection, "/a", skip=["connection"]) == b'{"path":"/a"}'
    assert seen == [connection, "/a"]


def test_a_call_that_does_not_fit_is_not_asked_about(server: ScriptedServer, address: str) -> None:
    """The function's own rules come first."""
    with pytest.raises(TypeError, match="missing a required argument"):
        _guard_function(address, lambda path: path, (), {})

    assert server.requests == []


def test_an_argument_cannot_be_given_twice(server: ScriptedServer, address: str) -> None:
    """A free keyword that repeats a positional name is refused: only one of the two would be asked about."""

    def function(path: str, /, **rest: str) -> None: ...

    with pytest.raises(TypeError, match="is given twice: `path`"):
        _guard_function(address, function, ("/a",), {"path": "/etc/shadow"})

    assert server.requests == []


async def _streamed(path: str) -> Any:
    yield path


@pytest.mark.parametrize(
    ("function", "skip", "text"),
    [
        (_streamed, (), "cannot be a generator"),
        (lambda path: (yield path), (), "cannot be a generator"),
        (lambda *paths: paths, (), "these arguments have no names"),
        (lambda path: path, ("ctx",), "unknown parameter to skip: `ctx`"),
    ],
)
def test_a_function_that_cannot_be_guarded_is_refused(address: str, function: Any, skip: Any, text: str) -> None:
    """The mistake shows when the function is decorated."""
    with Client(address) as client, pytest.raises(TypeError, match=text):
        client.attach("pdps_secret").guard(server="files", tool="read", skip=skip)(function)


def test_an_async_session_guards_only_async_functions(address: str) -> None:
    """A function that is not awaited could not wait for the answer."""

    async def run() -> None:
        async with AsyncClient(address) as client:
            client.attach("pdps_secret").guard(server="files", tool="read")(lambda: asyncio.sleep(0))

    with pytest.raises(TypeError, match="`async def` functions only"):
        asyncio.run(run())
