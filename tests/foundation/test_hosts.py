"""Hosts are looked up by few threads, and waited for in a time that is known."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest

from pdp.foundation import egress, hosts
from pdp.foundation.egress import Egress, EgressError
from pdp.foundation.hosts import Hosts
from tests.machinery.resolver import hanging

MOST = 2
SHORT = 0.05


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Have the resolver of the system hang until the end of the test; provide the hosts that it was asked for."""
    with hanging(monkeypatch) as found:
        yield found


def test_many_requests_ask_once(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    """A resolver that hangs would else hold a thread for each request that was ever made."""
    monkeypatch.setattr(egress, "SHARED", Hosts())

    def ask(_: int) -> None:
        with pytest.raises(EgressError, match="did not answer in time"):
            Egress("http://slow.example:9/x", whole_seconds=SHORT).ask("GET", {}, lambda answer: answer.status)

    with ThreadPoolExecutor(4) as pool:
        assert 8 == len(list(pool.map(ask, range(8))))
    assert ["slow.example"] == asked


def test_no_more_hosts_are_asked_for_at_once(asked: list[str]) -> None:
    """What is asked for then was not found in time; one that is asked for already is waited for."""
    some = Hosts(most=MOST)
    waiting = [some.ask(f"{number}.example") for number in range(MOST)]

    with pytest.raises(TimeoutError):
        some.ask("more.example").result(SHORT)
    assert waiting[0] is some.ask("0.example")
    assert MOST == len(asked)


def test_a_host_is_asked_for_again_after_there_was_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody would ever find it again."""
    some = Hosts()

    def full(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(hosts, "Thread", _unstarted(full))
        with pytest.raises(TimeoutError):
            some.ask("localhost").result(SHORT)

    assert "127.0.0.1" in some.ask("localhost").result()


def test_only_so_many_addresses_of_a_host_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes its time, and a resolver can name thousands."""
    many = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"10.0.0.{last}", 0)) for last in range(9)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: many)

    placed = Hosts().placed({"host": "db.example", "port": 5432}, 1.0, most=MOST)

    known = {"host": "db.example,db.example", "hostaddr": "10.0.0.0,10.0.0.1", "port": "5432,5432"}
    assert known == placed


def _unstarted(start: Callable[[Thread], None]) -> type[Thread]:
    return type("Unstarted", (Thread,), {"start": start})
