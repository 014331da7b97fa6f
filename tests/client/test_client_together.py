"""Callers that share a client ask together, and each is answered as if it had asked alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec, module_from_spec
from typing import Any, Protocol

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from pdp.client import Answer, AsyncClient, Client, ToolCall
from pdp.client.gathering import MOST_UNDER_WAY
from pdp.errors import ConfigurationError
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import RunningServer, running_server
from pdp.testing.waiting import wait_until
from pdp.v1.authorization_pb2 import (
    AuthorizeRequest,
    BatchAnswer,
    BatchAuthorizeRequest,
    BatchAuthorizeResponse,
    StreamError,
)
from pdp.v1.decision_pb2 import Decision
from tests.machinery.servers.scripted import ScriptedServer

# Long enough for a busy machine; nothing waits for it to pass.
PATIENCE = 30.0
FILES = bundle_files(
    policies={"mail": '@id("mail/all") permit (principal, action, resource);'},
    tools={"mail": [tool("read"), tool("send")]},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['mail/*']}}}",
)
PRIMING = ("first", "second")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-{:016x}-01"


class Callers(Protocol):
    """Callers that share a client."""

    client: Any

    def ask(self, tool: str, **more: Any) -> Future[Answer]:
        """Let another caller ask."""
        ...

    def reconnect(self) -> None:
        """Wait until the client is connected again."""
        ...

    def close(self) -> None:
        """Close the client, and end the callers."""
        ...


class Threads:
    """Threads that share a `Client`."""

    def __init__(self, address: str, **options: Any) -> None:
        self.client = Client(address, **options)
        self._pool = ThreadPoolExecutor(16)

    def ask(self, tool: str, **more: Any) -> Future[Answer]:
        """Let another thread ask."""
        return self._pool.submit(self.client.ask, _call(tool), **more)

    def reconnect(self) -> None:
        """Wait until the client is connected again."""
        grpc.channel_ready_future(self.client._calls._channel).result(PATIENCE)

    def close(self) -> None:
        """Close the client, and wait for the threads."""
        self.client.close()
        self._pool.shutdown()


class Tasks:
    """Tasks that share an `AsyncClient`, of an event loop on a thread of its own."""

    def __init__(self, address: str, *, sleep: Callable[[float], None] | None = None, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

        async def pause(seconds: float) -> None:
            await asyncio.to_thread(sleep or threading.Event().wait, seconds)

        async def opened() -> AsyncClient:
            return AsyncClient(address, sleep=pause, **options)

        self.client = self._run(opened()).result(PATIENCE)

    def ask(self, tool: str, **more: Any) -> Future[Answer]:
        """Let another task ask."""
        return self._run(self.client.ask(_call(tool), **more))

    def ask_at_once(self, tools: str) -> list[Answer]:
        """Let many tasks ask in the same turn of the loop."""

        async def asked() -> list[Answer]:
            return list(await asyncio.gather(*[self.client.ask(_call(tool)) for tool in tools]))

        answers: list[Answer] = self._run(asked()).result(PATIENCE)
        return answers

    def ask_again(self, *turns: Sequence[str]) -> Future[list[list[Answer]]]:
        """Let tasks ask at once, each about its tools in turn without a pause."""

        async def asked(tools: Sequence[str]) -> list[Answer]:
            return [await self.client.ask(_call(tool)) for tool in tools]

        async def all_asked() -> list[list[Answer]]:
            return list(await asyncio.gather(*map(asked, turns)))

        return self._run(all_asked())

    def reconnect(self) -> None:
        """Wait until the client is connected again."""
        self._run(self.client._calls._channel.channel_ready()).result(PATIENCE)

    def close(self) -> None:
        """Close the client, and end the loop."""
        self._run(self.client.close()).result(PATIENCE)
        self._run(self._all_ended()).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _all_ended(self) -> None:
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

    def _run(self, coroutine: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


Open = Callable[..., Callers]


@pytest.fixture(params=[Threads, Tasks], ids=["threads", "tasks"])
def open_callers(request: pytest.FixtureRequest, address: str) -> Iterator[Open]:
    """Return what opens callers whose client knows that the server takes batches, and near which the server is."""
    opened: list[Callers] = []

    def start(**options: Any) -> Callers:
        callers: Callers = request.param(address, **{"timeout": PATIENCE, "clock": lambda: 0.0, **options})
        opened.append(callers)
        _prime(callers)
        return callers

    yield start
    for callers in opened:
        callers.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let calls wait for the answer to another one as long as it takes."""
    for client in ("aio", "sync"):
        monkeypatch.setattr(f"pdp.client.{client}.together.SOON_SECONDS", PATIENCE)


class Holding:
    """Has a server hold the calls of the tool `hold`, and the batches with one, until it is told to go on."""

    def __init__(self, server: ScriptedServer) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()
        self._decide = server.decide
        server.decide = self.decide

    def decide(self, request: AuthorizeRequest, context: Any) -> Decision:
        """Decide, when it may."""
        if request.call.tool == "hold":
            self.entered.set()
            assert self.go_on.wait(PATIENCE)
        return self._decide(request, context)


@pytest.fixture
def holding(server: ScriptedServer) -> Iterator[Holding]:
    """Return what has the server hold calls."""
    one = Holding(server)
    yield one
    one.go_on.set()


def _call(tool: str) -> ToolCall:
    return ToolCall(session_handle="pdps_secret", server="files", tool=tool, request_id=f"id-{tool}")


def _prime(callers: Callers) -> None:
    """Let the client learn that the server takes batches, and that it answers soon."""
    for name in PRIMING:
        assert callers.ask(name).result(PATIENCE).allowed


def _waiting(callers: Callers) -> int:
    queues = callers.client._calls._together._gathering._queues
    return sum(len(queue.waiting) for queue in tuple(queues.values()))


def _hold_up(callers: Callers, holding: Holding, tools: str) -> tuple[Future[Answer], list[Future[Answer]]]:
    """Have one call held, and others wait for it, in order."""
    held = callers.ask("hold")
    assert holding.entered.wait(PATIENCE)
    waiting = []
    for number, name in enumerate(tools, _waiting(callers) + 1):
        waiting.append(callers.ask(name))
        wait_until(lambda number=number: _waiting(callers) == number)  # type: ignore[misc]  # a default binds it
    return held, waiting


def _answers(*asked: Future[Answer]) -> list[Answer]:
    return [one.result(PATIENCE) for one in asked]


def _sent(server: ScriptedServer) -> list[str]:
    """Return the tools of each message, of batches in parentheses."""
    return [tools for _, message in server.requests if (tools := _tools(message)) not in PRIMING]


def _tools(message: Any) -> str:
    if isinstance(message, BatchAuthorizeRequest):
        return f"({''.join(one.call.tool for one in message.requests)})"
    return str(message.call.tool)


pytestmark = pytest.mark.usefixtures("patient")


def test_what_waits_goes_together(server: ScriptedServer, open_callers: Open, holding: Holding) -> None:
    """One message has all that waited, and each caller gets its own answer."""
    callers = open_callers()
    held, waiting = _hold_up(callers, holding, "abc")
    holding.go_on.set()
    answers = _answers(held, *waiting)

    assert ["hold", "(abc)"] == _sent(server)
    assert [(True, tool, f"id-{tool}") for tool in ("hold", *"abc")] == [
        (answer.allowed, answer.tool, answer.request_id) for answer in answers
    ]
    assert server.sent("BatchAuthorize")[0].independent


def test_one_that_waits_goes_alone(server: ScriptedServer, open_callers: Open, holding: Holding) -> None:
    """It is an `Authorize` like any other."""
    held, waiting = _hold_up(open_callers(), holding, "a")
    holding.go_on.set()

    assert [True, True] == [answer.allowed for answer in _answers(held, *waiting)]
    assert ["hold", "a"] == _sent(server)


def test_each_call_keeps_its_trace(server: ScriptedServer, open_callers: Open, holding: Holding) -> None:
    """Alone it is in the metadata, as before; in a batch beside each call, without what is malformed."""
    callers = open_callers()
    held, _ = _hold_up(callers, holding, "")
    waiting = []
    for number, traceparent in enumerate([TRACE.format(1), TRACE.format(2), "malformed"]):
        waiting.append(callers.ask("abc"[number], traceparent=traceparent, tracestate=f"k={number}"))
        wait_until(lambda number=number: _waiting(callers) == number + 1)  # type: ignore[misc]  # a default binds it
    holding.go_on.set()
    _answers(held, *waiting)
    _answers(callers.ask("d", traceparent=TRACE.format(4)))

    (batch,), alone = server.sent("BatchAuthorize"), server.requests[-1][1]
    assert [(TRACE.format(1), "k=0"), (TRACE.format(2), "k=1"), ("", "")] == [
        (one.traceparent, one.tracestate) for one in batch.requests
    ]
    assert ("traceparent" in server.metadata[-2], server.metadata[-1]["traceparent"]) == (False, TRACE.format(4))
    assert alone.traceparent == ""


def test_other_credentials_go_by_themselves(server: ScriptedServer, open_callers: Open, holding: Holding) -> None:
    """Each message has the token that its callers had when they asked."""
    tokens = iter(["ada", "ada", "ada", "ada", "bob", "ada"])
    callers = open_callers(token=lambda: next(tokens))
    held, (first,) = _hold_up(callers, holding, "a")
    (others,) = _answers(callers.ask("b"))
    second = callers.ask("c")
    wait_until(lambda: _waiting(callers) == 2)
    holding.go_on.set()

    assert all(answer.allowed for answer in (others, *_answers(held, first, second)))
    assert ["hold", "b", "(ac)"] == _sent(server)
    sent = [str(one["authorization"]).removeprefix("Bearer ") for one in server.metadata]
    assert ["ada", "bob", "ada"] == sent[2:]


def test_a_token_that_cannot_be_had_denies_its_own_call(server: ScriptedServer, open_callers: Open) -> None:
    """Nothing of it is sent."""
    tokens = iter(["ada", "ada", "two words", "ada"])
    callers = open_callers(token=lambda: next(tokens))

    assert [False, True] == [_answers(callers.ask(tool))[0].allowed for tool in "ab"]
    assert ["b"] == _sent(server)


def test_an_error_is_that_of_its_call(server: ScriptedServer, open_callers: Open, holding: Holding) -> None:
    """The caller hears what it would have heard alone, and the others are allowed."""
    refused = StreamError(code=3, message="`call.server`: must match", reason="INVALID_FIELD")
    server.refuse = lambda request: refused if request.call.tool == "b" else None
    held, waiting = _hold_up(open_callers(), holding, "abc")
    holding.go_on.set()
    _, first, second, third = _answers(held, *waiting)

    assert [True, False, True] == [answer.allowed for answer in (first, second, third)]
    assert ("invalid_argument: `call.server`: must match", "INVALID_FIELD") == (second.error, second.reason)
    assert ["hold", "(abc)"] == _sent(server)


def test_a_retry_is_that_of_its_call(server: ScriptedServer, open_callers: Open, holding: Holding) -> None:
    """Only the call that can be asked about again is, once, after the stated pause and with the same id."""
    pauses: list[float] = []
    away = StreamError(code=14, message="away", reason="STORE_UNAVAILABLE", retry_delay=Duration(nanos=250_000_000))
    failures = {"b": [away], "c": [away, away]}
    server.refuse = lambda request: failures[request.call.tool].pop() if failures.get(request.call.tool) else None
    held, waiting = _hold_up(open_callers(sleep=pauses.append), holding, "ab")
    holding.go_on.set()
    answers = _answers(held, *waiting)

    assert [True, True, True] == [answer.allowed for answer in answers]
    assert [0.25] == pauses
    assert ["hold", "(ab)", "b"] == _sent(server)
    assert "id-b" == server.requests[-1][1].request_id


def test_all_calls_of_a_failed_batch_are_asked_again(
    server: ScriptedServer, open_callers: Open, holding: Holding
) -> None:
    """Each under its own id, and together again if they wait again."""
    failures = iter(range(1))

    def fail_once(request: BatchAuthorizeRequest, context: Any) -> BatchAuthorizeResponse:
        if next(failures, None) is not None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return server._batch(request, context)

    server.scripts["BatchAuthorize"] = fail_once
    held, waiting = _hold_up(open_callers(sleep=lambda _: None), holding, "abc")
    holding.go_on.set()

    assert all(answer.allowed for answer in _answers(held, *waiting))
    again = [one for _, message in server.requests[4:] for one in getattr(message, "requests", [message])]
    assert ["id-a", "id-b", "id-c"] == sorted(one.request_id for one in again)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.RESOURCE_EXHAUSTED], ids=str)
def test_a_batch_that_is_refused_as_such_is_no_deny(
    server: ScriptedServer, open_callers: Open, holding: Holding, code: grpc.StatusCode
) -> None:
    """A proxy that lets no batch pass, or none of this size, gets each call alone, now and for a while."""
    server.scripts["BatchAuthorize"] = lambda _, context: context.abort(code, "not here")
    callers = open_callers()
    held, waiting = _hold_up(callers, holding, "ab")
    holding.go_on.set()

    assert all(answer.allowed for answer in _answers(held, *waiting))
    assert (["hold", "(ab)"], ["a", "b"]) == (_sent(server)[:2], sorted(_sent(server)[2:]))
    assert not callers.client._calls._together._gathering.is_open(0.0)


def test_an_old_server_is_asked_about_each_call_alone(
    server: ScriptedServer, open_callers: Open, holding: Holding
) -> None:
    """It does not say that it takes independent calls, and no call waits for another."""
    server.batch_size = 0
    callers = open_callers()
    held = callers.ask("hold")
    assert holding.entered.wait(PATIENCE)

    assert all(answer.allowed for answer in _answers(*map(callers.ask, "abc")))
    holding.go_on.set()
    assert _answers(held)[0].allowed
    assert ["a", "b", "c", "hold"] == sorted(_sent(server))


def test_an_old_server_may_take_over(server: ScriptedServer, open_callers: Open, holding: Holding) -> None:
    """It decides a batch as it knows it, which counts; afterwards it gets none."""
    callers = open_callers()
    held, waiting = _hold_up(callers, holding, "ab")
    server.batch_size = 0
    holding.go_on.set()

    assert all(answer.allowed for answer in _answers(held, *waiting))
    assert not callers.client._calls._together._gathering.is_open(0.0)


def _swapped(answers: list[BatchAnswer]) -> list[BatchAnswer]:
    return answers[::-1]


def _short(answers: list[BatchAnswer]) -> list[BatchAnswer]:
    return answers[1:]


def _long(answers: list[BatchAnswer]) -> list[BatchAnswer]:
    return [*answers, answers[0]]


def _silent(answers: list[BatchAnswer]) -> list[BatchAnswer]:
    return [BatchAnswer(request_id=answer.request_id) for answer in answers]


def _renamed(answers: list[BatchAnswer]) -> list[BatchAnswer]:
    # As if it were about the same tool and arguments, but of another caller's session.
    return [BatchAnswer(request_id="id-other", decision=answer.decision) for answer in answers]


@pytest.mark.parametrize("spoil", [_swapped, _short, _long, _silent, _renamed], ids=lambda spoil: spoil.__name__)
def test_a_wrong_batch_of_answers_denies(
    server: ScriptedServer,
    open_callers: Open,
    holding: Holding,
    spoil: Callable[[list[BatchAnswer]], list[BatchAnswer]],
) -> None:
    """No caller gets the answer of another one, and a server that leaves one out or adds one is believed in nothing."""

    def wrong(request: BatchAuthorizeRequest, context: Any) -> BatchAuthorizeResponse:
        return BatchAuthorizeResponse(answers=spoil(list(server._batch(request, context).answers)))

    server.scripts["BatchAuthorize"] = wrong
    held, waiting = _hold_up(open_callers(), holding, "ab")
    holding.go_on.set()
    first, *rest = _answers(held, *waiting)

    assert (True, [False, False]) == (first.allowed, [answer.allowed for answer in rest])


def test_a_slow_call_does_not_keep_others_waiting(
    monkeypatch: pytest.MonkeyPatch, open_callers: Open, holding: Holding
) -> None:
    """What has waited for a moment goes, though the call before is not answered."""
    for client in ("aio", "sync"):
        monkeypatch.setattr(f"pdp.client.{client}.together.SOON_SECONDS", 0.01)
    held, _ = _hold_up(callers := open_callers(), holding, "")

    assert all(answer.allowed for answer in _answers(*map(callers.ask, "abc")))
    assert not held.done()


@pytest.mark.parametrize(("variable", "chosen"), [("true", False), ("false", None)])
def test_a_setting_turns_it_off(
    monkeypatch: pytest.MonkeyPatch,
    server: ScriptedServer,
    open_callers: Open,
    holding: Holding,
    variable: str,
    chosen: bool | None,  # noqa: FBT001 - a column of the table
) -> None:
    """Each call is sent at once, by itself; what a program chooses counts before the environment."""
    monkeypatch.setenv("PDP_ASK_TOGETHER", variable)
    callers = open_callers(ask_together=chosen)
    held, _ = _hold_up(callers, holding, "")

    assert all(answer.allowed for answer in _answers(*map(callers.ask, "abc")))
    assert (False, ["a", "b", "c", "hold"]) == (held.done(), sorted(_sent(server)))


def test_a_setting_that_is_no_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error does not leave on what was to be off."""
    monkeypatch.setenv("PDP_ASK_TOGETHER", "off")

    with pytest.raises(ConfigurationError, match="`PDP_ASK_TOGETHER` must be `true` or `false`, not `off`"):
        Client(plaintext=True)


def test_a_fork_leaves_every_call_to_its_own_process(server: ScriptedServer, address: str, holding: Holding) -> None:
    """A copied client denies at once, a new one asks, and what was under way or waited is answered where it began."""
    command = [sys.executable, "-m", "tests.client.forking", address]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, process_group=0) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            forked = json.loads(process.stdout.readline())
            holding.go_on.set()
            stayed = json.loads(process.communicate(timeout=PATIENCE)[0])
        finally:
            # By chance gRPC hangs in the fork itself: the test fails then, and does not wait for ever.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    belongs = "the client belongs to the process that made it; make another one after a fork"
    copied = [False, f"the call could not be made: {belongs}"]
    assert {"copied": copied, "stream": belongs, "new": [True, ""]} == forked
    assert {"hold": True, "a": True} == stayed
    assert ["a", "b", "hold"] == sorted(_sent(server))


def test_a_fork_after_asyncio_leaves_no_client_that_waits_forever() -> None:
    """One thread of gRPC reads all answers for asyncio, and it is not copied."""
    command = [sys.executable, "-m", "tests.client.forking", "127.0.0.1:1", "after asyncio"]
    forked = subprocess.run(command, capture_output=True, check=True, text=True, timeout=PATIENCE)

    told = json.loads(forked.stdout)
    assert 2 == len(told)
    assert all("was forked from one that had made an `AsyncClient`" in one for one in told)


def test_a_call_that_waits_has_its_own_deadline(server: ScriptedServer, open_callers: Open, holding: Holding) -> None:
    """It is denied in time, in gRPC's own words, and is not sent any more."""
    opened: list[Callers] = []
    over = threading.Event()

    def clock() -> float:
        # As soon as a call waits for the one that is held, its time is over.
        if holding.entered.is_set() and _waiting(opened[0]):
            over.set()
        return 2 * PATIENCE if over.is_set() else 0.0

    opened.append(open_callers(clock=clock))
    held = opened[0].ask("hold")
    assert holding.entered.wait(PATIENCE)
    (late,) = _answers(opened[0].ask("a"))
    holding.go_on.set()

    assert (False, "deadline_exceeded") == (late.allowed, late.error.split(":")[0])
    assert (True, ["hold"]) == (_answers(held)[0].allowed, _sent(server))


def test_a_batch_that_is_too_late_denies(server: ScriptedServer, open_callers: Open, holding: Holding) -> None:
    """Each call of it hears what a call alone would hear, and none is asked about again."""
    late = grpc.StatusCode.DEADLINE_EXCEEDED
    server.scripts["BatchAuthorize"] = lambda _, context: context.abort(late, "Deadline Exceeded")
    held, waiting = _hold_up(open_callers(), holding, "ab")
    holding.go_on.set()
    allowed, *answers = _answers(held, *waiting)

    assert allowed.allowed
    assert [(False, "deadline_exceeded")] * 2 == [(one.allowed, one.error.split(":")[0]) for one in answers]
    assert ["hold", "(ab)"] == _sent(server)


def test_closing_denies_those_that_wait(server: ScriptedServer, open_callers: Open, holding: Holding) -> None:
    """None of them waits for its deadline, and none is sent any more."""
    callers = open_callers(sleep=lambda _: None)
    held, waiting = _hold_up(callers, holding, "ab")
    callers.close()
    callers.close = lambda: None  # type: ignore[method-assign]  # it is closed

    assert [False] * 3 == [answer.allowed for answer in _answers(held, *waiting)]
    assert ["hold"] == _sent(server)


def test_a_server_that_is_restarted_answers_all(
    server: ScriptedServer, address: str, open_callers: Open, holding: Holding, local_credentials: Any
) -> None:
    """The calls of a batch that the old server took along are asked about again, under their ids."""
    restarted = threading.Event()
    other = ScriptedServer()
    callers = open_callers(sleep=lambda _: restarted.wait(PATIENCE))
    held, waiting = _hold_up(callers, holding, "abc")
    server.stop()
    other.start(address, local_credentials)
    callers.reconnect()
    restarted.set()
    holding.go_on.set()
    try:
        answers = _answers(held, *waiting)
    finally:
        other.stop()

    assert all(answer.allowed for answer in answers)
    ids = sorted(one.request_id for _, message in other.requests for one in getattr(message, "requests", [message]))
    assert ["id-a", "id-b", "id-c", "id-hold"] == ids


@pytest.fixture
def tasks(address: str) -> Iterator[Tasks]:
    """Return tasks that share a client, as `open_callers` opens them."""
    opened = Tasks(address, timeout=PATIENCE, clock=lambda: 0.0)
    _prime(opened)
    yield opened
    opened.close()


def test_tasks_that_ask_at_once_go_together(server: ScriptedServer, tasks: Tasks) -> None:
    """None goes ahead."""
    assert all(answer.allowed for answer in tasks.ask_at_once("abcd"))
    assert ["(abcd)"] == _sent(server)


def test_a_client_that_begins_with_many_calls_sends_few_messages(server: ScriptedServer, address: str) -> None:
    """Before it knows that the server takes batches, it does not send each call at once."""
    fresh = Tasks(address, timeout=PATIENCE)
    answers = fresh.ask_at_once("abcdefghijklmnopqrstuvwxyz")
    fresh.close()

    assert all(answer.allowed for answer in answers)
    # The first answers take long, as if the server were far away: they include the connection.
    assert len(_sent(server)) <= 3 * MOST_UNDER_WAY


def test_tasks_that_are_answered_ask_again_with_those_that_wait(
    server: ScriptedServer, tasks: Tasks, holding: Holding
) -> None:
    """Otherwise what waits would go without them, and they would wait for it, each time anew."""
    asked = tasks.ask_again(["hold", "b"], ["c", "d"])
    assert holding.entered.wait(PATIENCE)
    waiting = tasks.ask("a")
    wait_until(lambda: _waiting(tasks) == 1)
    holding.go_on.set()

    assert [(True, True)] * 2 == [(first.allowed, second.allowed) for first, second in asked.result(PATIENCE)]
    assert waiting.result(PATIENCE).allowed
    assert ["(holdc)", "(abd)"] == _sent(server)


def test_what_has_waited_goes_where_threads_cannot_yield(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no `sched_yield`."""
    monkeypatch.delattr(os, "sched_yield")
    spec = find_spec("pdp.client.threads")
    assert spec is not None
    assert spec.loader is not None
    there, gone = module_from_spec(spec), list[str]()
    spec.loader.exec_module(there)
    there.after_others(lambda: gone.append("what has waited"))

    assert ["what has waited"] == gone


def test_a_task_that_is_cancelled_leaves_the_others_alone(
    server: ScriptedServer, tasks: Tasks, holding: Holding
) -> None:
    """One that waits is not sent; one that is under way with others gets no answer, and they do."""
    begun, go_on = threading.Event(), threading.Event()

    def later(request: BatchAuthorizeRequest, context: Any) -> BatchAuthorizeResponse:
        begun.set()
        assert go_on.wait(PATIENCE)
        return server._batch(request, context)

    server.scripts["BatchAuthorize"] = later
    held, waiting = _hold_up(tasks, holding, "abcd")
    waiting[0].cancel()
    wait_until(lambda: _waiting(tasks) == 3)
    holding.go_on.set()
    assert begun.wait(PATIENCE)
    waiting[1].cancel()
    go_on.set()

    assert [True, True, True] == [answer.allowed for answer in _answers(held, *waiting[2:])]
    assert ["hold", "(bcd)"] == _sent(server)


def test_a_batch_that_nobody_waits_for_is_cancelled(server: ScriptedServer, tasks: Tasks, holding: Holding) -> None:
    """The server hears it, and later calls go on."""
    begun, over = threading.Event(), threading.Event()

    def hang(_: BatchAuthorizeRequest, context: Any) -> BatchAuthorizeResponse:
        context.add_callback(over.set)
        begun.set()
        assert over.wait(PATIENCE)
        return BatchAuthorizeResponse()

    server.scripts["BatchAuthorize"] = hang
    held, waiting = _hold_up(tasks, holding, "ab")
    holding.go_on.set()
    assert begun.wait(PATIENCE)
    for one in waiting:
        one.cancel()

    assert over.wait(PATIENCE)
    assert all(answer.allowed for answer in _answers(held, tasks.ask("c")))


def test_a_thread_that_is_interrupted_leaves_the_others_alone(
    server: ScriptedServer, address: str, holding: Holding
) -> None:
    """Such as by Control-C: its call is not sent, and the others go on."""
    main = threading.main_thread()
    if threading.current_thread() is not main:
        pytest.skip("only the main thread gets signals")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGUSR1, interrupt)
    threads = Threads(address, timeout=PATIENCE, clock=lambda: 0.0)
    try:
        _prime(threads)
        held, (other,) = _hold_up(threads, holding, "a")

        def interrupt_main() -> None:
            wait_until(lambda: _waiting(threads) == 2)
            signal.pthread_kill(main.ident or 0, signal.SIGUSR1)

        interrupter = threading.Thread(target=interrupt_main)
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            threads.client.ask(_call("b"))
        interrupter.join(PATIENCE)
        holding.go_on.set()
        answers = _answers(held, other)
    finally:
        signal.signal(signal.SIGUSR1, former)
        holding.go_on.set()
        threads.close()

    assert [True, True] == [answer.allowed for answer in answers]
    assert ["hold", "a"] == _sent(server)


@pytest.fixture(scope="module")
def real() -> Iterator[RunningServer]:
    """Return a real server."""
    with running_server(FILES) as running:
        yield running


def _session(real: RunningServer) -> str:
    opened = real.client("pep").request_session(user="alice", agent="coder", purpose="to ask", tools=["mail/read"])
    shown = opened.session
    real.client("approver").approve_session(shown.session_id, request_digest=shown.request_digest)
    return str(opened.session_handle)


def _about(handle: str, number: int) -> ToolCall:
    # Some are allowed, some denied, and some refused.
    server, tool = [("mail", "read"), ("mail", "send"), ("ma/il", "read")][number % 3]
    return ToolCall(session_handle=handle, server=server, tool=tool, request_id=f"real-{number}")


def _told(answer: Answer) -> tuple[Any, ...]:
    return answer.allowed, answer.basis, answer.error, answer.reason, answer.session_id, answer.tool, answer.request_id


def test_a_real_server_answers_tasks_as_if_each_had_asked_alone(real: RunningServer) -> None:
    """With one session each: the same answers, and each span below that of its own caller."""
    handles = [_session(real) for _ in range(12)]

    async def run() -> tuple[list[Answer], list[Answer]]:
        async with AsyncClient(real.address, token=real.token("pep"), plaintext=True, timeout=PATIENCE) as client:
            alone = [await client.ask(_about(handle, number)) for number, handle in enumerate(handles)]
            asked = [
                client.ask(_about(handle, number), traceparent=TRACE.format(number + 1))
                for number, handle in enumerate(handles)
            ]
            with pytest.MonkeyPatch.context() as patch:
                # They must not go alone.
                patch.setattr(client._calls._together, "_authorize", None)
                return alone, await asyncio.gather(*asked)

    alone, together = asyncio.run(run())

    spans = {span.span_id: span.parent_id for span in real.evidence.spans}
    assert list(map(_told, alone)) == list(map(_told, together))
    assert {(True, "permit"), (False, "out_of_scope"), (False, "error")} == {
        (answer.allowed, answer.basis) for answer in together
    }
    assert [f"{number:016x}" for number, answer in enumerate(together, 1) if answer.span_id] == [
        spans[answer.span_id] for answer in together if answer.span_id
    ]


def test_a_real_server_answers_threads_as_if_each_had_asked_alone(real: RunningServer) -> None:
    """Whoever of them happens to go with whom, every call is answered once, for its own session, and recorded once."""
    handles = [_session(real) for _ in range(8)]
    before = len(real.evidence.decision_records)

    with (
        Client(real.address, token=real.token("pep"), plaintext=True, timeout=PATIENCE) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        ids = [client.identified_tools(handle)[0] for handle in handles]
        calls = [
            ToolCall(session_handle=handles[number % 8], server="mail", tool="read", request_id=f"thread-{number}")
            for number in range(120)
        ]
        answers = list(pool.map(client.ask, calls))

    assert [(True, ids[number % 8], f"thread-{number}") for number in range(120)] == [
        (answer.allowed, answer.session_id, answer.request_id) for answer in answers
    ]
    recorded = [record["request_id"] for record in real.evidence.decision_records[before:]]
    assert sorted(recorded) == sorted(f"thread-{number}" for number in range(120))
