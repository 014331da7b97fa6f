"""Requests to web servers go to addresses that were checked, whatever form an address or a name has."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from pdp.foundation import egress
from pdp.foundation.egress import (
    Egress,
    EgressError,
    NotAskedError,
    NotReachedError,
    Roots,
    is_public,
    pieces_of,
    read_whole,
)
from tests.machinery.credentials.authority import Authority


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("64:ff9b::5db8:d822", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - an address to be refused
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.1.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:a9fe:a9fe::1", False),
        ("64:ff9b:1::a9fe:a9fe", False),
        ("::ffff:0:a9fe:a9fe", False),
        ("::a9fe:a9fe", False),
        ("fec0::1", False),
    ],
)
def test_only_the_public_network_is_public(address: str, public: bool) -> None:  # noqa: FBT001 - a column
    """Also where an IPv6 address stands for one of IPv4."""
    assert public == is_public(address)


@pytest.mark.parametrize("host", ["10.1.2.3", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "[fd00::1]", "10.1.2.3."])
def test_a_private_address_is_not_asked_unless_its_host_is_named(host: str) -> None:
    """Nothing is sent, however the address is written; another name that is listed does not help."""
    egress = Egress(f"http://{host}:9/x", private_hosts=frozenset({"chat.internal"}), step_seconds=0.1)

    with pytest.raises(NotAskedError, match="is at the private address"):
        egress.ask("POST", {}, lambda answer: answer.status)


@pytest.fixture
def resolving(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Have the resolver of the system hang until the end of the test; provide an event that is set once it is asked."""
    asked, over = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> list[Any]:
        asked.set()
        over.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield asked
    over.set()


def test_a_request_that_is_ended_as_it_begins_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at whether it was ended, and the moment from which it can be."""

    class Late(egress._Exchange):
        def __init__(self, *seconds: float) -> None:
            super().__init__(*seconds)
            asking.close()

    monkeypatch.setattr(egress, "_Exchange", Late)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asking = Egress(f"http://127.0.0.1:{silent.getsockname()[1]}/", step_seconds=3.0)
        with pytest.raises(NotReachedError):
            asking.ask("GET", {}, lambda answer: answer.status)


@pytest.mark.usefixtures("resolving")
def test_a_resolver_that_hangs_holds_nobody_longer_than_the_rest() -> None:
    """The limit of the whole request counts for the look-up of its host, too."""
    egress = Egress("http://slow.example:9/x", whole_seconds=0.05)

    with pytest.raises(EgressError, match="did not answer in time"):
        egress.ask("GET", {}, lambda answer: answer.status)


def test_closing_ends_a_look_up(resolving: threading.Event) -> None:
    """A server that stops does not wait for the system's resolver."""
    egress = Egress("http://slow.example:9/x", whole_seconds=3600.0)

    def close() -> None:
        resolving.wait()
        egress.close()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(EgressError, match="did not answer in time"):
        egress.ask("GET", {}, lambda answer: answer.status)
    closing.join()


def require_ended(egress: Egress, close: Callable[[], None], over: threading.Event) -> None:
    """Require that a request ends when `close` closes it, long before a step may last; then set `over`."""
    closing = threading.Thread(target=close)
    closing.start()
    try:
        with pytest.raises(NotReachedError, match=r"^(?!did not answer in time)"):
            egress.ask("GET", {}, lambda answer: answer.status)
    finally:
        over.set()
        closing.join()


def test_closing_ends_a_handshake() -> None:
    """A server that takes a connection and says nothing holds nobody who is ended."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        egress = Egress(f"https://127.0.0.1:{silent.getsockname()[1]}/", step_seconds=20.0)

        def close() -> None:
            taken, _ = silent.accept()
            with taken:
                taken.recv(1)
                egress.close()
                over.wait()

        require_ended(egress, close, over)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere what connects is not ended, only limited")
def test_closing_ends_what_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes no connection holds nobody who is ended."""
    connect, connecting, over = socket.socket.connect, threading.Event(), threading.Event()

    def noted(one: socket.socket, where: tuple[str, int]) -> None:
        connecting.set()
        connect(one, where)

    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.create_connection(full.getsockname()):
        egress = Egress(f"http://127.0.0.1:{full.getsockname()[1]}/", step_seconds=20.0)

        def close() -> None:
            connecting.wait()
            # It has begun in this moment, or is about to.
            while not over.wait(0.01):
                egress.close()

        monkeypatch.setattr(socket.socket, "connect", noted)
        require_ended(egress, close, over)


def test_an_answer_that_is_cut_off_by_the_end_is_not_whole() -> None:
    """Also one that does not say how long it is, and ends with its connection."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        egress = Egress(f"http://127.0.0.1:{server.getsockname()[1]}/")

        def answer() -> None:
            taken, _ = server.accept()
            with taken:
                taken.recv(1024)
                taken.sendall(b"HTTP/1.1 200 OK\r\n\r\na part")
                over.wait()

        def take(response: HTTPResponse) -> bytes:
            first = next(pieces_of(response))
            # Most likely, the rest is then being waited for.
            threading.Timer(0.05, egress.close).start()
            return first + read_whole(response, 1024)

        answering = threading.Thread(target=answer)
        answering.start()
        try:
            with pytest.raises(EgressError):
                egress.ask("GET", {}, take)
        finally:
            over.set()
            answering.join()


def test_no_further_address_is_tried_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with many addresses that do not answer takes no longer than one with a single address."""
    egress, tried = Egress("http://many.example:9/x"), []

    def connect(_: socket.socket, where: tuple[str, int]) -> None:
        tried.append(where)
        egress.close()
        raise TimeoutError

    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"93.184.216.{last}", 9)) for last in range(34, 37)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(EgressError, match="did not answer in time"):
        egress.ask("GET", {}, lambda answer: answer.status)

    assert [("93.184.216.34", 9)] == tried


def test_an_address_is_asked_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked up, and whoever waits keeps the time."""
    monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail(f"{thread.name} began"))

    with socket.create_server(("127.0.0.1", 0)) as silent:
        egress = Egress(f"http://127.0.0.1:{silent.getsockname()[1]}/x", whole_seconds=0.05)
        with pytest.raises(EgressError, match="did not answer in time"):
            egress.ask("GET", {}, lambda answer: answer.status)


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_an_address_ends_with_no_port(monkeypatch: pytest.MonkeyPatch, scheme: str, port: int) -> None:
    """One of IPv6, whose last number could be one."""
    asked: list[tuple[object, object]] = []

    def look_up(host: str, at: int, **_: object) -> list[Any]:
        asked.append((host, at))
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(NotReachedError):
        Egress(f"{scheme}://[2001:db8::5:8080]/x").ask("GET", {}, lambda answer: answer.status)

    assert [("2001:db8::5:8080", port)] == asked


def test_a_host_that_is_no_name_cannot_be_found() -> None:
    """What no resolver can be asked about is an answer as well."""
    egress = Egress("http://a..example:9/x")

    with pytest.raises(EgressError, match="has a host that cannot be found"):
        egress.ask("GET", {}, lambda answer: answer.status)


def test_roots_are_read_again_when_their_file_changes(tmp_path: Path) -> None:
    """And not for each request; a file that is no longer good is an error, whatever was read before."""
    file = tmp_path / "ca.pem"
    file.write_bytes(Authority("first").roots)
    roots = Roots(str(file))
    first = roots.context()

    assert roots.context() is first
    file.write_bytes(Authority("second").roots + b"\n")
    assert roots.context() is not first
    file.write_text("nothing")
    with pytest.raises(NotAskedError, match="holds no certificates"):
        roots.context()
