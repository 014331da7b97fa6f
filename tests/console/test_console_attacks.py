"""What the other tests of attacks do page by page, over every page and form that the console has."""

from __future__ import annotations

import re
import socket
from collections import Counter
from functools import partial

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from pdp.client import AsyncClient
from pdp.clock import SystemClock
from pdp.console import live
from pdp.console.assembly import local_console
from pdp.console.shell import Place
from pdp.testing.inprocess import RunningServer
from tests.console.desk import FORMS, LOOP, SECONDS, Browser, World, requested

_ID = re.compile(r"\{[a-z_]+\}")


def routes(method: str) -> list[Route]:
    """Return the routes of the local console that take a method."""

    async def made() -> Starlette:
        connect = partial(AsyncClient, "127.0.0.1:1", plaintext=True)
        async with connect() as client:
            shell, _ = local_console(client, connect, Place("http://a.localhost:1"), SystemClock())
            app = shell._app  # type: ignore[attr-defined]
            assert isinstance(app, Starlette)
            return app

    return [route for route in LOOP.run(made()).routes if isinstance(route, Route) and method in (route.methods or ())]


def test_every_form_is_attacked() -> None:
    """Each route that takes a form is in the list with which the others go through all of them."""
    left = [
        route.path
        for route in routes("POST")
        if not any(route.path_regex.fullmatch(form.format(session="ses_a")) for form in FORMS)
    ]

    assert [] == left


def test_no_page_is_kept_and_none_opens_after_a_log_out(world: World) -> None:
    """Found or not, allowed or not, no browser keeps it and no site frames it; the cookie of before opens none."""
    person = world.person()
    paths = [_ID.sub("ses_aaaaaaaaaaaaaaaaaaaaaaaaaa", route.path) for route in routes("GET")]
    paths.remove("/events")
    before = {path: person.fetch("GET", path) for path in paths}
    person.open("/")
    kept = dict(person.cookies)
    person.send("/log-out")
    person.cookies.update(kept)
    after = {path: person.fetch("GET", path) for path in (*paths, "/events")}

    for answer in (*before.values(), *after.values()):
        assert "no-store" == answer.headers["cache-control"]
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
    assert 200 == before["/"].status_code
    # The link that was used up is refused, and the others are closed.
    assert {401: len(after) - 1, 403: 1} == Counter(answer.status_code for answer in after.values())


@pytest.mark.parametrize(
    ("origin", "site", "status"),
    [
        ("null", "", 403),
        ("http://localhost:{port}", "", 403),
        ("{origin}.evil.example", "", 403),
        ("http://evil.{host}", "", 403),
        ("https://{host}", "", 403),
        ("http://{name}:1", "same-site", 403),
        ("", "cross-site", 403),
        ("", "same-site", 403),
        ("{origin}", "cross-site", 403),
        ("{origin}", "same-origin", 200),
        ("", "same-origin", 200),
    ],
)
def test_the_stream_is_for_its_own_pages(world: World, person: Browser, origin: str, site: str, status: int) -> None:
    """However much another page's origin is like the console's, and though the browser sends the cookie."""
    place = world.place
    name, _, port = place.host.partition(":")
    sent = {
        "origin": origin.format(origin=place.origin, host=place.host, name=name, port=port),
        "sec-fetch-site": site,
    }
    headers = {**person.cookie, **{key: value for key, value in sent.items() if value}}
    with person.http.stream("GET", "/events", headers=headers) as answer:
        assert status == answer.status_code
        assert "access-control-allow-origin" not in answer.headers
        assert 200 == status or "event" not in answer.read().decode()


def test_the_stream_tells_no_more_than_that_there_is_news(
    person: Browser, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who could read it all the same would learn nothing of anybody."""
    # On a busy machine there are signs of life, too.
    monkeypatch.setattr(live, "_LIFE_SECONDS", SECONDS)
    with person.http.stream("GET", "/events", headers=person.cookie) as answer:
        lines = answer.iter_lines()
        assert "event: changed" == next(lines)
        requested(server)
        told = [next(lines) for _ in range(5)]

    assert ["data:", "", "event: changed", "data:", ""] == told


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/", ("host: {host}",), 200),
        ("/", ("host: {host}", "host: evil.example"), 400),
        ("/", ("host: evil.example", "host: {host}"), 400),
        ("/", ("host: {host}, evil.example",), 421),
        ("/", ("host: {host}@evil.example",), 421),
        ("/", ("host: {host}.",), 421),
        ("/", ("host: evil.example", "x-forwarded-host: {host}"), 421),
        ("/", ("host: evil.example", "forwarded: host={host}"), 421),
        ("/", ("host: {host}", "x-forwarded-host: evil.example"), 200),
        ("http://evil.example/", ("host: {host}",), 421),
        ("http://{host}/", ("host: evil.example",), 200),
    ],
)
def test_a_host_is_what_one_header_says(world: World, target: str, headers: tuple[str, ...], status: int) -> None:
    """Or a URL in the line of the request. Neither a second one nor what proxies add counts; no page repeats it."""
    person = world.person()
    lines = [one.format(host=world.place.host) for one in (f"GET {target} HTTP/1.1", *headers)]
    lines += [f"cookie: {person.cookie['cookie']}", "connection: close", "", ""]
    with socket.create_connection(("127.0.0.1", world.listener.port), timeout=SECONDS) as opened:
        opened.sendall("\r\n".join(lines).encode())
        answer = b"".join(iter(lambda: opened.recv(65536), b""))

    assert status == int(answer.split()[1])
    assert b"evil.example" not in answer
    assert (200 == status) == (b"Waiting for a person" in answer)
