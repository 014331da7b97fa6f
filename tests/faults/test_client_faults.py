"""Callers hang, say nothing, talk nonsense or come in masses: the others are served as before."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pdp.limits import Limits
from pdp.testing.waiting import wait_until
from pdp.v1.authorization_pb2 import AuthorizeRequest
from pdp.v1.decision_pb2 import Call
from tests.machinery.faults.breakdowns import ROWS
from tests.machinery.faults.rawhttp2 import PREFACE, closed_by_the_server, connect, request, settings
from tests.machinery.servers.notes import READ
from tests.machinery.servers.served import PATIENCE, WELL, Served, served

_AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
_CONNECTIONS = 50


def token(service: Served) -> str:
    """Return the gateway's token."""
    return (service.settings.tokens_folder / "pep.token").read_text(encoding="ascii").strip()


@contextmanager
def connections(service: Served, *said: bytes) -> Iterator[list[socket.socket]]:
    """Open a connection for each of these beginnings, say it, and say no more."""
    with ExitStack() as opened:
        made = [opened.enter_context(connect(service.app.address)) for _ in said]
        for one, words in zip(made, said, strict=True):
            one.sendall(words)
        yield made


def test_connections_that_say_nothing_or_nonsense(tmp_path: Path) -> None:
    """Silence, half a greeting, half of TLS and noise disturb nobody, and are closed after a moment."""
    noise = random.Random(1)  # noqa: S311 - no secret
    said = [b"", PREFACE[:9], b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n", noise.randbytes(300)] * 10
    said += [PREFACE + noise.randbytes(300) for _ in range(10)]
    with served(tmp_path) as service, connections(service, *said) as opened:
        during = service.seen(service.open())
        closed = [closed_by_the_server(one, PATIENCE) for one in opened]

    assert during == ROWS["connections say nothing, or nonsense"].seen
    assert closed == [True] * len(said)


def test_calls_that_are_begun_and_not_sent(tmp_path: Path) -> None:
    """A gateway that is known, and hangs in the midst of its calls, keeps no thread from the calls of others."""
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait()
        yield from ()

    with served(tmp_path) as service, service.channel() as channel:
        metadata = (("authorization", f"Bearer {token(service)}"),)
        begun = [channel.stream_stream(_AUTHORIZE)(nothing(), metadata=metadata) for _ in range(30)]
        during = service.seen(service.open())
        still_begun = [call.is_active() for call in begun]
        over.set()

    assert during == ROWS["a gateway starts calls and does not send their messages"].seen
    assert still_begun == [True] * len(begun)


def test_answers_that_nobody_reads(tmp_path: Path) -> None:
    """Callers that let the server send nothing get no answer, and hold up nobody else's."""
    with served(tmp_path) as service:
        call = Call(session_handle=service.active.handle, server="notes", tool=READ, arguments_json=b'{"name": "a"}')
        message = AuthorizeRequest(call=call).SerializeToString()
        calls = b"".join(request(stream, _AUTHORIZE, token(service), message) for stream in range(1, 20, 2))
        with connections(service, *[PREFACE + settings(window=0) + calls] * 10):
            during = service.seen(service.open())

    assert during == ROWS["callers do not read their answers"].seen


def test_more_connections_than_the_bound(tmp_path: Path) -> None:
    """What comes beyond the bound is closed at once; who is connected goes on, and there is room when others leave."""
    with served(tmp_path, limits=Limits(connections=_CONNECTIONS)) as service:
        service.call(service.active)
        with connections(service, *[PREFACE + settings(window=1)] * (_CONNECTIONS + 10)) as opened:
            refused = sum(closed_by_the_server(one, PATIENCE) for one in opened[-10:])
            calls = {service.call(service.active) for _ in range(20)}
        # The server needs a moment to notice that they have left.
        wait_until(lambda: service.health() == WELL.health)
        during = service.seen(service.open())

    assert refused == 10
    assert calls == {"permit"}
    assert during == ROWS["there are more connections or streams than the limits allow"].seen


@pytest.mark.parametrize("count", [100])
def test_a_connection_that_comes_and_goes(tmp_path: Path, count: int) -> None:
    """Callers that connect, call and vanish before the answer leave nothing behind that others would notice."""
    with served(tmp_path) as service:
        call = Call(session_handle=service.active.handle, server="notes", tool=READ, arguments_json=b'{"name": "a"}')
        wire = request(1, _AUTHORIZE, token(service), AuthorizeRequest(call=call).SerializeToString())
        for _ in range(count):
            with connections(service, PREFACE + settings(window=65535) + wire):
                pass
        during = service.seen(service.open())

    assert during == ROWS["callers vanish before their answer"].seen
