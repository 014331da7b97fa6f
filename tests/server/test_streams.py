"""Streams: their bound, their idle limit, and what happens to each message."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from pdp.errors import StoreUnavailableError
from pdp.identity.authentication import TokenAuthenticator
from pdp.identity.callersfile import init_callers
from pdp.limits import Limits
from pdp.testing.waiting import wait_until
from pdp.v1.authorization_pb2 import AuthorizeRequest, AuthorizeStreamRequest, AuthorizeStreamResponse
from pdp.v1.decision_pb2 import OUTCOME_ALLOW, OUTCOME_DENY
from tests.machinery.servers.running import (
    PATIENCE,
    Metadata,
    Running,
    Serve,
    Unhealthy,
    a_call,
    read_tokens,
    retry_info,
)

STREAM = "/pdp.v1.AuthorizationService/AuthorizeStream"
AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
Code = grpc.StatusCode


class OpenStream:
    """A stream of raw bytes that a test drives message by message."""

    def __init__(self, channel: grpc.Channel, metadata: Metadata) -> None:
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        messages = iter(self._outgoing.get, None)
        self.call = channel.stream_stream(STREAM)(messages, metadata=metadata, timeout=PATIENCE)

    def ask(self, wire: bytes) -> AuthorizeStreamResponse:
        """Send a message and return its answer."""
        self._outgoing.put(wire)
        return AuthorizeStreamResponse.FromString(next(self.call))

    def end(self) -> grpc.StatusCode:
        """Send no more, and return the status."""
        self._outgoing.put(None)
        code: grpc.StatusCode = self.call.code()
        return code


@pytest.fixture
def open_stream() -> Iterator[Callable[..., OpenStream]]:
    """Return what opens a stream; it ends with the test."""
    opened: list[OpenStream] = []

    def start(running: Running, caller: str = "pep") -> OpenStream:
        stream = OpenStream(running.channel, running.credentials(caller))
        opened.append(stream)
        return stream

    yield start
    for stream in opened:
        stream.call.cancel()
        stream.end()


Open = Callable[..., OpenStream]


def asked(request_id: str = "", **call: Any) -> bytes:
    """Return a message of a stream."""
    request = AuthorizeRequest(call=a_call(**call).call, request_id=request_id)
    return AuthorizeStreamRequest(request=request).SerializeToString()


def test_many_calls_on_one_stream(running: Running, open_stream: Open) -> None:
    """Each message is decided like a call of its own, and answered in order with its request id."""
    handle = running.open_session()
    stream = open_stream(running)

    answers = [stream.ask(asked("a", handle=handle)), stream.ask(asked("b"))]

    assert [(answer.request_id, answer.decision.outcome) for answer in answers] == [
        ("a", OUTCOME_ALLOW),
        ("b", OUTCOME_DENY),
    ]
    assert stream.end() is Code.OK


@pytest.mark.parametrize(
    ("wire", "request_id", "code", "message"),
    [
        (b"\xff", "", 3, "`request`: the bytes are not a valid `pdp.v1.AuthorizeStreamRequest`"),
        (asked("a") + asked("a"), "a", 3, "`request`: appears twice"),
        (b"", "", 3, "`call`: is required"),
        (asked("a", server="git/x"), "a", 3, "`call.server`: must match [A-Za-z0-9._-]{1,64}"),
    ],
)
def test_a_wrong_message_does_not_end_the_stream(
    running: Running, open_stream: Open, wire: bytes, request_id: str, code: int, message: str
) -> None:
    """A message that cannot be decided is answered with an error, and the next one is decided."""
    stream = open_stream(running)

    wrong, right = stream.ask(wire), stream.ask(asked("next"))

    assert (wrong.request_id, wrong.error.code, wrong.error.message) == (request_id, code, message)
    assert not wrong.error.HasField("retry_delay")
    assert right.decision.outcome == OUTCOME_DENY
    assert running.notes.refusal().facts["rpc"] == "pdp.v1.AuthorizationService/AuthorizeStream"


def test_a_retryable_error_says_when(serve: Serve, open_stream: Open) -> None:
    """An answer that is worth a retry carries its delay."""

    class Away:
        def authorize(self, *_: Any, **__: Any) -> None:
            raise StoreUnavailableError("the store does not answer")

    answer = open_stream(serve(authorizer=Away())).ask(asked())

    assert (answer.error.code, answer.error.message) == (14, "the store does not answer")
    assert answer.error.retry_delay.ToTimedelta().total_seconds() == 0.25


def test_one_stream_too_many(serve: Serve, open_stream: Open) -> None:
    """With a caller's share of streams open and idle, its next is refused at once, and unary calls do not notice."""
    running = serve(limits=Limits(streams=12))
    streams = [open_stream(running) for _ in range(6)]
    for stream in streams:
        stream.ask(asked())

    one_more = open_stream(running)

    assert one_more.call.code() is Code.RESOURCE_EXHAUSTED
    assert retry_info(one_more.call) is not None
    for _ in range(20):
        running.unary(AUTHORIZE, a_call().SerializeToString())
    assert streams[0].ask(asked("still")).request_id == "still"


def test_an_ended_stream_makes_room(serve: Serve, open_stream: Open) -> None:
    """The bound counts open streams, however they end."""
    running = serve(limits=Limits(streams=1))

    for ending in (OpenStream.end, lambda stream: stream.call.cancel()) * 3:
        stream = open_when_free(running, open_stream)
        ending(stream)

    assert open_when_free(running, open_stream).ask(asked("a")).request_id == "a"


def open_when_free(running: Running, open_stream: Open) -> OpenStream:
    """Open a stream; the server may notice the end of the one before a moment later."""
    while True:
        stream = open_stream(running)
        try:
            stream.ask(asked())
        except grpc.RpcError as error:
            assert error.code() is Code.RESOURCE_EXHAUSTED  # noqa: PT017 - the loop goes on
        else:
            return stream


def test_idle_streams_are_cancelled(serve: Serve, open_stream: Open) -> None:
    """A stream without messages ends when its limit is over; one with messages does not."""
    running = serve(limits=Limits(stream_idle_seconds=300))
    idle, busy = open_stream(running), open_stream(running)
    idle.ask(asked())
    busy.ask(asked())

    running.clock.advance(299)
    busy.ask(asked())
    running.clock.advance(1)

    assert idle.call.code() is Code.CANCELLED
    assert busy.ask(asked("a")).request_id == "a"


def test_a_stream_that_never_says_anything_is_idle(serve: Serve, open_stream: Open) -> None:
    """The limit counts from the opening."""
    running = serve(limits=Limits(stream_idle_seconds=300))
    silent = open_stream(running)

    assert codes_as_time_passes(running, [silent.call]) == {Code.CANCELLED}


def codes_as_time_passes(running: Running, silent: list[Any]) -> set[grpc.StatusCode]:
    """Let idle limits pass until all calls have ended, and return their statuses."""
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()
    for call in silent:
        if not call.add_callback(lambda: ended.put(None)):
            ended.put(None)
    pending = len(silent)
    while pending:
        # A stream that the server has only just taken up counts from then.
        running.clock.advance(300)
        try:
            ended.get(timeout=0.1)
            pending -= 1
        except queue.Empty:
            continue
    return {call.code() for call in silent}


def test_a_removed_caller_loses_its_stream(serve: Serve, open_stream: Open, tmp_path: Path) -> None:
    """The caller is asked for again with each message."""
    path = init_callers(tmp_path)
    authenticator = TokenAuthenticator(path)
    running = serve(authenticator=authenticator)
    running.tokens = read_tokens(path)
    stream = open_stream(running)
    stream.ask(asked())

    path.write_text(path.read_text().replace("pep:", "someone-else:").replace("[pep]", "[auditor]"))
    authenticator.reload()

    with pytest.raises(grpc.RpcError) as caught:
        stream.ask(asked())
    assert caught.value.code() is Code.PERMISSION_DENIED
    assert len(running.notes.decisions) == 1


def test_watch_tells_changes(running: Running, unhealthy: Unhealthy) -> None:
    """A probe that watches hears the state now and each change of it."""
    watched = HealthStub(running.channel).Watch(HealthCheckRequest(), timeout=PATIENCE)

    states = [next(watched).status]
    unhealthy.set()
    states.append(next(watched).status)
    unhealthy.clear()
    states.append(next(watched).status)
    running.server.drain()
    states.append(next(watched).status)
    watched.cancel()

    yes, no = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
    assert states == [yes, no, yes, no]


def test_strangers_who_watch_take_no_stream_of_callers(serve: Serve, open_stream: Open) -> None:
    """Watching needs no credentials, so it has a bound of its own."""
    running = serve(limits=Limits(streams=1))
    stub = HealthStub(running.channel)
    watches = [stub.Watch(HealthCheckRequest(), timeout=PATIENCE) for _ in range(20)]

    wait_until(lambda: len(running.server._boundary._feeds) == 8)

    assert open_stream(running).ask(asked("a")).request_id == "a"
    assert stub.Check(HealthCheckRequest(), timeout=PATIENCE).status == HealthCheckResponse.SERVING
    for watch in watches:
        watch.cancel()


def test_one_more_watch_ends_the_oldest(running: Running) -> None:
    """Strangers who keep all watches keep nobody from watching; the oldest is told, and may watch again."""
    stub = HealthStub(running.channel)
    watches, before = list[Any](), list[int]()
    for _ in range(8):
        watches.append(stub.Watch(HealthCheckRequest(), timeout=PATIENCE))
        before.append(next(watches[-1]).status)

    one_more = next(stub.Watch(HealthCheckRequest(), timeout=PATIENCE)).status
    with pytest.raises(grpc.RpcError) as caught:
        next(watches[0])

    assert {*before, one_more} == {HealthCheckResponse.SERVING}
    assert caught.value.details() == "more than 8 watches are open; try again"
    assert not any(watch.done() for watch in watches[1:])
    for watch in watches:
        watch.cancel()


def test_a_silent_watch_is_ended(serve: Serve) -> None:
    """Watches that never say what to watch take no thread from others, and end after a few seconds with the reason."""
    running = serve(limits=Limits(message_seconds=5))
    silence = threading.Event()

    def nothing() -> Iterator[bytes]:
        silence.wait(PATIENCE)
        yield from ()

    silent = [running.channel.stream_stream("/grpc.health.v1.Health/Watch")(nothing()) for _ in range(20)]
    watched = next(HealthStub(running.channel).Watch(HealthCheckRequest(), timeout=PATIENCE)).status
    codes = codes_as_time_passes(running, silent)
    silence.set()

    assert watched == HealthCheckResponse.SERVING
    assert codes == {Code.DEADLINE_EXCEEDED}


def test_health_of_services(running: Running, unhealthy: Unhealthy) -> None:
    """Check asks anew each time, knows our services by name, and no others."""
    stub = HealthStub(running.channel)
    names = ("", "pdp.v1.AuthorizationService", "pdp.v1.SessionService", "pdp.v1.PolicyService")

    before = {stub.Check(HealthCheckRequest(service=name), timeout=PATIENCE).status for name in names}
    unhealthy.set()
    after = {stub.Check(HealthCheckRequest(service=name), timeout=PATIENCE).status for name in names}

    assert (before, after) == ({HealthCheckResponse.SERVING}, {HealthCheckResponse.NOT_SERVING})
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(HealthCheckRequest(service="other"), timeout=PATIENCE)
    assert caught.value.code() is Code.NOT_FOUND


def test_reflection_describes_the_api(serve: Serve) -> None:
    """With the setting, a caller can ask for services and their files."""
    running = serve(reflection=True)
    stub = ServerReflectionStub(running.channel)
    questions = [
        ServerReflectionRequest(list_services=""),
        ServerReflectionRequest(file_containing_symbol="pdp.v1.AuthorizationService"),
    ]

    listed, found = stub.ServerReflectionInfo(
        iter(questions), metadata=running.credentials("auditor"), timeout=PATIENCE
    )

    assert {service.name for service in listed.list_services_response.service} == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "pdp.v1.AccessService",
        "pdp.v1.AuditService",
        "pdp.v1.AuthorizationService",
        "pdp.v1.CallTokenService",
        "pdp.v1.CallerService",
        "pdp.v1.FreezeService",
        "pdp.v1.ReachService",
        "pdp.v1.PolicyService",
        "pdp.v1.SessionService",
    }
    assert any(b"AuthorizeStream" in file for file in found.file_descriptor_response.file_descriptor_proto)
