"""What each transport does with connections: how many it takes, what it refuses, and how it ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any, cast

import grpc
import pytest

from pdp.app.embedded import Embedded
from pdp.decision.authorizer import Authorizer
from pdp.limits import Limits
from pdp.serving.http2.loop import Loop
from pdp.testing.waiting import wait_until
from tests.machinery.servers.running import PATIENCE, Running, Serve, a_call, connected

AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
WIRE = a_call().SerializeToString()
Code = grpc.StatusCode


class Waiting:
    """An authorizer that waits until it is let go."""

    def __init__(self, real: Authorizer) -> None:
        self._real = real
        self.entered, self.go_on = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def authorize(self, *what: Any, **more: Any) -> Any:
        """Wait, and decide."""
        self.entered.set()
        assert self.go_on.wait(PATIENCE)
        return self._real.authorize(*what, **more)


def is_closed(sock: socket.socket) -> bool:
    """Say whether the server closes a connection, whatever it says first."""
    sock.settimeout(PATIENCE)
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def test_no_more_connections_than_the_limit(serve: Serve) -> None:
    """One more is closed at once, and the others go on."""
    running = serve(limits=Limits(connections=2))
    before = running.unary(AUTHORIZE, WIRE)
    with connected(running.server.port) as second:
        second.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        assert second.recv(9)
        with connected(running.server.port) as third:
            assert is_closed(third)

    assert (before, running.unary(AUTHORIZE, WIRE)) != (b"", b"")


def test_what_is_not_http2_is_hung_up_on(running: Running) -> None:
    """A browser or a scanner gets no answer that it could read."""
    with connected(running.server.port) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")

        assert is_closed(plain)


def test_a_call_in_progress_is_answered_before_the_end(serve: Serve, embedded: Embedded) -> None:
    """A server that stops gives open calls their time, and takes no others."""
    waiting = Waiting(embedded.authorizer)
    running = serve(authorizer=cast("Authorizer", waiting))
    open_call = running.channel.unary_unary(AUTHORIZE).future(WIRE, metadata=running.credentials("pep"))
    assert waiting.entered.wait(PATIENCE)
    ending = threading.Thread(target=running.server.stop, args=(PATIENCE,))
    ending.start()
    wait_until(lambda: refuses(running))
    waiting.go_on.set()
    ending.join(PATIENCE)

    assert (open_call.code(), ending.is_alive()) == (Code.OK, False)


def refuses(running: Running) -> bool:
    """Say whether a server takes no connection any more."""
    try:
        socket.create_connection(("127.0.0.1", running.server.port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        # It came before the end and was not accepted: the next one is refused.
        return False
    return False


def test_calls_end_with_the_server(running: Running) -> None:
    """One that stops without grace leaves no call open, and no thread that waits for one."""
    stream = running.channel.stream_stream("/pdp.v1.AuthorizationService/AuthorizeStream")
    silence = threading.Event()

    def nothing() -> Iterator[bytes]:
        silence.wait(PATIENCE)
        yield from ()

    call = stream(nothing(), metadata=running.credentials("pep"))
    wait_until(lambda: running.open_calls == 1)
    running.server.stop()
    silence.set()

    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() in {Code.UNAVAILABLE, Code.CANCELLED}


class Touched:
    """A connection that notes when it sends what it has."""

    def __init__(self, done: list[str]) -> None:
        self._done = done

    def turn(self) -> None:
        """Send."""
        self._done.append("answers")


def test_what_was_put_off_is_done_when_answers_have_left() -> None:
    """A turn reads, then makes its answers, then sends them; what fails afterwards concerns neither it nor the next."""
    done: list[str] = []

    def fail() -> None:
        done.append("after")
        raise ValueError("no concern of the loop")

    loop = Loop(
        [],
        cast("Any", None),
        turn_over=lambda: done.append("made"),
        answers_left=fail,
        most_links=1,
        most_waiting=1,
    )
    loop.start()
    for _ in range(2):
        loop.run(lambda: loop.touch(cast("Any", Touched(done))))
        wait_until(lambda: done[-1:] == ["after"] and "answers" in done)
    loop.stop(0.0)

    sent = [place for place, what in enumerate(done) if what == "answers"]
    assert [["made", "answers", "after"]] * 2 == [done[place - 1 : place + 2] for place in sent]


class Unread:
    """A connection whose peer has left bytes unread."""

    def __init__(self, waiting: int) -> None:
        self.waiting, self.closed = waiting, False

    def tick(self, _: float) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Keep nothing any more."""
        self.waiting, self.closed = 0, True


def test_what_all_peers_leave_unread_is_bounded() -> None:
    """The connection for which most waits ends first, until it is little enough."""
    loop = Loop([], cast("Any", None), most_links=10, most_waiting=100)
    links = [Unread(size) for size in (60, 30, 40, 20)]
    loop._links = cast("Any", set(links))
    loop._tick(0.0)
    loop.stop(0.0)

    assert [one.closed for one in links] == [True, False, False, False]
