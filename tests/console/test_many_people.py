"""Many people, many sessions: what a page costs, and that nobody costs a thread."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from statistics import median

import pytest

from pdp.model import Caller, Role
from pdp.testing.inprocess import ONE_OF_EACH_ROLE, running_server
from tests.console.desk import Browser, console, files, live, requested

_WAITING, _LIVE, _BROWSERS, _ROUNDS = 1_000, 10_000, 200, 9
_GATEWAYS = tuple(Caller(id=f"gate{n}", kind="token", roles=frozenset({Role.PEP})) for n in range(2))


@pytest.mark.long
def test_two_hundred_browsers_before_ten_thousand_sessions() -> None:
    """Each has a live page. What comes reaches all of them, pages stay pages, and no browser holds a thread."""
    with ExitStack() as opened:
        server = opened.enter_context(running_server(files(), callers=(*ONE_OF_EACH_ROLE, *_GATEWAYS)))
        world = opened.enter_context(console(server))
        for number in range(_LIVE):
            live(server, caller=f"gate{number % 2}", tools=["crm/find_customer"])
        for number in range(_WAITING):
            requested(server, caller=f"gate{number % 2}")
        people = [world.person() for _ in range(_BROWSERS)]
        before = threading.active_count()
        streams = [
            opened.enter_context(one.http.stream("GET", "/events", headers=one.cookie)).iter_lines() for one in people
        ]
        for told in streams:
            assert "event: changed" == next(told)
        threads = threading.active_count() - before
        seconds = {path: [_timed(people[0], path) for _ in range(_ROUNDS)] for path in ("/", "/now")}
        began = time.monotonic()
        session_id, _ = requested(server)
        for told in streams:
            assert "event: changed" == next(line for line in told if line.startswith("event"))
        reached = time.monotonic() - began
        print({path: f"{median(each) * 1000:.0f} ms" for path, each in seconds.items()})  # noqa: T201 - for the page
        print(f"{threads} threads more; all {_BROWSERS} heard after {reached:.2f} s")  # noqa: T201 - for the page

        assert people[0].open(f"/sessions/{session_id}").status_code == 200
        assert threads < 10


def _timed(browser: Browser, path: str) -> float:
    began = time.perf_counter()
    assert 200 == browser.open(path).status_code
    return time.perf_counter() - began
