"""The real Envoy before an HTTP service that is a tool: what it sends on was asked about in that form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pdp.doors.envoy.tables import read_tables
from pdp.testing.inprocess import RunningServer
from tests.doors.envoy.asker import TABLE, door, opened
from tests.doors.envoy.real.world import HTTP, Backend, Envoy, running_envoy

pytestmark = pytest.mark.doors


@pytest.fixture(scope="module")
def running(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Envoy, Backend]]:
    """Return one Envoy for all tests."""
    folder = tmp_path_factory.mktemp("envoy")
    file = folder / "tables.yaml"
    file.write_text(TABLE, encoding="utf-8")
    backend = Backend()
    with door(server, tables=read_tables(file)) as asker:
        port = int(asker.address.rpartition(":")[2])
        with running_envoy(folder, door=port, backend=backend.port, changes=HTTP) as envoy:
            yield envoy, backend
    backend.close()


# What is sent, the status, and what the service gets: nothing where there is no target.
REQUESTS: dict[str, tuple[str, str, bytes | None, dict[str, str], int, str]] = {
    "an argument in the path": ("GET", "/notes/hello", None, {}, 200, "/notes/hello"),
    "escapes": ("GET", "/notes/a%20b%C3%A9", None, {}, 200, "/notes/a%20b%C3%A9"),
    "a query": ("GET", "/notes/a?amount=3&value=x+y", None, {}, 200, "/notes/a?amount=3&value=x+y"),
    "a body": ("POST", "/notes", b'{"text": "a"}', {}, 200, "/notes"),
    "dots that Envoy resolves": ("GET", "/x/../notes/a", None, {}, 200, "/notes/a"),
    "slashes that Envoy merges": ("GET", "//notes///a", None, {}, 200, "/notes/a"),
    "a fragment": ("GET", "/notes/a#b", None, {}, 400, ""),
    "a whole URL": ("GET", "http://example.org/notes/a", None, {}, 200, "/notes/a"),
    "a denied call": ("GET", "/closed", None, {}, 403, ""),
    "an unknown path": ("GET", "/nothing", None, {}, 404, ""),
    "an unknown method": ("PATCH", "/notes", b"{}", {}, 404, ""),
    "dots that lead elsewhere": ("GET", "/notes/../closed", None, {}, 403, ""),
    "encoded dots": ("GET", "/notes/%2e%2e/closed", None, {}, 403, ""),
    "an encoded slash": ("GET", "/notes/a%2Fb", None, {}, 400, ""),
    "one encoded twice": ("GET", "/notes/a%252Fb", None, {}, 400, ""),
    "an encoded backslash": ("GET", "/notes/a%5cb", None, {}, 400, ""),
    "a backslash": ("GET", "/notes\\a", None, {}, 200, "/notes/a"),
    "a parameter of a path": ("GET", "/notes/a;b", None, {}, 400, ""),
    "a NUL": ("GET", "/notes/a%00", None, {}, 400, ""),
    "a key twice": ("GET", "/notes/a?amount=1&amount=2", None, {}, 400, ""),
    "an unknown key": ("GET", "/notes/a?more=1", None, {}, 400, ""),
    "a body where there is none": ("GET", "/notes/a", b"{}", {}, 400, ""),
    "a body with a key twice": ("POST", "/notes", b'{"text": "a", "text": "b"}', {}, 400, ""),
    "another method in a header": ("GET", "/notes/a", None, {"x-http-method-override": "PUT"}, 400, ""),
    "an upgrade": ("GET", "/notes/a", None, {"upgrade": "websocket", "connection": "upgrade"}, 403, ""),
    "CONNECT": ("CONNECT", "example.org:443", None, {}, 404, ""),
    "no session": ("GET", "/notes/a", None, {"x-pdp-session": "pdps_unknown"}, 403, ""),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_service_gets_what_was_asked_about(
    server: RunningServer, running: tuple[Envoy, Backend], name: str
) -> None:
    """Or nothing: the path that Envoy sends on is the one that it asked about."""
    method, target, body, headers, status, reached = REQUESTS[name]
    envoy, backend = running
    backend.got.clear()
    sent: dict[str, Any] = {"x-pdp-session": opened(server)[1], **headers}
    if body is not None:
        sent = {"content-type": "application/json", **sent}

    said = envoy.send(method, target, body, sent)

    assert status == said.status
    assert [(method, reached, body or b"")] * bool(reached) == [
        (one.method, one.target, one.body) for one in backend.got
    ]
    assert not any(name.startswith("x-pdp") for one in backend.got for name in one.headers)


@pytest.mark.parametrize(
    ("value", "reached"),
    [
        (b"b!c", ["/notes/a?value=b!c"]),
        (b"b\xffc", []),
        (b"b\xc3\xa9c", []),
        (b"b%FFc", []),
        (b"b%21c", ["/notes/a?value=b%21c"]),
    ],
)
def test_a_byte_that_envoy_cannot_show_reaches_no_service(
    server: RunningServer, running: tuple[Envoy, Backend], value: bytes, reached: list[str]
) -> None:
    """Over HTTP/2 Envoy takes any byte in a query, and sends it on; as text it shows an `!` in its place."""
    envoy, backend = running
    backend.got.clear()
    envoy.send_frames(b"/notes/a?value=" + value, [("x-pdp-session", opened(server)[1].encode())])

    assert reached == [one.target for one in backend.got]
