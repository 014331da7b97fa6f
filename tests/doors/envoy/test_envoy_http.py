"""What Envoy is told about requests to HTTP services that are tools, by a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pdp.doors.envoy.tables import Table, read_tables
from pdp.errors import ConfigurationError
from pdp.testing.inprocess import RunningServer, running_server
from pdp.v1.decision_pb2 import Decision
from tests.doors.desk import files
from tests.doors.envoy.asker import ROUTE, TABLE, Asker, door, opened
from tests.doors.loop import SECONDS, little_of_the_time
from tests.machinery.pages import blocks
from tests.machinery.servers.scripted import ScriptedServer


def tables(folder: Path, text: str = TABLE) -> Any:
    """Return the tables of a file."""
    file = folder / "tables.yaml"
    file.write_text(text, encoding="utf-8")
    return read_tables(file)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Table]:
    """Return the table of the desk."""
    return dict(tables(tmp_path_factory.mktemp("tables")))


@pytest.fixture
def service(server: RunningServer, table: dict[str, Table]) -> Iterator[Asker]:
    """Return what asks about requests to the service of the desk."""
    _, handle = opened(server)
    with door(server, handle, route=ROUTE, tables=table) as asker:
        yield asker


CALLS: dict[str, tuple[str, str, bytes, dict[str, Any]]] = {
    "an argument in the path": ("GET", "/notes/hello", b"", {"text": "hello"}),
    "one with escapes": ("GET", "/notes/a%20b%C3%A9+%21", b"", {"text": "a bé+!"}),
    "one in the query": ("GET", "/notes/a?amount=3&value=x+y%26z", b"", {"text": "a", "amount": 3, "value": "x y&z"}),
    "one that is empty": ("GET", "/notes/a?value=", b"", {"text": "a", "value": ""}),
    "an integer in the path": ("DELETE", "/amounts/-7", b"", {"amount": -7}),
    "some in the body": ("POST", "/notes", b' {"text": "\\u00e9", "amount": 1 } ', {"text": "é", "amount": 1}),
    "some in both": ("PUT", "/notes/a/entries", b'{"amount": 9}', {"text": "a", "amount": 9}),
    "none": ("GET", "/", b"", {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_request_is_a_call_with_its_arguments(table: dict[str, Table], name: str) -> None:
    """From path, query and body."""
    method, path, body, arguments = CALLS[name]
    scripted = ScriptedServer()
    with door(None, "pdps_secret", address=scripted.start(), route=ROUTE, tables=table) as asker:
        told = asker.http(method, path, body)
    scripted.stop()

    (sent,) = scripted.sent("Authorize")
    assert told.allowed
    assert {"x-pdp-decision": "dec_1"} == told.headers
    assert ("x-pdp-session",) == told.removed
    assert ("desk", "note") == (sent.call.server, sent.call.tool)
    assert arguments == json.loads(sent.call.arguments_json)


def test_numbers_of_a_body_are_asked_about_as_they_are_written(table: dict[str, Table]) -> None:
    """Byte for byte."""
    value = b"[1.0, 9007199254740993, 123456789012345678901234567890, -0, 1e3]"
    scripted = ScriptedServer()
    with door(None, "pdps_secret", address=scripted.start(), route=ROUTE, tables=table) as asker:
        asker.http("POST", "/notes", b'{"value" : ' + value + b"}")
    scripted.stop()

    assert [b'{"value":' + value + b"}"] == [one.call.arguments_json for one in scripted.sent("Authorize")]


REFUSED: dict[str, tuple[str, str, bytes, dict[str, str], int]] = {
    "an unknown path": ("GET", "/nothing", b"", {}, 404),
    "an unknown method": ("PATCH", "/notes", b"", {}, 404),
    "a method in small letters": ("get", "/closed", b"", {}, 404),
    "HEAD for GET": ("HEAD", "/notes/a", b"", {}, 404),
    "OPTIONS": ("OPTIONS", "*", b"", {}, 400),
    "CONNECT": ("CONNECT", "example.org:443", b"", {}, 400),
    "an upgrade": ("GET", "/notes/a", b"", {"upgrade": "websocket"}, 400),
    "another case": ("GET", "/Notes/a", b"", {}, 404),
    "one segment more": ("GET", "/notes/a/b", b"", {}, 404),
    "a slash at the end": ("GET", "/notes/a/", b"", {}, 400),
    "two slashes": ("GET", "//notes/a", b"", {}, 400),
    "an encoded slash": ("GET", "/notes/a%2Fb", b"", {}, 400),
    "one in small letters": ("GET", "/notes/a%2fb", b"", {}, 400),
    "one encoded twice": ("GET", "/notes/a%252fb", b"", {}, 400),
    "a backslash": ("GET", "/notes/a\\b", b"", {}, 400),
    "an encoded backslash": ("GET", "/notes/a%5Cb", b"", {}, 400),
    "dots": ("GET", "/x/../notes/a", b"", {}, 400),
    "a dot": ("GET", "/notes/.", b"", {}, 400),
    "encoded dots": ("GET", "/notes/%2e%2E", b"", {}, 400),
    "a parameter of a path": ("GET", "/notes/a;b=c", b"", {}, 400),
    "a NUL": ("GET", "/notes/a%00", b"", {}, 400),
    "a line's end": ("GET", "/notes/a%0d%0ab", b"", {}, 400),
    "no UTF-8": ("GET", "/notes/%ff", b"", {}, 400),
    "half an escape": ("GET", "/notes/a%2", b"", {}, 400),
    "a character without an escape": ("GET", "/notes/é", b"", {}, 400),
    "an escape where none is needed": ("GET", "/n%6Ftes/a", b"", {}, 404),
    "what Envoy shows of a byte that is not UTF-8": ("GET", "/notes/a?value=b!c", b"", {}, 400),
    "the same in the path": ("GET", "/notes/a!", b"", {}, 400),
    "a whole URL": ("GET", "http://example.org/notes/a", b"", {}, 400),
    "a fragment": ("GET", "/notes/a#b", b"", {}, 400),
    "a key twice": ("GET", "/notes/a?amount=1&amount=2", b"", {}, 400),
    "an unknown key": ("GET", "/notes/a?more=1", b"", {}, 400),
    "an encoded key": ("GET", "/notes/a?%61mount=1", b"", {}, 400),
    "a key as a list": ("GET", "/notes/a?amount[]=1", b"", {}, 400),
    "a key without a value": ("GET", "/notes/a?amount", b"", {}, 400),
    "an empty query": ("GET", "/notes/a?", b"", {}, 400),
    "another separator": ("GET", "/notes/a?amount=1;value=2", b"", {}, 400),
    "a query where there is none": ("GET", "/closed?a=1", b"", {}, 400),
    "no integer": ("GET", "/notes/a?amount=1.0", b"", {}, 400),
    "an integer in another form": ("GET", "/notes/a?amount=01", b"", {}, 400),
    "no integer in the path": ("DELETE", "/amounts/x", b"", {}, 404),
    "two templates": ("GET", "/both/me", b"", {}, 404),
    "a body where there is none": ("GET", "/notes/a", b"{}", {}, 400),
    "a body that is not shown": ("GET", "/notes/a", b"", {"content-length": "2"}, 400),
    "no body": ("POST", "/notes", b"", {"content-type": "application/json"}, 400),
    "a body that is a list": ("POST", "/notes", b"[]", {}, 400),
    "a body with a key twice": ("POST", "/notes", b'{"text": "a", "text": "b"}', {}, 400),
    "a body in UTF-16": ("POST", "/notes", '{"text": "a"}'.encode("utf-16"), {}, 400),
    "a form": ("POST", "/notes", b"text=a", {"content-type": "application/x-www-form-urlencoded"}, 415),
    "a packed body": ("POST", "/notes", b'{"text": "a"}', {"content-encoding": "gzip"}, 415),
    "an argument in path and body": ("PUT", "/notes/a/entries", b'{"text": "b"}', {}, 400),
    "another method in a header": ("GET", "/notes/a", b"", {"x-http-method-override": "DELETE"}, 400),
    "another path in a header": ("GET", "/notes/a", b"", {"x-original-url": "/closed"}, 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused(table: dict[str, Table], name: str) -> None:
    """Nobody is asked about it, and the next request is sent on."""
    method, path, body, headers, status = REFUSED[name]
    scripted = ScriptedServer()
    with door(None, "pdps_secret", address=scripted.start(), route=ROUTE, tables=table) as asker:
        told = asker.http(method, path, body, headers)
        asked = scripted.sent("Authorize")
        following = asker.http("GET", "/notes/a")
    scripted.stop()

    assert (False, status) == (told.allowed, told.status)
    assert [] == asked
    assert following.allowed


def test_a_denied_request_is_answered_with_403(service: Asker) -> None:
    """As an HTTP service would, with the basis and the decision."""
    told = service.http("GET", "/closed")

    assert 403 == told.status
    assert "default_deny" == told.body["basis"] == told.metadata["basis"]
    assert told.headers["x-pdp-decision"] == told.body["decision_id"]
    assert "Denied (default_deny)" in told.body["error"]
    assert [] == service.ran


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [("GET", "/people", "did not run"), ("POST", "/pay/3", "a person must approve exactly this call first")],
)
def test_what_the_door_cannot_do_is_denied(service: Asker, method: str, path: str, says: str) -> None:
    """An obligation about the result, and a call that a person must approve."""
    told = service.http(method, path)

    assert 403 == told.status
    assert says in told.body["error"]


@pytest.mark.parametrize("handle", ["", "pdps_unknown", "a,b"])
def test_a_request_without_a_session_is_refused(server: RunningServer, table: dict[str, Table], handle: str) -> None:
    """Whatever it is."""
    with door(server, handle, route=ROUTE, tables=table) as asker:
        assert 403 == asker.http("GET", "/notes/a").status


def test_what_must_be_reported_is_denied(table: dict[str, Table]) -> None:
    """This door never sees the result."""
    with running_server(files(reports=True)) as server:
        _, handle = opened(server)
        with door(server, handle, route=ROUTE, tables=table) as asker:
            told = asker.http("GET", "/notes/a")

    assert 403 == told.status
    assert "cannot be reported from here" in told.body["error"]


def test_a_pdp_that_is_away_is_told(table: dict[str, Table]) -> None:
    """With 503, which is no answer to the question; a route of an unknown table has none either."""
    with door(None, "pdps_secret", address="127.0.0.1:1", route=ROUTE, tables=table, timeout=5.0) as asker:
        assert 503 == asker.http("GET", "/notes/a").status
        assert 403 == asker.http("GET", "/notes/a", route={"table": "other"}).status


def test_a_pdp_that_is_slow_is_told(table: dict[str, Table]) -> None:
    """Before Envoy stops waiting."""
    scripted = ScriptedServer()
    scripted.decide = lambda asked, _: (
        ScriptedServer.honest(asked) if scripted.released.wait(2 * SECONDS) else Decision()
    )
    with door(None, "pdps_secret", address=scripted.start(), route=ROUTE, tables=table) as asker:
        with little_of_the_time():
            assert 503 == asker.http("GET", "/notes/a").status
        scripted.released.set()
    scripted.stop()

    assert [] == asker.ran


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there are no tables"),
        ("desk: {}", "tables.yaml:1: the table `desk` has no requests"),
        ("desk:\n  GET /a: desk/note", "`GET /a` has no `tool`"),
        ("desk:\n  get /a: {tool: desk/note}", "not a method and a path"),
        ("desk:\n  GET a: {tool: desk/note}", "not a method and a path"),
        ("desk:\n  GET /a/: {tool: desk/note}", "not a method and a path"),
        ("desk:\n  GET /a/..: {tool: desk/note}", "not a method and a path"),
        ("desk:\n  GET /a%20: {tool: desk/note}", "not a method and a path"),
        ("desk:\n  GET /a!: {tool: desk/note}", "not a method and a path"),
        ("desk:\n  GET /{a}.json: {tool: desk/note}", "not a method and a path"),
        ("desk:\n  GET /a?b=c: {tool: desk/note}", "not a method and a path"),
        ("desk:\n  GET /a: {tool: note}", "`tool` is not a tool of the catalogue"),
        ("desk:\n  GET /a: {tools: desk/note}", "did you mean `tool`"),
        ("desk:\n  GET /a: {tool: desk/note, query: b}", "`query` is not a list of names"),
        ("desk:\n  GET /a: {tool: desk/note, body: 1}", "`body` is neither true nor false"),
        ("desk:\n  GET /{a}/{a}: {tool: desk/note}", "the argument `a` has two places"),
        ("desk:\n  GET /{a}: {tool: desk/note, query: [a]}", "the argument `a` has two places"),
        ("desk:\n  GET /a: {tool: desk/note, integers: [b]}", "`b` is neither in the path nor in `query`"),
        ("desk:\n  GET /a: {tool: desk/note}\n  GET /a: {tool: desk/pay}", "appears twice"),
    ],
)
def test_a_mistake_in_a_table_is_named(tmp_path: Path, text: str, says: str) -> None:
    """The door does not start."""
    with pytest.raises(ConfigurationError) as raised:
        tables(tmp_path, text)

    assert says in str(raised.value)


def test_the_page_shows_a_table(project_root: Path, tmp_path: Path) -> None:
    """It can be read, and has the requests that the page speaks of."""
    (text,) = blocks(project_root / "pdp" / "doors" / "ENVOY.md", "yaml table")

    found = tables(tmp_path, text)["github"]

    assert ["list_issues", "create_issue", "get_issue"] == [one.tool for one in found]
