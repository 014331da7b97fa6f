"""Retries with the same request id, when the server asks for one and the deadline allows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo  # type: ignore[import-untyped]  # its stubs lack py.typed
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # its stubs lack py.typed

from pdp.client import Answer, AsyncClient, Client, OverloadedError, PDPClientError, ToolCall
from pdp.v1.decision_pb2 import Decision
from pdp.v1.policy_pb2 import CheckBundleResponse
from pdp.v1.session_pb2 import RevokeSessionsResponse
from tests.machinery.servers.running import PATIENCE

if TYPE_CHECKING:
    from tests.machinery.servers.scripted import ScriptedServer

CALL = ToolCall(session_handle="pdps_secret", server="files", tool="read")
RETRYABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)


def _ask(address: str, pauses: list[float]) -> Answer:
    with Client(address, sleep=pauses.append) as client:
        return client.ask(CALL)


def _ask_batch(address: str, pauses: list[float]) -> Answer:
    with Client(address, sleep=pauses.append) as client:
        return client.batch([CALL])[0]


def _ask_async(address: str, pauses: list[float]) -> Answer:
    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def run() -> Answer:
        async with AsyncClient(address, sleep=sleep) as client:
            return await client.ask(CALL)

    return asyncio.run(run())


Ask = Callable[[str, list[float]], Answer]
every_way = pytest.mark.parametrize("ask", [_ask, _ask_batch, _ask_async], ids=["unary", "batch", "async"])


def _fail(server: ScriptedServer, times: int, code: grpc.StatusCode, details: bytes | None) -> None:
    left = iter(range(times))

    def decide(request: Any, context: Any) -> Decision:
        if next(left, None) is None:
            return server.honest(request)
        if details is not None:
            context.set_trailing_metadata((("grpc-status-details-bin", details),))
        context.abort(code, "busy")
        raise AssertionError

    server.decide = decide


def _retry_info(seconds: float) -> bytes:
    packed = AnyMessage()
    packed.Pack(RetryInfo(retry_delay=Duration(seconds=int(seconds), nanos=round(seconds % 1 * 1e9))))
    encoded: bytes = Status(code=8, details=[packed]).SerializeToString()
    return encoded


def _error_info(reason: str, domain: str) -> bytes:
    packed = AnyMessage()
    packed.Pack(ErrorInfo(reason=reason, domain=domain))
    encoded: bytes = Status(code=14, details=[packed]).SerializeToString()
    return encoded


def _request_ids(server: ScriptedServer) -> list[str]:
    return [getattr(message, "requests", [message])[0].request_id for _, message in server.requests]


@every_way
def test_what_is_too_large_is_asked_once(server: ScriptedServer, address: str, ask: Ask) -> None:
    """It is as large the next time. A server of gRPC refuses it unread, so it gives neither a reason nor a pause."""
    large = "SERVER: Received message larger than max (300000 vs. 262144)"
    server.decide = lambda _, context: context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, large)
    pauses: list[float] = []

    answer = ask(address, pauses)

    assert ("MESSAGE_TOO_LARGE", [], 1) == (answer.reason, pauses, len(server.requests))


@every_way
@pytest.mark.parametrize("code", RETRYABLE, ids=lambda code: code.name)
def test_a_stated_pause_is_kept(server: ScriptedServer, address: str, ask: Ask, code: grpc.StatusCode) -> None:
    """The client waits as long as the server says, and asks again under the same request id."""
    pauses: list[float] = []
    _fail(server, 1, code, _retry_info(0.25))

    answer = ask(address, pauses)

    assert answer.allowed
    assert pauses == [0.25]
    assert _request_ids(server) == [answer.request_id] * 2


@every_way
@pytest.mark.parametrize("details", [None, b"", b"\xff\xff", Status(code=8).SerializeToString()], ids=repr)
def test_without_a_stated_pause_there_is_a_short_one(
    server: ScriptedServer, address: str, ask: Ask, details: bytes | None
) -> None:
    """Details that are absent or cannot be read name no pause and do not hinder the retry."""
    pauses: list[float] = []
    _fail(server, 1, grpc.StatusCode.UNAVAILABLE, details)

    answer = ask(address, pauses)

    assert (answer.allowed, pauses) == (True, [0.05])


@every_way
def test_there_is_only_one_retry(server: ScriptedServer, address: str, ask: Ask) -> None:
    """A second failure is a deny."""
    pauses: list[float] = []
    _fail(server, 2, grpc.StatusCode.RESOURCE_EXHAUSTED, None)

    answer = ask(address, pauses)

    assert (answer.allowed, answer.error, len(server.requests)) == (False, "resource_exhausted: busy", 2)


@every_way
@pytest.mark.parametrize(("times", "allowed"), [(3, True), (4, False)])
def test_what_is_cancelled_without_a_word_is_asked_three_times_more(
    server: ScriptedServer, address: str, ask: Ask, times: int, *, allowed: bool
) -> None:
    """So gRPC's own server drops calls unread while too many wait; the next ones are as likely to be dropped."""
    pauses: list[float] = []
    _fail(server, times, grpc.StatusCode.CANCELLED, None)

    answer = ask(address, pauses)

    assert (answer.allowed, pauses) == (allowed, [0.05, 0.2, 0.8])
    assert _request_ids(server) == [answer.request_id] * 4


@every_way
def test_a_pause_beyond_the_deadline_is_a_deny_at_once(server: ScriptedServer, address: str, ask: Ask) -> None:
    """A retry that would come too late is not made."""
    pauses: list[float] = []
    _fail(server, 1, grpc.StatusCode.UNAVAILABLE, _retry_info(60))

    answer = ask(address, pauses)

    assert (answer.allowed, pauses, len(server.requests)) == (False, [], 1)


@every_way
@pytest.mark.parametrize(
    "code",
    [code for code in grpc.StatusCode if code not in (*RETRYABLE, grpc.StatusCode.OK)],
    ids=lambda code: code.name,
)
def test_other_failures_are_not_retried(server: ScriptedServer, address: str, ask: Ask, code: grpc.StatusCode) -> None:
    """Asking again is no use where the server did not say so."""
    pauses: list[float] = []
    _fail(server, 1, code, _retry_info(0.25))

    answer = ask(address, pauses)

    assert (answer.allowed, pauses, len(server.requests)) == (False, [], 1)


def test_a_deadline_that_passes_during_the_pause_is_a_deny(server: ScriptedServer, address: str) -> None:
    """The retry gets what is left of the deadline, which may be nothing."""
    now = [0.0]

    def sleep(_: float) -> None:
        now[0] += 2 * PATIENCE

    _fail(server, 1, grpc.StatusCode.UNAVAILABLE, None)
    with Client(address, clock=lambda: now[0], sleep=sleep) as client:
        answer = client.ask(CALL)

    assert (answer.allowed, answer.error.split(":")[0]) == (False, "deadline_exceeded")


@every_way
@pytest.mark.parametrize(("domain", "reason"), [("pdp.v1", "STORE_UNAVAILABLE"), ("proxy.example.com", "")])
def test_the_reason_of_a_status_is_told(
    server: ScriptedServer, address: str, ask: Ask, domain: str, reason: str
) -> None:
    """What kinds of one status differ in reaches the gateway; a reason of another domain is none of ours."""
    _fail(server, 2, grpc.StatusCode.UNAVAILABLE, _error_info("STORE_UNAVAILABLE", domain))

    answer = ask(address, [])

    assert (answer.allowed, answer.error, answer.reason) == (False, "unavailable: busy", reason)


def _manage(address: str, pauses: list[float], *, revoke: bool) -> object:
    with Client(address, sleep=pauses.append) as client:
        if revoke:
            return client.revoke_sessions(session_id="ses_1", reason="enough")
        return client.check_bundle({"a.cedar": b""})


def _manage_async(address: str, pauses: list[float], *, revoke: bool) -> object:
    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def run() -> object:
        async with AsyncClient(address, sleep=sleep) as client:
            if revoke:
                return await client.revoke_sessions(session_id="ses_1", reason="enough")
            return await client.check_bundle({"a.cedar": b""})

    return asyncio.run(run())


both_ways = pytest.mark.parametrize("manage", [_manage, _manage_async], ids=["sync", "async"])


@both_ways
@pytest.mark.parametrize(
    ("code", "details", "revoke", "expected"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, _retry_info(0.1), False, [0.1, 0.1]),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, None, False, []),
        (grpc.StatusCode.UNAVAILABLE, _retry_info(0.1), True, [0.1, 0.1]),
        (grpc.StatusCode.UNAVAILABLE, _retry_info(0.1), False, []),
        # The connection went with the answer, and the server tells the call by its id.
        (grpc.StatusCode.UNAVAILABLE, None, True, [0.05, 0.05]),
        (grpc.StatusCode.UNAVAILABLE, None, False, []),
        (grpc.StatusCode.CANCELLED, None, True, [0.05, 0.05]),
        (grpc.StatusCode.CANCELLED, _retry_info(0.1), True, [0.1, 0.1]),
        (grpc.StatusCode.CANCELLED, _retry_info(0.1), False, []),
        (grpc.StatusCode.INTERNAL, _retry_info(0.1), True, []),
    ],
)
def test_a_management_call_is_repeated_where_nothing_can_happen_twice(
    server: ScriptedServer,
    address: str,
    manage: Callable[..., object],
    code: grpc.StatusCode,
    details: bytes | None,
    *,
    revoke: bool,
    expected: list[float],
) -> None:
    """A call that was not begun is sent again after the stated pause; one that may have begun, only if that is safe."""
    name, pauses = "RevokeSessions" if revoke else "CheckBundle", list[float]()
    calls = iter(range(2))

    def busy(_: Any, context: Any) -> Any:
        if next(calls, None) is None:
            return RevokeSessionsResponse() if revoke else CheckBundleResponse()
        if details is not None:
            context.set_trailing_metadata((("grpc-status-details-bin", details),))
        context.abort(code, "busy")
        raise AssertionError

    server.scripts[name] = busy
    with suppress(PDPClientError):
        manage(address, pauses, revoke=revoke)

    assert (expected, len(expected) + 1) == (pauses, len(server.sent(name)))


def test_closing_the_client_ends_a_management_call(server: ScriptedServer, address: str) -> None:
    """The call that `close` cancels is not sent again on the closed channel."""
    begun, answered = Event(), Event()

    def hang(_: Any, __: Any) -> RevokeSessionsResponse:
        begun.set()
        answered.wait(PATIENCE)
        return RevokeSessionsResponse()

    server.scripts["RevokeSessions"] = hang
    client, failures = Client(address), list[BaseException]()

    def revoke() -> None:
        try:
            client.revoke_sessions(session_id="ses_1", reason="enough")
        except PDPClientError as error:
            failures.append(error)

    thread = Thread(target=revoke)
    thread.start()
    assert begun.wait(PATIENCE)
    client.close()
    thread.join(PATIENCE)
    answered.set()

    assert [PDPClientError] == [type(error) for error in failures]
    assert 1 == len(server.sent("RevokeSessions"))


@both_ways
def test_a_management_call_is_not_repeated_for_ever(
    server: ScriptedServer, address: str, manage: Callable[..., object]
) -> None:
    """There are four tries at most; then the caller gets the error."""
    pauses: list[float] = []

    def busy(_: Any, context: Any) -> Any:
        context.set_trailing_metadata((("grpc-status-details-bin", _retry_info(0.1)),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")

    server.scripts["CheckBundle"] = busy

    with pytest.raises(OverloadedError):
        manage(address, pauses, revoke=False)

    assert [0.1] * 3 == pauses


def _check(address: str, files: dict[str, bytes]) -> None:
    with Client(address) as client:
        client.check_bundle(files)


def _check_async(address: str, files: dict[str, bytes]) -> None:
    async def run() -> None:
        async with AsyncClient(address) as client:
            await client.check_bundle(files)

    asyncio.run(run())


@pytest.mark.parametrize("check", [_check, _check_async], ids=["sync", "async"])
def test_an_upload_is_repeated_whole(server: ScriptedServer, address: str, check: Callable[..., None]) -> None:
    """A busy server gets all of the messages once more."""
    calls = iter(range(1))

    def busy(_: Any, context: Any) -> Any:
        if next(calls, None) is None:
            return CheckBundleResponse()
        context.set_trailing_metadata((("grpc-status-details-bin", _retry_info(0.01)),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
        raise AssertionError

    server.scripts["CheckBundle"] = busy

    check(address, {"a.cedar": b"a" * 100_000})
    first, second = server.sent("CheckBundle")

    assert first == second
    assert len(first) > 1
