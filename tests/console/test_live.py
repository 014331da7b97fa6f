"""A browser is told that something has changed, and nothing else; that it listens is nobody's doing."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager

import pytest

from pdp.client import AsyncClient
from pdp.console import live
from pdp.console.assembly import IDLE_SECONDS
from pdp.console.connections import MOST_ON_ONE, Connections
from pdp.console.live import LIVE, MOST_STREAMS
from pdp.testing.inprocess import RunningServer
from pdp.testing.waiting import wait_until
from tests.console.desk import LOOP, Browser, World, console, requested
from tests.console.desk import live as running

# The watches of calls that one caller may have at a server.
_ROOM = 8


@contextmanager
def stream(person: Browser) -> Iterator[Iterator[str]]:
    """Open the stream, and provide what it says."""
    with person.http.stream("GET", "/events", headers={**person.cookie, "sec-fetch-site": "same-origin"}) as answer:
        assert "text/event-stream; charset=utf-8" == answer.headers["content-type"]
        yield (line.removeprefix("event: ") for line in answer.iter_lines() if line.startswith("event: "))


def test_what_comes_is_told(person: Browser, server: RunningServer) -> None:
    """A request that waits, without a reload; the page has it."""
    with stream(person) as told:
        assert "changed" == next(told)
        session_id, _ = requested(server)

        assert "changed" == next(told)
        assert session_id in person.open("/").text


def test_the_script_has_no_record_read(server: RunningServer) -> None:
    """At each change anywhere it fetches the page that is open, and looks only whether that is as it was."""
    session_id, handle = running(server, user="bob")
    asked = server.client("pep").authorize(handle, "crm", "send_mail", {"to": "ann@example.com"})
    pages = {
        f"/sessions/{session_id}": "What it called last",
        f"/approvals/{asked.access_request_id}": "call of this tool",
    }
    with console(server, "overseer") as opened:
        person = opened.person()
        for path, of_record in pages.items():
            shown, looked_at = (person.fetch("GET", path, headers).text for headers in ({}, {LIVE: "1"}))

            assert (True, False) == (of_record in shown, of_record in looked_at)
            assert re.findall('data-fresh="[^"]+"', shown) == re.findall('data-fresh="[^"]+"', looked_at) != []


def test_the_stream_ends_with_the_log_in(person: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has logged out hears nothing more."""
    monkeypatch.setattr(live, "_LIFE_SECONDS", 0.05)
    person.open("/")
    with stream(person) as told:
        person.send("/log-out")

        assert "over" == [*told][-1]


def test_the_end_of_the_console_ends_its_streams(server: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
    """Within seconds, though a browser listens, and as nobody's error."""
    with ExitStack() as ended:
        world = ended.enter_context(console(server))
        # Not one of the world's browsers, which are closed first.
        listener = Browser(world.place, world.listener.port)
        listener.cookies.update(world.person().cookies)
        with closing(listener.http), stream(listener) as told:
            assert "changed" == next(told)
            ended.close()

    assert [] == caplog.records


def test_listening_keeps_no_log_in_alive(person: Browser, server: RunningServer) -> None:
    """Neither the stream nor what page or script ask for by themselves counts: an open page is not a person."""
    [again] = re.findall(r'<noscript><meta http-equiv="refresh" content="20; url=([^"]+)">', person.open("/").text)
    server.clock.advance(IDLE_SECONDS - 1)
    with stream(person):
        assert 200 == person.fetch("GET", "/", {LIVE: "1"}).status_code
        assert 200 == person.fetch("GET", again).status_code
    server.clock.advance(1)

    assert 401 == person.fetch("GET", "/", {LIVE: "1"}).status_code


def test_a_browser_has_few_streams(world: World) -> None:
    """One is enough for all its tabs, and each costs two watches of the server."""
    person = world.person()
    opened = [person.http.stream("GET", "/events", headers=person.cookie) for _ in range(MOST_STREAMS)]
    for one in opened:
        one.__enter__()
    try:
        assert 429 == person.open("/events").status_code
    finally:
        for one in opened:
            one.__exit__(None, None, None)


def test_streams_that_are_asked_for_at_once_are_few_too(world: World) -> None:
    """What is asked for counts before it is answered; and once they have ended, there is room again."""
    person = world.person()
    lines = ["GET /events HTTP/1.1", f"host: {world.place.host}", *(f"{k}: {v}" for k, v in person.cookie.items())]
    with ExitStack() as opened:
        browsers = [
            opened.enter_context(socket.create_connection(("127.0.0.1", world.listener.port), timeout=30))
            for _ in range(5 * MOST_STREAMS)
        ]
        for one in browsers:
            one.sendall("\r\n".join([*lines, "", ""]).encode())
        answers = Counter(one.recv(12) for one in browsers)
    wait_until(lambda: [one.streams for one in world.entry._desk.logins._by_digest.values() if one.streams] == [])

    assert {b"HTTP/1.1 200": MOST_STREAMS, b"HTTP/1.1 429": 4 * MOST_STREAMS} == answers


def test_without_a_log_in_there_is_no_stream(world: World) -> None:
    """The answer is that of every page."""
    assert 401 == world.browser().open("/events").status_code


def test_more_people_than_the_server_has_room_for_hear_of_calls(
    world: World, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server takes few watches of calls that wait; the console then looks now and then."""
    monkeypatch.setattr(live, "_LOOK_SECONDS", 0.05)
    people = [world.person() for _ in range(_ROOM + 2)]
    with ExitStack() as opened:
        streams = [opened.enter_context(stream(person)) for person in people]
        assert ["changed"] * len(people) == [next(told) for told in streams]
        _, handle = running(server)
        server.client("pep").authorize(handle, "crm", "send_mail", {"to": "ann@example.com"})

        assert {"changed"} == {next(told) for told in streams}


def test_watches_share_connections() -> None:
    """So many people on one, and none stays open for nobody."""

    async def opened() -> tuple[int, int]:
        connections = Connections(lambda: AsyncClient("127.0.0.1:1", plaintext=True))
        async with AsyncExitStack() as stack:
            for _ in range(MOST_ON_ONE + 1):
                await stack.enter_async_context(connections.one())
            most = len(connections)
        return most, len(connections)

    assert (2, 0) == LOOP.run(opened())
