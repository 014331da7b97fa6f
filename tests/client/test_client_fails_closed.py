"""Whatever a server does wrong, in every way of asking, the answer is a deny and no exception."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from pdp.client import Answer, AsyncClient, Client, Obligation, ToolCall
from pdp.foundation import jsontext
from pdp.model import Outcome
from pdp.v1 import decision_pb2
from pdp.v1.authorization_pb2 import (
    AuthorizeStreamRequest,
    AuthorizeStreamResponse,
    BatchAuthorizeResponse,
    StreamError,
)
from pdp.v1.decision_pb2 import Decision
from tests.machinery.servers.running import PATIENCE

if TYPE_CHECKING:
    from tests.machinery.servers.scripted import ScriptedServer

TOKEN = "sesame"  # noqa: S105 - a token of the tests' own server
CALL = ToolCall(
    session_handle="pdps_secret", session_id="ses_1", server="files", tool="read", arguments={"path": "/a", "n": 1}
)


async def _no_pause(_: float) -> None:
    return None


def _client(address: str, **options: Any) -> Client:
    return Client(address, token=TOKEN, sleep=lambda _: None, **options)


def _async_client(address: str, **options: Any) -> AsyncClient:
    return AsyncClient(address, token=TOKEN, sleep=_no_pause, **options)


def _unary(address: str, call: ToolCall, **options: Any) -> Answer:
    with _client(address, **options) as client:
        return client.ask(call)


def _batch(address: str, call: ToolCall, **options: Any) -> Answer:
    with _client(address, **options) as client:
        (answer,) = client.batch([call])
        return answer


def _stream(address: str, call: ToolCall, **options: Any) -> Answer:
    with _client(address, **options) as client, client.stream() as stream:
        return stream.ask(call)


def _async_unary(address: str, call: ToolCall, **options: Any) -> Answer:
    async def run() -> Answer:
        async with _async_client(address, **options) as client:
            return await client.ask(call)

    return asyncio.run(run())


def _async_batch(address: str, call: ToolCall, **options: Any) -> Answer:
    async def run() -> Answer:
        async with _async_client(address, **options) as client:
            (answer,) = await client.batch([call])
            return answer

    return asyncio.run(run())


def _async_stream(address: str, call: ToolCall, **options: Any) -> Answer:
    async def run() -> Answer:
        async with _async_client(address, **options) as client, client.stream() as stream:
            return await stream.ask(call)

    return asyncio.run(run())


Way = Callable[..., Answer]
WAYS: list[Way] = [_unary, _batch, _stream, _async_unary, _async_batch, _async_stream]
BATCHES: list[Way] = [_batch, _async_batch]
STREAMS: list[Way] = [_stream, _async_stream]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__.strip("_"))
def way(request: pytest.FixtureRequest) -> Way:
    """Return each way of asking about one call."""
    found: Way = request.param
    return found


def _with(**fields: Any) -> Callable[[Decision], None]:
    """Return what overwrites fields of a decision that is otherwise an honest allow."""

    def spoil(decision: Decision) -> None:
        for name in fields:
            decision.ClearField(name)
        decision.MergeFrom(Decision(**fields))

    return spoil


# Each spoils one thing of an honest allow.
SPOILT: Mapping[str, Callable[[Decision], None]] = {
    "empty decision": Decision.Clear,
    "outcome not stated": _with(outcome=decision_pb2.OUTCOME_UNSPECIFIED),
    "outcome unknown": _with(outcome=99),
    "outcome negative": _with(outcome=-1),
    "basis not stated": _with(basis=decision_pb2.BASIS_UNSPECIFIED),
    "basis unknown": _with(basis=99),
    "allow that rests on a forbid": _with(basis=decision_pb2.BASIS_FORBID),
    "deny that rests on a permit": _with(outcome=decision_pb2.OUTCOME_DENY),
    "deny without a known basis": _with(outcome=decision_pb2.OUTCOME_DENY, basis=99),
    "other server": _with(server="mail"),
    "no server": _with(server=""),
    "other tool": _with(tool="write"),
    "tool in other letters": _with(tool="READ"),
    "other arguments": _with(arguments_digest=jsontext.digest(b"{}")),
    "digest without its prefix": _with(arguments_digest=jsontext.digest(b'{"path":"/a","n":1}')[7:]),
    "no digest": _with(arguments_digest=""),
    "other session": _with(session_id="ses_2"),
    "no session": _with(session_id=""),
    "no bundle version": _with(bundle_version=""),
    "no decision id": _with(decision_id=""),
    "unknown obligation": _with(obligations=[decision_pb2.Obligation(id="redact")]),
    "nameless obligation": _with(obligations=[decision_pb2.Obligation()]),
    "a known and an unknown obligation": _with(
        obligations=[decision_pb2.Obligation(id="notify"), decision_pb2.Obligation(id="redact")]
    ),
}


def test_an_honest_allow_is_an_allow(server: ScriptedServer, address: str, way: Way) -> None:
    """Every way of asking allows what an honest server allows, so that the denies below mean something."""
    answer = way(address, CALL)

    assert answer == Answer(
        outcome=Outcome.ALLOW,
        basis="permit",
        server="files",
        tool="read",
        request_id=answer.request_id,
        policies=("files/read",),
        decision_id="dec_1",
        session_id="ses_1",
        user="alice",
        agent="coder",
        bundle_version="sha256:bundle",
        cache_result="miss",
        duration_us=12.5,
        trace_id="0" * 32,
    )
    assert answer
    assert server.metadata[0]["authorization"] == f"Bearer {TOKEN}"


def test_an_honest_deny_is_a_deny_without_error(server: ScriptedServer, address: str, way: Way) -> None:
    """A deny keeps its basis and its policies, and is false."""
    _spoil(
        server,
        _with(
            outcome=decision_pb2.OUTCOME_DENY, basis=decision_pb2.BASIS_FORBID, determining_policies=["guardrails/x"]
        ),
    )

    answer = way(address, CALL)

    assert (answer.allowed, bool(answer), answer.basis, answer.policies, answer.error) == (
        False,
        False,
        "forbid",
        ("guardrails/x",),
        "",
    )


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_decision_is_a_deny(
    server: ScriptedServer, address: str, way: Way, spoil: Callable[[Decision], None]
) -> None:
    """A decision that is wrong in one thing is a deny with an error."""
    _spoil(server, spoil)

    answer = way(address, CALL, known_obligations=["notify"])

    assert (answer.allowed, answer.basis, answer.obligations) == (False, "error", ())
    assert answer.error


def test_every_unknown_obligation_is_named(server: ScriptedServer, address: str, way: Way) -> None:
    """All at once, each once, with its parameters."""
    asked = [
        decision_pb2.Obligation(id=name, parameters_json=b"{}") for name in ("redact", "notify", "pause", "redact")
    ]
    _spoil(server, _with(obligations=asked))

    answer = way(address, CALL, known_obligations=["notify"])

    assert "unknown obligations: `redact`, `pause`" == answer.error
    assert [("redact", b"{}"), ("pause", b"{}"), ("redact", b"{}")] == [
        (one.id, one.parameters_json) for one in answer.unmet_obligations
    ]


def test_an_allow_without_a_session_is_a_deny(server: ScriptedServer, address: str, way: Way) -> None:
    """Also a caller that does not know the public id is allowed nothing outside a session."""
    _spoil(server, _with(session_id=""))

    answer = way(address, ToolCall(session_handle="pdps_secret", server="files", tool="read"))

    assert (answer.allowed, answer.error) == (False, "the decision allows without a session")


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_error_status_is_a_deny(server: ScriptedServer, address: str, way: Way, code: grpc.StatusCode) -> None:
    """No gRPC status but OK lets a call through; the answer names the status in one line."""
    server.decide = lambda _, context: context.abort(code, "first line\nsecond\x1b line")

    answer = way(address, CALL)

    assert (answer.allowed, answer.basis, answer.error) == (
        False,
        "error",
        f"{code.name.lower()}: first line second line",
    )


def test_a_server_that_crashes_is_a_deny(server: ScriptedServer, address: str, way: Way) -> None:
    """An exception in the server's handler lets nothing through."""
    server.decide = lambda _, __: 1 / 0  # type: ignore[assignment,return-value]  # the crash is the point

    answer = way(address, CALL)

    assert (answer.allowed, answer.basis) == (False, "error")


def test_a_server_that_hangs_is_a_deny(server: ScriptedServer, address: str, way: Way) -> None:
    """A server that does not answer within the timeout lets nothing through."""

    def hang(request: Any, _: Any) -> Decision:
        server.released.wait()
        return server.honest(request)

    server.decide = hang

    answer = way(address, CALL, timeout=0.2)

    assert (answer.allowed, answer.basis) == (False, "error")
    assert answer.error


def test_a_server_that_is_not_there_is_a_deny(server: ScriptedServer, address: str, way: Way) -> None:
    """A refused connection lets nothing through."""
    server.stop()

    answer = way(address, CALL)

    assert (answer.allowed, answer.basis) == (False, "error")
    assert answer.error.startswith("unavailable: ")


@pytest.mark.parametrize(
    "arguments",
    [
        {"n": float("nan")},
        {"n": float("inf")},
        {"n": ...},
        {"n": {1, 2}},
        {"n": b"bytes"},
        {("a", "b"): 1},
        {"n": "\ud800"},
        "path",
        ["path"],
        5,
    ],
    ids=repr,
)
def test_arguments_that_cannot_be_sent_are_a_deny(
    server: ScriptedServer, address: str, way: Way, arguments: Any
) -> None:
    """What JSON cannot say is denied without asking."""
    answer = way(address, ToolCall(session_handle="pdps_secret", server="files", tool="read", arguments=arguments))

    assert (answer.allowed, answer.basis) == (False, "error")
    assert answer.error.startswith("`arguments`: ")
    assert server.requests == []


def test_a_tool_name_that_cannot_be_sent_is_a_deny(server: ScriptedServer, address: str, way: Way) -> None:
    """A name that is no UTF-8 is denied without asking."""
    answer = way(address, ToolCall(session_handle="pdps_secret", server="files", tool="\ud800"))

    assert (answer.allowed, answer.basis) == (False, "error")
    assert server.requests == []


def test_a_known_obligation_comes_with_the_allow(server: ScriptedServer, address: str, way: Way) -> None:
    """An obligation that the caller meets is handed to it."""
    _spoil(server, _with(obligations=[decision_pb2.Obligation(id="notify", parameters_json=b'{"to":"x"}')]))

    answer = way(address, CALL, known_obligations=["notify"])

    assert answer.allowed
    assert answer.obligations == (Obligation(id="notify", parameters_json=b'{"to":"x"}'),)


def test_bytes_are_sent_as_they_are(server: ScriptedServer, address: str, way: Way) -> None:
    """The agent's own bytes reach the server byte for byte, and their digest is the one compared."""
    text = b'{ "n" : 1.0,\n"n" : 2 }'

    answer = way(address, ToolCall(session_handle="pdps_secret", server="files", tool="read", arguments=text))

    assert answer.allowed
    assert _sent_arguments(server) == [text]


def test_no_arguments_are_an_empty_object(server: ScriptedServer, address: str, way: Way) -> None:
    """Absent arguments and empty bytes are `{}`, so that there is one digest for them."""
    nothings: list[Any] = [None, b"", {}]

    answers = [
        way(address, ToolCall(session_handle="pdps_secret", server="files", tool="read", arguments=nothing))
        for nothing in nothings
    ]

    assert [answer.allowed for answer in answers] == [True, True, True]
    assert _sent_arguments(server) == [b"{}", b"{}", b"{}"]


@pytest.mark.parametrize("spread", [0, 1, 3], ids=["none", "too few", "too many"])
@pytest.mark.parametrize("ask", [Client, AsyncClient], ids=["sync", "async"])
def test_a_batch_with_a_wrong_number_of_decisions_is_denied(
    server: ScriptedServer, address: str, ask: type, spread: int
) -> None:
    """Decisions that cannot be told apart by their order allow nothing."""
    server.scripts["BatchAuthorize"] = lambda request, context: BatchAuthorizeResponse(
        decisions=[server.decide(request.requests[0], context)] * spread
    )

    answers = _ask_batch(ask, address, [CALL, CALL])

    assert [(answer.allowed, answer.error) for answer in answers] == [
        (False, f"{spread} decisions came for 2 calls")
    ] * 2


@pytest.mark.parametrize("ask", [Client, AsyncClient], ids=["sync", "async"])
def test_a_batch_in_wrong_order_is_denied(server: ScriptedServer, address: str, ask: type) -> None:
    """Decisions about each other's calls allow neither."""
    server.scripts["BatchAuthorize"] = lambda request, context: BatchAuthorizeResponse(
        decisions=[server.decide(each, context) for each in reversed(request.requests)]
    )
    other = ToolCall(session_handle="pdps_secret", server="files", tool="write")

    answers = _ask_batch(ask, address, [CALL, other])

    assert [answer.error for answer in answers] == ["the decision is about another tool"] * 2
    assert [answer.allowed for answer in answers] == [False, False]


@pytest.mark.parametrize("ask", [Client, AsyncClient], ids=["sync", "async"])
def test_a_batch_asks_about_what_can_be_sent(server: ScriptedServer, address: str, ask: type) -> None:
    """A call that cannot be sent is denied in its place, and the others are asked about in order."""
    wrong = ToolCall(session_handle="pdps_secret", server="files", tool="write", arguments={"n": float("nan")})
    last = ToolCall(session_handle="pdps_secret", server="files", tool="stat")

    answers = _ask_batch(ask, address, [CALL, wrong, last])

    assert [(answer.tool, answer.allowed) for answer in answers] == [("read", True), ("write", False), ("stat", True)]
    assert [each.call.tool for each in server.sent("BatchAuthorize")[0].requests] == ["read", "stat"]


@pytest.mark.parametrize("ask", [Client, AsyncClient], ids=["sync", "async"])
def test_an_empty_batch_asks_nothing(server: ScriptedServer, address: str, ask: type) -> None:
    """No calls have no answers."""
    assert _ask_batch(ask, address, []) == ()
    assert server.requests == []


Script = Callable[["ScriptedServer", Iterator[AuthorizeStreamRequest], Any], Iterator[AuthorizeStreamResponse]]


def _ends_at_once(
    _server: ScriptedServer, _: Iterator[AuthorizeStreamRequest], __: Any
) -> Iterator[AuthorizeStreamResponse]:
    yield from ()


def _ends_after_the_question(
    _server: ScriptedServer, requests: Iterator[AuthorizeStreamRequest], _: Any
) -> Iterator[AuthorizeStreamResponse]:
    next(requests)
    yield from ()


def _dies_after_one_answer(
    server: ScriptedServer, requests: Iterator[AuthorizeStreamRequest], context: Any
) -> Iterator[AuthorizeStreamResponse]:
    yield _honest(server, next(requests))
    next(requests)
    context.abort(grpc.StatusCode.INTERNAL, "worker lost")


def _answers_another_call(
    server: ScriptedServer, requests: Iterator[AuthorizeStreamRequest], _: Any
) -> Iterator[AuthorizeStreamResponse]:
    for message in requests:
        response = _honest(server, message)
        response.request_id = "another"
        yield response


def _answers_nobody(
    server: ScriptedServer, requests: Iterator[AuthorizeStreamRequest], _: Any
) -> Iterator[AuthorizeStreamResponse]:
    for message in requests:
        response = _honest(server, message)
        response.request_id = ""
        yield response


def _answers_twice(
    server: ScriptedServer, requests: Iterator[AuthorizeStreamRequest], _: Any
) -> Iterator[AuthorizeStreamResponse]:
    for message in requests:
        yield _honest(server, message)
        yield _honest(server, message)


def _is_one_answer_late(
    server: ScriptedServer, requests: Iterator[AuthorizeStreamRequest], _: Any
) -> Iterator[AuthorizeStreamResponse]:
    for first, second in itertools.pairwise(requests):
        yield _honest(server, first)
        yield _honest(server, second)


STREAM_FAULTS: list[tuple[Script, list[bool]]] = [
    (_ends_at_once, [False, False, False]),
    (_ends_after_the_question, [False, False, False]),
    (_dies_after_one_answer, [True, False, False]),
    (_answers_another_call, [False, False, False]),
    (_answers_nobody, [False, False, False]),
    (_answers_twice, [True, False, False]),
    (_is_one_answer_late, [False, False, False]),
]


@pytest.mark.parametrize(("script", "allowed"), STREAM_FAULTS, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("ask", [Client, AsyncClient], ids=["sync", "async"])
def test_a_stream_that_falters_is_denied_until_it_is_opened_anew(
    server: ScriptedServer, address: str, ask: type, script: Script, allowed: list[bool]
) -> None:
    """After one fault everything on the stream is denied; another stream works."""
    honest = server.scripts["AuthorizeStream"]
    server.scripts["AuthorizeStream"] = partial(script, server)

    # The one that is late never answers the first question: who asked waits in vain.
    timeout = 0.5 if script is _is_one_answer_late else PATIENCE
    faulty = _ask_stream(ask, address, [CALL, CALL, CALL], timeout=timeout)
    server.scripts["AuthorizeStream"] = honest
    anew = _ask_stream(ask, address, [CALL])

    assert [answer.allowed for answer in faulty] == allowed
    assert faulty[-1].error == faulty[-2].error != ""
    assert [answer.allowed for answer in anew] == [True]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (StreamError(code=8, message="too many"), "resource_exhausted: too many"),
        (StreamError(code=77, message="from the future"), "unknown status: from the future"),
        (StreamError(), "ok:"),
    ],
)
@pytest.mark.parametrize("ask", [Client, AsyncClient], ids=["sync", "async"])
def test_an_error_for_one_message_denies_that_one(
    server: ScriptedServer, address: str, ask: type, error: StreamError, text: str
) -> None:
    """An error in a stream denies its own call, whatever its status, and the stream goes on."""

    def script(requests: Iterator[AuthorizeStreamRequest], _: Any) -> Iterator[AuthorizeStreamResponse]:
        yield AuthorizeStreamResponse(request_id=next(requests).request.request_id, error=error)
        for message in requests:
            yield _honest(server, message)

    server.scripts["AuthorizeStream"] = script

    answers = _ask_stream(ask, address, [CALL, CALL])

    assert [(answer.allowed, answer.error) for answer in answers] == [(False, text), (True, "")]


def test_a_stream_works_only_while_it_is_open(address: str) -> None:
    """Before and after its `with`, a stream denies."""
    with _client(address) as client:
        stream = client.stream()
        before = stream.ask(CALL)
        with stream:
            within = stream.ask(CALL)
        after = stream.ask(CALL)

    assert [answer.allowed for answer in (before, within, after)] == [False, True, False]


def test_an_async_stream_works_only_while_it_is_open(address: str) -> None:
    """Before and after its `async with`, a stream denies."""

    async def run() -> list[bool]:
        async with _async_client(address) as client:
            stream = client.stream()
            before = await stream.ask(CALL)
            async with stream:
                within = await stream.ask(CALL)
            after = await stream.ask(CALL)
            return [answer.allowed for answer in (before, within, after)]

    assert asyncio.run(run()) == [False, True, False]


def test_a_closed_client_denies(address: str) -> None:
    """After `close` there is no way to ask."""
    client = _client(address)
    client.close()

    with client.stream() as stream:
        answers = [client.ask(CALL), *client.batch([CALL]), stream.ask(CALL)]

    assert [(answer.allowed, answer.basis) for answer in answers] == [(False, "error")] * 3


def test_a_closed_async_client_denies(address: str) -> None:
    """After `close` there is no way to ask."""

    async def run() -> list[Answer]:
        client = _async_client(address)
        await client.close()
        async with client.stream() as stream:
            return [await client.ask(CALL), *await client.batch([CALL]), await stream.ask(CALL)]

    assert [(answer.allowed, answer.basis) for answer in asyncio.run(run())] == [(False, "error")] * 3


def test_closing_an_async_client_denies_what_is_under_way(server: ScriptedServer, address: str) -> None:
    """The answer to a question that `close` cuts off is a deny, not a cancelled task."""
    arrived = _hang_after_arrival(server)

    async def run() -> Answer:
        client = _async_client(address, timeout=PATIENCE)
        asking = asyncio.create_task(client.ask(CALL))
        assert await asyncio.to_thread(arrived.wait, PATIENCE)
        await client.close()
        return await asking

    answer = asyncio.run(run())

    assert (answer.allowed, answer.basis) == (False, "error")


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])
def test_a_cancelled_task_stays_cancelled(server: ScriptedServer, address: str, *, streaming: bool) -> None:
    """Cancelling the caller's own task is no answer; a stream denies what comes after it."""
    arrived = _hang_after_arrival(server)

    async def run() -> list[bool]:
        async with _async_client(address, timeout=PATIENCE) as client, client.stream() as stream:
            asking = asyncio.create_task(stream.ask(CALL) if streaming else client.ask(CALL))
            assert await asyncio.to_thread(arrived.wait, PATIENCE)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            server.released.set()
            return [(await stream.ask(CALL)).allowed]

    assert asyncio.run(run()) == [not streaming]


@pytest.mark.parametrize("noticed", [True, False])
def test_an_async_stream_says_that_its_server_is_gone(server: ScriptedServer, address: str, *, noticed: bool) -> None:
    """As the client for threads does, whether or not the event loop has noticed by then."""

    async def run() -> str:
        async with _async_client(address, timeout=PATIENCE) as client, client.stream() as stream:
            assert (await stream.ask(CALL)).allowed
            if noticed:
                await asyncio.to_thread(server.stop)
            else:
                server.stop()
            return (await stream.ask(CALL)).error

    assert asyncio.run(run()).startswith("unavailable: ")


def test_threads_share_a_stream(server: ScriptedServer, address: str) -> None:
    """Each thread gets the answer to its own call."""
    calls = [ToolCall(session_handle="pdps_secret", server="files", tool=f"tool{n}") for n in range(40)]
    with _client(address, timeout=PATIENCE) as client, client.stream() as stream, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(stream.ask, calls))

    assert [(answer.tool, answer.allowed) for answer in answers] == [(f"tool{n}", True) for n in range(40)]
    assert len(server.sent("AuthorizeStream")) == 40


def _spoil(server: ScriptedServer, spoil: Callable[[Decision], None]) -> None:
    def decide(request: Any, _: Any) -> Decision:
        decision = server.honest(request)
        spoil(decision)
        return decision

    server.decide = decide


def _honest(server: ScriptedServer, message: AuthorizeStreamRequest) -> AuthorizeStreamResponse:
    return AuthorizeStreamResponse(request_id=message.request.request_id, decision=server.honest(message.request))


def _sent_arguments(server: ScriptedServer) -> list[bytes]:
    found: list[bytes] = []
    for _, message in server.requests:
        requests = getattr(message, "requests", [getattr(message, "request", message)])
        found.extend(request.call.arguments_json for request in requests)
    return found


def _hang_after_arrival(server: ScriptedServer) -> Any:
    arrived = threading.Event()

    def hang(request: Any, _: Any) -> Decision:
        arrived.set()
        server.released.wait()
        return server.honest(request)

    server.decide = hang
    return arrived


def _ask_batch(kind: type, address: str, calls: list[ToolCall]) -> tuple[Answer, ...]:
    if kind is Client:
        with _client(address) as client:
            return client.batch(calls)

    async def run() -> tuple[Answer, ...]:
        async with _async_client(address) as client:
            return await client.batch(calls)

    return asyncio.run(run())


def _ask_stream(kind: type, address: str, calls: list[ToolCall], *, timeout: float = PATIENCE) -> list[Answer]:
    if kind is Client:
        with _client(address, timeout=timeout) as client, client.stream() as stream:
            return [stream.ask(call) for call in calls]

    async def run() -> list[Answer]:
        async with _async_client(address, timeout=timeout) as client, client.stream() as stream:
            return [await stream.ask(call) for call in calls]

    return asyncio.run(run())


@pytest.mark.parametrize("ask", STREAMS)
def test_a_call_too_large_for_a_stream_leaves_it_alone(server: ScriptedServer, address: str, ask: Way) -> None:
    """A server would end the stream: so the call is denied here, and is not sent."""
    large = replace(CALL, arguments={"text": "x" * 300_000})

    answer = ask(address, large)

    assert not answer.allowed
    assert answer.error == "a call on a stream may not be larger than 262128 bytes"
    assert answer.reason == "MESSAGE_TOO_LARGE"
    assert server.sent("AuthorizeStream") == []
