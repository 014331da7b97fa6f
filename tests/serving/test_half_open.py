"""Calls whose message comes later, or not at all: they hold no thread, end soon, and take no more than a share."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from pdp.errors import ConfigurationError
from pdp.limits import Limits
from pdp.serving import incoming
from pdp.serving.begun import ASKED
from pdp.serving.incoming import require_known_grpc
from pdp.serving.transports import LOOP
from pdp.testing.waiting import wait_until
from pdp.v1.session_pb2 import RevokeSessionsRequest, RevokeSessionsResponse
from tests.machinery.servers.running import PATIENCE, Running, Serve, a_call, retry_info

AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
REVOKE = "/pdp.v1.SessionService/RevokeSessions"
END = "/pdp.v1.SessionService/EndSession"
GET_SESSION = "/pdp.v1.SessionService/GetSession"
CHECK = "/grpc.health.v1.Health/Check"
Code = grpc.StatusCode

Begin = Callable[[Running, str, str | None, int], list[Any]]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Return what begins calls and sends nothing, several connections for many of them."""
    silence, channels, kept = threading.Event(), list[grpc.Channel](), list[Any]()

    def nothing() -> Iterator[bytes]:
        silence.wait(PATIENCE)
        yield from ()

    def start(running: Running, path: str, caller: str | None, count: int) -> list[Any]:
        metadata = running.credentials(caller) if caller else ()
        begun = []
        for number in range(count):
            if number % 50 == 0:
                # Otherwise gRPC shares one connection between them.
                options = (("grpc.use_local_subchannel_pool", 1),)
                channels.append(grpc.insecure_channel(running.server.address, options=options))
            begun.append(channels[-1].stream_unary(path).future(nothing(), metadata=metadata, timeout=PATIENCE))
        kept.extend(begun)  # gRPC takes back a call that is forgotten
        return begun

    yield start
    silence.set()
    for channel in channels:
        channel.close()


@contextmanager
def as_time_passes(running: Running, seconds: float) -> Iterator[None]:
    """Let the server's time pass again and again."""
    over = threading.Event()

    def pass_time() -> None:
        while not over.wait(0.05):
            running.clock.advance(seconds)

    thread = threading.Thread(target=pass_time)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def busy_threads(running: Running) -> int:
    """Return how many threads of the lanes have something to do."""
    return sum(since < math.inf for pool in running.server._pools for since in pool._since)


def open_calls(running: Running) -> int:
    """Return how many calls the server has open that wait for their message."""
    return len(running.server._boundary._begun)


@pytest.fixture
def burst() -> Iterator[Callable[[Running, int], tuple[list[Any], threading.Event]]]:
    """Return what begins calls on one connection each time, and sends their messages once it is told to."""
    channels = list[grpc.Channel]()

    def start(running: Running, count: int) -> tuple[list[Any], threading.Event]:
        told = threading.Event()

        def late() -> Iterator[bytes]:
            told.wait(PATIENCE)
            yield a_call().SerializeToString()

        options = (("grpc.use_local_subchannel_pool", 1),)
        channels.append(grpc.insecure_channel(running.server.address, options=options))
        ask, metadata = channels[-1].stream_unary(AUTHORIZE), running.credentials("pep")
        return [ask.future(late(), metadata=metadata, timeout=PATIENCE) for _ in range(count)], told

    yield start
    for channel in channels:
        channel.close()


def test_a_burst_of_a_client_is_answered(
    serve: Serve, burst: Callable[[Running, int], tuple[list[Any], threading.Event]], transport: str
) -> None:
    """As many calls as a connection takes are answered, although their messages come after all of them have begun."""
    running = serve()
    calls, told = burst(running, 200)
    wait_until(lambda: open_calls(running) == (100 if transport == LOOP else 200))

    told.set()

    assert {call.code() for call in calls} == {Code.OK}
    assert open_calls(running) == 0
    assert not running.server._boundary._begun._groups


def test_a_burst_of_a_whole_share_is_answered(
    serve: Serve, burst: Callable[[Running, int], tuple[list[Any], threading.Event]]
) -> None:
    """A caller has as many calls as are in its share, on any number of connections, before their messages come."""
    running = serve(limits=Limits(concurrent_calls=600, wait_seconds=PATIENCE))
    bursts = [burst(running, 75) for _ in range(4)]
    wait_until(lambda: open_calls(running) == 300)

    for _, told in bursts:
        told.set()

    assert {call.code() for calls, _ in bursts for call in calls} == {Code.OK}
    assert open_calls(running) == 0


def test_they_hold_no_thread_and_end(serve: Serve, begin: Begin) -> None:
    """However many a gateway begins, the calls of others and a revocation go on; then each is told why it ends."""
    running = serve(limits=Limits(message_seconds=5))
    begun = begin(running, AUTHORIZE, "pep", 30)
    wait_until(lambda: open_calls(running) == 30)

    during = running.unary(AUTHORIZE, a_call().SerializeToString())
    revoked = running.unary(REVOKE, RevokeSessionsRequest(user="alice", reason="x").SerializeToString(), "admin")
    wait_until(lambda: busy_threads(running) == 0)
    waiting = open_calls(running)
    with as_time_passes(running, 6):
        ends = {(call.code(), call.details()) for call in begun}

    assert during != b""
    assert not RevokeSessionsResponse.FromString(revoked).session_ids
    assert waiting == 30
    assert ends == {(Code.DEADLINE_EXCEEDED, "the message did not arrive in time (limit `message_seconds`)")}
    assert running.notes.refusal().facts["status"] == "DEADLINE_EXCEEDED"
    wait_until(lambda: open_calls(running) == 0)


def test_what_is_not_sent_gives_way_to_whole_calls(serve: Serve, begin: Begin) -> None:
    """A caller is asked for so many messages at a time; after a second, its whole calls are answered in their place."""
    running = serve()
    others = begin(running, GET_SESSION, "admin", 1)
    begun = begin(running, AUTHORIZE, "pep", 32)
    wait_until(lambda: open_calls(running) == 33)
    running.clock.advance(1)

    whole = [running.unary(AUTHORIZE, a_call().SerializeToString()) for _ in range(3)]

    assert all(whole)
    assert not others[0].done()
    assert {(call.code(), call.details()) for call in begun if call.done()} <= {
        (Code.RESOURCE_EXHAUSTED, "more than 32 calls wait for their message; try again")
    }


@pytest.mark.parametrize("count", [150, 400])
def test_a_crowd_that_sends_nothing_is_gone_after_two_seconds(serve: Serve, begin: Begin, count: int) -> None:
    """Of many calls without a message a few are asked at a time; those that are not asked within a second end."""
    running = serve(limits=Limits(concurrent_calls=2 * count))
    begun = begin(running, AUTHORIZE, "pep", count)
    wait_until(lambda: open_calls(running) == count)
    running.clock.advance(1)
    wait_until(lambda: open_calls(running) == 32)

    running.clock.advance(1)
    whole = running.unary(AUTHORIZE, a_call().SerializeToString())
    wait_until(lambda: any(call.done() for call in begun))

    assert whole
    assert {(call.code(), call.details()) for call in begun if call.done()} == {
        (Code.RESOURCE_EXHAUSTED, "more than 32 calls wait for their message; try again")
    }


def test_a_lane_that_is_full_of_them_is_open_to_others(serve: Serve, begin: Begin) -> None:
    """If those who send nothing have all of a lane, whoever has most calls there loses one to each new call."""
    running = serve(limits=Limits(concurrent_calls=140))
    begun = begin(running, AUTHORIZE, "pep", 70)
    wait_until(lambda: open_calls(running) == 70)
    begun += begin(running, GET_SESSION, "admin", 69)
    wait_until(lambda: open_calls(running) == 139)
    begin(running, GET_SESSION, "approver", 1)
    wait_until(lambda: open_calls(running) == 140)

    answers = [running.unary("/pdp.v1.SessionService/ListSessions", b"", "approver") for _ in range(3)]
    wait_until(lambda: any(call.done() for call in begun))

    assert answers == [b""] * 3
    assert {(call.code(), call.details()) for call in begun if call.done()} == {
        (Code.RESOURCE_EXHAUSTED, "more than 64 calls wait for their message; try again")
    }


def test_they_take_no_more_than_a_share(serve: Serve, begin: Begin) -> None:
    """Beyond its share a gateway is refused, with the share's name and when to try again; others are not."""
    running = serve(limits=Limits(concurrent_calls=40))
    begin(running, AUTHORIZE, "pep", 20)
    wait_until(lambda: open_calls(running) == 20)

    refused = running.refused(AUTHORIZE, a_call().SerializeToString())

    assert refused.code() is Code.RESOURCE_EXHAUSTED
    assert refused.details() == ("`pep` has 20 calls open, its full share of 40 (limit `concurrent_calls`); try again")
    assert retry_info(refused) is not None
    assert running.unary("/pdp.v1.SessionService/ListSessions", b"", "approver") == b""


def test_a_gateway_enters_no_lane_of_those_who_end_its_authority(serve: Serve, begin: Begin) -> None:
    """A gateway that fills its lane for ending sessions is refused there, and an admin's revocation is served."""
    running = serve()
    begun = begin(running, END, "pep", 40)
    wait_until(lambda: sum(call.done() for call in begun) == 8)

    revoked = running.unary(REVOKE, RevokeSessionsRequest(user="alice", reason="x").SerializeToString(), "admin")

    assert not RevokeSessionsResponse.FromString(revoked).session_ids
    assert {call.code() for call in begun if call.done()} == {Code.RESOURCE_EXHAUSTED}


@pytest.mark.parametrize("path", ["/pdp.v1.PolicyService/GetBundle", "/pdp.v1.AuditService/ListRecords"])
def test_an_auditor_blocks_nobody(serve: Serve, begin: Begin, path: str) -> None:
    """An auditor who begins as many questions as it may keeps no thread from others, and no bundle from running."""
    running = serve()
    begin(running, path, "auditor", 8)
    wait_until(lambda: open_calls(running) == 8)

    answers = [
        running.unary("/pdp.v1.PolicyService/ReloadBundle", b"", "admin"),
        running.unary("/pdp.v1.PolicyService/GetBundle", b"", "admin"),
        running.unary("/pdp.v1.AuditService/ListRecords", b"", "admin"),
    ]

    assert len(answers) == 3
    assert running.refused(path, b"", "auditor").code() is Code.RESOURCE_EXHAUSTED


def test_probes_are_answered_beside_those_that_are_begun(serve: Serve, begin: Begin) -> None:
    """Without credentials few probes may send at a time; one more ends the oldest, and is answered."""
    running = serve()
    begun = begin(running, CHECK, None, 100)
    wait_until(lambda: sum(call.done() for call in begun) == 36)

    health = HealthStub(running.channel).Check(HealthCheckRequest(), timeout=PATIENCE).status

    assert health == HealthCheckResponse.SERVING
    assert {call.code() for call in begun if call.done()} == {Code.RESOURCE_EXHAUSTED}


@pytest.mark.parametrize(("path", "caller"), [(AUTHORIZE, "pep"), (CHECK, None)])
def test_an_empty_call_is_told(running: Running, path: str, caller: str | None) -> None:
    """A call that ends without a message is refused at once, and leaves its place."""
    metadata = running.credentials(caller) if caller else ()

    with pytest.raises(grpc.RpcError) as caught:
        running.channel.stream_unary(path)(iter(()), metadata=metadata, timeout=PATIENCE)

    assert (caught.value.code(), caught.value.details()) == (Code.INVALID_ARGUMENT, "`request`: is required")
    assert open_calls(running) == 0


def test_a_cancelled_call_leaves_its_place(serve: Serve, begin: Begin) -> None:
    """A gateway that takes its calls back, however often, has its whole share again."""
    running = serve(limits=Limits(concurrent_calls=40))
    for _ in range(3):
        begun = begin(running, AUTHORIZE, "pep", 20)
        wait_until(lambda: open_calls(running) == 20)
        for call in begun:
            call.cancel()
        wait_until(lambda: open_calls(running) == 0)

    assert running.unary(AUTHORIZE, a_call().SerializeToString()) != b""
    assert running.server._pools[0]._open in ({}, {"pep": 1})


def test_a_cancelled_call_that_waits_for_its_turn_leaves_its_place(serve: Serve, begin: Begin) -> None:
    """At once, and not when its turn comes: those before it send nothing, and no time passes here."""
    running = serve(limits=Limits(concurrent_calls=120))
    begin(running, AUTHORIZE, "pep", ASKED)
    wait_until(lambda: open_calls(running) == ASKED)
    waiting = begin(running, AUTHORIZE, "pep", 20)
    wait_until(lambda: open_calls(running) == ASKED + 20)

    for call in waiting:
        call.cancel()
    wait_until(lambda: running.server._pools[0]._open == {"pep": ASKED})

    assert open_calls(running) == ASKED


def test_another_grpc_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this server uses of gRPC's inside is looked at before it serves."""
    require_known_grpc()
    monkeypatch.setattr(incoming, "_KNOWN", {wait_until: ("event",)})

    with pytest.raises(ConfigurationError, match=r"^gRPC `.*` is not supported: install an earlier version$"):
        require_known_grpc()
