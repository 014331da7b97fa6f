"""The console asks a provider of log-ins at checked addresses alone, and follows it nowhere."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

from pdp.console.outward import MOST_BYTES, OutwardTransport
from tests.machinery.webserver import serving


class _Provider(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(302 if self.path == "/elsewhere" else 200)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.send_header("X-Asked", self.headers["Authorization"] or "")
        self.end_headers()
        self.wfile.write(b"x" * (MOST_BYTES + 1) if self.path == "/large" else asked)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """Provide a web server for all tests of this module."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Provider)
    with serving(server, threading.Event()):
        yield f"http://127.0.0.1:{server.server_address[1]}"


def ask(url: str, *private_hosts: str) -> httpx2.Response:
    """Send a request as the client of the console does."""

    async def asked() -> httpx2.Response:
        way = OutwardTransport(ca_file="", private_hosts=private_hosts)
        async with httpx2.AsyncClient(transport=way, follow_redirects=False, trust_env=False) as client:
            return await client.post(url, content=b"code=c", headers={"authorization": "Basic eA=="})

    return asyncio.run(asked())


def test_an_answer_comes_as_it_is_and_leads_nowhere(origin: str) -> None:
    """With its headers and its body; a redirect is an answer like any other."""
    answer, elsewhere = ask(f"{origin}/token"), ask(f"{origin}/elsewhere")

    assert (200, b"code=c", "Basic eA==") == (answer.status_code, answer.content, answer.headers["x-asked"])
    assert (302, b"code=c") == (elsewhere.status_code, elsewhere.content)


@pytest.mark.parametrize(
    ("host", "private_hosts", "problem"),
    [
        ("keys.provider.example", (), "at the private address `127.0.0.1`"),
        ("keys.provider.example", ("login.provider.example",), "at the private address `127.0.0.1`"),
        ("keys.provider.example", ("keys.provider.example",), ""),
    ],
)
def test_a_name_inside_of_the_network_must_be_named(
    origin: str, monkeypatch: pytest.MonkeyPatch, host: str, private_hosts: tuple[str, ...], problem: str
) -> None:
    """A provider could publish any endpoint, and the console would bring it a code and its secret."""
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *more, **ways: real("127.0.0.1", *more, **ways))
    url = f"{origin.replace('127.0.0.1', host)}/token"

    if problem:
        with pytest.raises(httpx2.ConnectError, match=problem):
            ask(url, *private_hosts)
    else:
        assert 200 == ask(url, *private_hosts).status_code


def test_an_answer_is_bounded(origin: str) -> None:
    """However much a provider says, it is not all read."""
    with pytest.raises(httpx2.ConnectError, match="is larger than"):
        ask(f"{origin}/large")
