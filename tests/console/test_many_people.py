"""Many people, many sessions: what a page costs, and that nobody costs a thread."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import pytest

from pdp.client import AsyncClient
from pdp.clock import SystemClock
from pdp.console.assembly import local_console
from pdp.console.local import local_name
from pdp.console.logins import Credential
from pdp.console.shell import Place
from pdp.model import Caller, Role
from pdp.serving import weblistener
from pdp.serving.weblistener import LoopbackListener
from pdp.testing.inprocess import ONE_OF_EACH_ROLE, RunningServer, running_server
from tests.console.desk import SECONDS, Browser, files, live, requested

_WAITING, _LIVE, _BROWSERS, _ROUNDS = 1_000, 10_000, 200, 9
_GATEWAYS = tuple(Caller(id=f"gate{n}", kind="token", roles=frozenset({Role.PEP})) for n in range(2))
# What a listening browser may cost in the console, in KiB: its connection, its log-in and its two watches.
_MOST_EACH = 256


@pytest.mark.long
def test_two_hundred_browsers_before_ten_thousand_sessions() -> None:
    """Each has a live page. What comes reaches all of them, pages stay pages, and no browser holds a thread."""
    with ExitStack() as opened:
        server = opened.enter_context(running_server(files(), callers=(*ONE_OF_EACH_ROLE, *_GATEWAYS)))
        for number in range(_LIVE):
            live(server, caller=f"gate{number % 2}", tools=["crm/find_customer"])
        for number in range(_WAITING):
            requested(server, caller=f"gate{number % 2}")
        process, people = opened.enter_context(_apart(server))
        for one in people:
            opened.callback(one.http.close)
            assert "Waiting for a person" in one.open("/").text
        before = _held(process)
        streams = [
            opened.enter_context(one.http.stream("GET", "/events", headers=one.cookie)).iter_lines() for one in people
        ]
        for told in streams:
            assert "event: changed" == next(told)
        after = _held(process)
        seconds = {path: median(_timed(people[0], path) for _ in range(_ROUNDS)) for path in ("/", "/now")}
        began = time.monotonic()
        session_id, _ = requested(server)
        for told in streams:
            assert "event: changed" == next(line for line in told if line.startswith("event"))
        reached = time.monotonic() - began
        print({path: f"{each * 1000:.0f} ms" for path, each in seconds.items()})  # noqa: T201 - for the page
        print(f"{before} before and {after} after; all heard after {reached:.2f} s")  # noqa: T201 - for the page

        assert people[0].open(f"/sessions/{session_id}").status_code == 200
        assert after["Threads"] - before["Threads"] < 10
        assert after["VmRSS"] - before["VmRSS"] < _BROWSERS * _MOST_EACH


def _timed(browser: Browser, path: str) -> float:
    began = time.perf_counter()
    assert 200 == browser.open(path).status_code
    return time.perf_counter() - began


def _held(process: int) -> dict[str, int]:
    """Return the threads of a process, and its memory in KiB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return {name: int(number) for name, number in re.findall(r"^(Threads|VmRSS):\s+(\d+)", status, re.MULTILINE)}


@contextmanager
def _apart(server: RunningServer) -> Iterator[tuple[int, list[Browser]]]:
    """Run the console in a process of its own, and return its id and browsers that are logged in."""
    spawning = multiprocessing.get_context("spawn")
    here, there = spawning.Pipe()
    process = spawning.Process(target=_console, args=(server.address, server.token("approver"), there), daemon=True)
    process.start()
    try:
        assert here.poll(SECONDS)
        place, port, secrets = here.recv()
        browsers = [Browser(place, port) for _ in secrets]
        for browser, secret in zip(browsers, secrets, strict=True):
            browser.cookies[place.cookie] = secret
        assert process.pid is not None
        yield process.pid, browsers
    finally:
        process.terminate()
        process.join(SECONDS)


def _console(address: str, token: str, told: Connection) -> None:
    asyncio.run(_serve(address, token, told))


async def _serve(address: str, token: str, told: Connection) -> None:
    connect = partial(AsyncClient, address, token=token, plaintext=True)
    async with connect() as client:
        with LoopbackListener() as listener:
            place = Place(f"http://{local_name()}:{listener.port}")
            app, entry = local_console(client, connect, place, SystemClock())
            caller = await client.get_caller()
            people = [Credential(subject=f"person-{number}") for number in range(_BROWSERS)]
            secrets = [entry._desk.logins.begin(caller, one) for one in people]
            told.send((place, listener.port, secrets))
            await weblistener.serve(app, listener)
