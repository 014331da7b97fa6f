"""The port on which gateways ask: questions take bounded memory and time, and probes are answered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from pdp.doors import grpcport, grpcturns
from pdp.doors.grpcport import Method, serving
from pdp.doors.mcp import load
from pdp.doors.mcp.load import Load
from pdp.serving.certificates import ServerCertificates
from pdp.testing.waiting import wait_until
from tests.doors.loop import LOOP, SECONDS
from tests.machinery.credentials.authority import Authority, Identity
from tests.machinery.faults.rawhttp2 import HalfSent, begin, connect

SERVICE = "a.gateway.Asking"
ASK, CHECK = f"/{SERVICE}/Ask", "/grpc.health.v1.Health/Check"
MIB = 1024 * 1024
# What gRPC lets come of a question that is not read: its window, and what it has asked for to know the size.
_UNREAD = 2 * 64 * 1024
Code = grpc.StatusCode


async def repeat(question: HealthCheckRequest, _: Mapping[str, str], __: float | None) -> HealthCheckRequest:
    """Answer with the question."""
    return question


@contextmanager
def port(credentials: Any = None) -> Iterator[str]:
    """Answer each question with itself, and provide the address."""

    async def opened() -> tuple[AsyncExitStack, str]:
        stack = AsyncExitStack()
        methods = {"Ask": Method(question=HealthCheckRequest, answer=repeat)}
        served = serving(SERVICE, methods, "127.0.0.1:0", most_bytes=4 * MIB, credentials=credentials)
        return stack, await stack.enter_async_context(served)

    stack, address = LOOP.run(opened())
    try:
        yield address
    finally:
        LOOP.run(stack.aclose())


@pytest.fixture
def ask() -> Iterator[Callable[[str, bytes], bytes]]:
    """Return what asks at an address, in bytes."""
    channels = []

    def asked(address: str, wire: bytes) -> bytes:
        channels.append(grpc.insecure_channel(address))
        return bytes(channels[-1].unary_unary(ASK)(wire, timeout=SECONDS))

    yield asked
    for channel in channels:
        channel.close()


def half_sent(address: str, path: str, calls: int) -> HalfSent:
    """Return what sends so many questions of the largest size but for their ends."""
    return HalfSent(lambda: connect(address), partial(begin, path=path), size=4 * MIB, connections=1, calls=calls)


@pytest.mark.parametrize("path", [ASK, CHECK])
def test_questions_that_do_not_end_take_bounded_memory(path: str) -> None:
    """Those that are read take all of a message, and of the others only what no server can keep from coming."""
    with (
        patch.object(grpcport, "_READ_BYTES", 8 * MIB),
        patch.object(grpcport, "_MESSAGE_SECONDS", SECONDS),
        port() as address,
        half_sent(address, path, 20) as attack,
    ):
        wait_until(lambda: attack.rests > 10)

        assert 4 * MIB < attack.taken < 8 * MIB + 18 * _UNREAD


def test_a_question_that_does_not_end_is_ended(ask: Callable[[str, bytes], bytes]) -> None:
    """The next one waits for its turn, and gets it."""
    with (
        patch.object(grpcport, "_READ_BYTES", 4 * MIB),
        patch.object(grpcport, "_MESSAGE_SECONDS", 2.0),
        port() as address,
        half_sent(address, ASK, 1) as attack,
    ):
        wait_until(lambda: attack.rests > 0)
        asked = HealthCheckRequest(service="a").SerializeToString()

        assert asked == ask(address, asked)
        wait_until(lambda: attack.ended["refused"] > 0)


def test_questions_beyond_the_memory_for_answers_are_refused(ask: Callable[[str, bytes], bytes]) -> None:
    """And the next ones are answered."""
    with patch.object(grpcport, "Load", partial(Load, 1000)), port() as address:
        with pytest.raises(grpc.RpcError) as refused:
            ask(address, HealthCheckRequest(service="a" * 1000).SerializeToString())
        answer = ask(address, b"")

    assert Code.RESOURCE_EXHAUSTED is refused.value.code()
    assert b"" == answer


def test_a_gateway_is_answered_beside_another_that_floods(tmp_path: Path) -> None:
    """By the names in their certificates: one that begins questions and sends none holds a part of all."""
    authority = Authority()
    files = authority.files(tmp_path)
    flooding, honest = (authority.caller(f"spiffe://gateways/{name}") for name in ("flooding", "honest"))

    def channel(address: str, identity: Identity) -> grpc.Channel:
        named = f"localhost:{address.rpartition(':')[2]}"
        return grpc.secure_channel(named, identity.credentials(authority.roots))

    ended = threading.Event()

    def nothing() -> Iterator[bytes]:
        ended.wait()
        yield from ()

    with (
        patch.object(grpcport, "_MESSAGE_SECONDS", SECONDS),
        patch.object(grpcport, "_READ_BYTES", 16 * MIB),
        patch.object(grpcport, "_MOST_OPEN", 50),
        patch.object(load, "MOST_OPEN", 44),
        port(ServerCertificates(files).credentials()) as address,
        channel(address, flooding) as other,
        channel(address, honest) as own,
    ):
        calls = [other.stream_unary(ASK).future(nothing()) for _ in range(60)]
        wait_until(lambda: 30 == sum(one.done() for one in calls))
        said = [bytes(own.unary_unary(ASK)(b"", timeout=SECONDS)) for _ in range(3)]
        for call in calls:
            call.cancel()
        ended.set()

    assert [b""] * 3 == said


@pytest.mark.parametrize("secure", [True, False])
def test_a_gateway_is_answered_beside_many_that_flood(tmp_path: Path, *, secure: bool) -> None:
    """By the names in their certificates, or on loopback by their connections: none keeps out one that has less."""
    authority = Authority()
    files = authority.files(tmp_path)
    ended = threading.Event()

    def channel(address: str, name: str) -> grpc.Channel:
        alone = [("grpc.use_local_subchannel_pool", 1)]
        if not secure:
            return grpc.insecure_channel(address, alone)
        identity = authority.caller(f"spiffe://gateways/{name}")
        named = f"localhost:{address.rpartition(':')[2]}"
        return grpc.secure_channel(named, identity.credentials(authority.roots), alone)

    def nothing() -> Iterator[bytes]:
        ended.wait()
        yield from ()

    with (
        patch.object(grpcport, "_MESSAGE_SECONDS", SECONDS),
        patch.object(grpcturns, "_LEAST_SECONDS", 0.05),
        patch.object(grpcport, "_READ_BYTES", 16 * MIB),
        patch.object(grpcport, "_MOST_OPEN", 100),
        patch.object(load, "MOST_OPEN", 44),
        port(ServerCertificates(files).credentials() if secure else None) as address,
        ExitStack() as opened,
    ):
        calls = []
        for number in range(8):
            other = opened.enter_context(channel(address, f"flooding-{number}"))
            calls += [other.stream_unary(ASK).future(nothing()) for _ in range(10)]
        wait_until(lambda: 80 - 44 <= sum(one.done() for one in calls))
        own = opened.enter_context(channel(address, "honest"))
        said = [bytes(own.unary_unary(ASK)(b"", timeout=SECONDS / 2)) for _ in range(5)]
        for call in calls:
            call.cancel()
        ended.set()

    assert [b""] * 5 == said


@pytest.mark.parametrize("wires", [[b"\xff"], []])
def test_what_is_no_message_is_refused(wires: list[bytes]) -> None:
    """Or comes without one."""
    with port() as address, grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.stream_unary(ASK)(iter(wires), timeout=SECONDS)

    assert Code.INVALID_ARGUMENT is refused.value.code()


def test_probes_are_answered() -> None:
    """About the whole port and its service; nobody may watch, which would take the place of questions."""

    def refusal_of(work: Callable[[], Any]) -> Any:
        with pytest.raises(grpc.RpcError) as refused:
            work()
        return refused.value.code()

    with port() as address, grpc.insecure_channel(address) as channel:
        health = HealthStub(channel)
        said = [health.Check(HealthCheckRequest(service=name), timeout=SECONDS).status for name in ("", SERVICE)]
        unknown = refusal_of(lambda: health.Check(HealthCheckRequest(service="other"), timeout=SECONDS))
        watched = refusal_of(lambda: list(health.Watch(HealthCheckRequest(), timeout=SECONDS)))

    assert [HealthCheckResponse.SERVING] * 2 == said
    assert (Code.NOT_FOUND, Code.UNIMPLEMENTED) == (unknown, watched)
