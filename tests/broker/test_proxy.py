"""Requests pass through the broker with a secret, and nothing else of who asks; answers come back without it."""

from __future__ import annotations

import asyncio
import json
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any
from unittest.mock import patch

import pytest

from pdp.broker.proxy import ProxyFace
from pdp.calltokens.claims import Presenter
from tests.broker.worlds import ARGUMENTS, SECRET, Got, World, request, token, world
from tests.machinery.calltokens import PRESENTER
from tests.machinery.servers.running import PATIENCE


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    """Provide a broker that the tests of this module share."""
    with world() as made:
        yield made


def ask(
    here: World,
    method: str = "GET",
    url: str = "/github/repos/x",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    *,
    presenter: Presenter | None = PRESENTER,
) -> Got:
    """Send a request through the broker."""
    face = ProxyFace(here.broker, presenter=lambda _: presenter)
    try:
        rows = {"pdp-call-token": token(), **(headers or {})}
        return request(face, method, url, rows, body)
    finally:
        face.close()


def test_a_request_passes_without_what_speaks_for_the_caller(here: World) -> None:
    """With method, path, query and body as they are, the named headers, and the secret in the place of any other."""
    here.upstream.got.clear()
    here.upstream.headers = [("Content-Type", "a/b"), ("X-More", "1"), ("Set-Cookie", "s=1"), ("X-Other", "2")]
    caller = {
        "Authorization": "Bearer mine",
        "Cookie": "c=1",
        "Host": "evil.example",
        "Forwarded": "for=1",
        "Proxy-Authorization": "Basic eA==",
        "X-Forwarded-For": "1.2.3.4",
        "Upgrade": "websocket",
        "Connection": "x-version",
        "X-HTTP-Method-Override": "DELETE",
        "X-Version": "2",
        "Accept": "a/b",
    }

    got = ask(here, "POST", "/github/repos/a%2Fb?q=%20x", caller, b'{"a":1}')

    ((method, path, headers, body),) = here.upstream.got
    assert (200, b'{"done":true}') == (got.status, got.body)
    assert ("POST", "/repos/a%2Fb?q=%20x", b'{"a":1}') == (method, path, body)
    assert {
        "accept-encoding": "identity",
        "accept": "a/b",
        "authorization": f"Bearer {SECRET.decode()}",
        "content-length": "7",
        "host": here.upstream.origin.removeprefix("http://"),
        "x-version": "2",
    } == headers
    shown = {name: value for name, value in got.headers.items() if name != "date"}
    assert {"content-type": "a/b", "x-more": "1"} == shown


@pytest.mark.parametrize(
    ("method", "url", "headers", "status"),
    [
        ("CONNECT", "/github/repos/x", {}, 405),
        ("TRACE", "/github/repos/x", {}, 405),
        ("DELETE", "/github/repos/x", {}, 403),
        ("GET", "/github/admin", {}, 403),
        ("GET", "/github/repos", {}, 403),
        ("GET", "/github/user/x", {}, 403),
        ("GET", "/github/repos/../admin", {}, 400),
        ("GET", "/github/repos/%2e%2e/admin", {}, 400),
        ("GET", "/github/repos/..%2fadmin", {}, 400),
        ("GET", "/github//evil.example/repos/x", {}, 400),
        ("GET", "/unknown/repos/x", {}, 404),
        ("GET", "https://evil.example/repos/x", {}, 404),
        ("GET", "/other/x", {}, 403),
        ("GET", "/github/repos/x", {"pdp-upstream": "https://evil.example"}, 403),
        ("GET", "/github/repos/x", {"pdp-upstream": "/admin"}, 403),
        ("GET", "/github/repos/x", {"pdp-upstream": "/admin?"}, 403),
        ("GET", "/github/repos/x", {"pdp-upstream": "{origin}/admin"}, 403),
        ("GET", "/github/repos/x", {"pdp-upstream": "{origin}/admin?"}, 403),
        ("GET", "/github/repos/x", {"pdp-call-token": ""}, 403),
        ("GET", "/github/repos/x", {"accept": "\u00e9"}, 400),
    ],
)
def test_what_the_rules_do_not_let_pass_is_not_sent(
    here: World, method: str, url: str, headers: dict[str, str], status: int
) -> None:
    """Another method, path, host or no call token: nothing leaves."""
    here.upstream.got.clear()
    filled = {name: value.replace("{origin}", here.upstream.origin) for name, value in headers.items()}

    got = ask(here, method, url, filled)

    assert status == got.status
    assert got.said["error"].isprintable()
    assert [] == here.upstream.got


def test_a_call_token_of_another_server_or_presenter_or_a_second_use_is_refused(here: World) -> None:
    """The reason is there for programs."""
    once = token()
    rows = [
        ({"pdp-call-token": token(server="other")}, PRESENTER, "tool"),
        ({"pdp-call-token": token()}, Presenter(certificate="d" * 43), "presenter"),
        ({"pdp-call-token": token()}, None, "presenter"),
        ({"pdp-call-token": once}, PRESENTER, None),
        ({"pdp-call-token": once}, PRESENTER, "used"),
    ]

    found = [ask(here, headers=headers, presenter=presenter).said.get("reason") for headers, presenter, _ in rows]

    assert [reason for *_, reason in rows] == found


def test_an_echo_of_the_secret_does_not_come_back(here: World) -> None:
    """Neither in the body, at any place where its pieces are cut, nor in a header."""
    echo = b'{"raw":"' + SECRET + b'","basic":"' + b64encode(b"me:" + SECRET) + b'"}'
    before = here.upstream.headers, here.upstream.pieces
    try:
        here.upstream.headers = [("Content-Type", "a/b"), ("WWW-Authenticate", f'Bearer error="{SECRET.decode()}"')]
        for at in range(0, len(echo), 7):
            here.upstream.pieces = lambda at=at: iter(filter(None, [echo[:at], echo[at:]]))  # type: ignore[misc]
            got = ask(here)
            assert SECRET not in got.body
            assert b64encode(SECRET)[:16] not in got.body
            assert 'Bearer error="***"' == got.headers["www-authenticate"]
    finally:
        here.upstream.headers, here.upstream.pieces = before


def test_an_upstream_that_fails_is_not_asked_again(here: World) -> None:
    """A redirect is not followed; what came of the request is unknown, and the answer says so."""
    here.upstream.got.clear()
    here.upstream.status = 302
    try:
        got = ask(here)
    finally:
        here.upstream.status = 200

    assert (502, 1) == (got.status, len(here.upstream.got))
    assert "whether it did what was asked is unknown" in got.said["error"]


def test_too_many_open_requests_and_too_large_bodies_are_refused(here: World) -> None:
    """Before anything is used up."""
    presenters = [PRESENTER, Presenter()]
    full = ProxyFace(here.broker, presenter=lambda _: presenters[0], most_open=2)

    with full._open.taken(PRESENTER):
        assert 503 == request(full, "GET", "/github/repos/x", {"pdp-call-token": token()}).status
        presenters.pop(0)
        # It has room, and its token is another one's.
        assert 403 == request(full, "GET", "/github/repos/x", {"pdp-call-token": token()}).status
    assert 413 == ask(here, "POST", body=b"x" * (4 * 1024 * 1024 + 1)).status


CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "create_issue", "arguments": ARGUMENTS}}


def mcp(method: str, **params: Any) -> bytes:
    """Return a message of MCP."""
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


def test_a_call_over_mcp_is_verified_with_its_arguments(here: World) -> None:
    """By the tool and the arguments in the message itself, whatever the token is for."""
    body = json.dumps(CALL).encode()
    good = {"pdp-call-token": token(server="remote"), "Mcp-Session-Id": "s1"}
    other = {"pdp-call-token": token({**ARGUMENTS, "title": "u"}, server="remote")}
    tool = {"pdp-call-token": token(server="remote", tool="read_issue")}
    here.upstream.got.clear()

    assert 200 == ask(here, "POST", "/remote/mcp", good, body).status
    assert "s1" == here.upstream.got[0][2]["mcp-session-id"]
    assert "arguments" == ask(here, "POST", "/remote/mcp", other, body).said["reason"]
    assert "tool" == ask(here, "POST", "/remote/mcp", tool, body).said["reason"]
    assert 400 == ask(here, "POST", "/remote/mcp", good, b"[" + body + b"]").status
    assert 1 == len(here.upstream.got)


def test_a_message_is_for_the_upstream_what_it_is_here(here: World) -> None:
    """It is named as UTF-8, whatever the caller names it: in UTF-7 `+ACI-` is a quote. Nor do its headers differ."""
    body = mcp("tools/list", x="+ACIAfQAs-+ACI-method+ACI-:+ACI-tools/call")
    call, said = json.dumps(CALL).encode(), {"Mcp-Method": "tools/call", "Mcp-Name": "create_issue"}
    here.upstream.got.clear()

    def status(of: bytes, **headers: str) -> int:
        sent = {"pdp-call-token": token(server="remote"), **{name.replace("_", "-"): headers[name] for name in headers}}
        return ask(here, "POST", "/remote/mcp", sent, of, presenter=Presenter() if of is body else PRESENTER).status

    assert 200 == status(body, Content_Type="application/json; charset=utf-7")
    assert 200 == status(call, **said)
    assert 200 == status(call, **{**said, "Mcp-Name": "=?base64?Y3JlYXRlX2lzc3Vl?="})
    assert ["application/json"] * 3 == [headers["content-type"] for _, _, headers, _ in here.upstream.got]
    assert 400 == status(call, **{**said, "Mcp-Name": "delete_issue"})
    assert 400 == status(call, **{**said, "Mcp-Method": "tools/list"})
    assert 400 == status(body, **said)
    assert 3 == len(here.upstream.got)


@pytest.mark.parametrize(
    ("method", "body", "presenter", "status"),
    [
        ("POST", mcp("tools/list")[:-1] + b',"Method":"tools/call"}', Presenter(), 400),
        ("POST", mcp("initialize"), Presenter(), 200),
        ("POST", mcp("tools/list"), Presenter(), 200),
        ("GET", b"", Presenter(), 200),
        ("DELETE", b"", Presenter(), 200),
        ("POST", mcp("tools/list"), PRESENTER, 403),
        ("POST", mcp("tools/list"), None, 403),
        ("POST", mcp("resources/read", uri="x"), Presenter(), 403),
        ("POST", mcp("GET"), Presenter(), 403),
        ("POST", b'{"jsonrpc":"2.0","id":1,"method":["tools/list"]}', Presenter(), 403),
        ("POST", b'{"jsonrpc":"2.0","id":1,"result":{}}', Presenter(), 403),
        ("GET", b"{}", Presenter(), 403),
    ],
)
def test_what_calls_no_tool_passes_for_those_that_the_rules_name(
    here: World, method: str, body: bytes, presenter: Presenter | None, status: int
) -> None:
    """Only what begins, ends and lists; with the secret of the connection that the rules name for it."""
    here.upstream.got.clear()
    here.record.events.clear()

    got = ask(here, method, "/remote/mcp", {"pdp-call-token": ""}, body, presenter=presenter)

    assert status == got.status
    assert (status == 200) == bool(here.upstream.got)
    assert (["connection.used", "calltoken.answered"] if status == 200 else []) == here.record.kinds


def test_a_stream_of_events_is_handed_on_at_once(here: World) -> None:
    """Each event before the next one is made; a challenge and the id of a session come back too."""
    before = here.upstream.headers, here.upstream.pieces
    more = threading.Event()

    def events() -> Iterator[bytes]:
        yield b"data: 1\n\n"
        assert more.wait(PATIENCE)
        yield b"data: 2\n\n"

    class Pieces(list[bytes]):
        def append(self, piece: bytes) -> None:
            super().append(piece)
            more.set()

    here.upstream.headers, here.upstream.pieces = (
        [("Content-Type", "text/event-stream"), ("Mcp-Session-Id", "s")],
        events,
    )
    face = ProxyFace(here.broker, presenter=lambda _: Presenter())
    try:
        got = request(face, "GET", "/remote/mcp", {}, pieces=Pieces())
    finally:
        here.upstream.headers, here.upstream.pieces = before
        face.close()

    assert [b"data: 1\n\n", b"data: 2\n\n"] == got.pieces
    assert ("text/event-stream", "s") == (got.headers["content-type"], got.headers["mcp-session-id"])


def a_request() -> dict[str, Any]:
    """Return the scope of a request that the rules let pass."""
    return {
        "type": "http",
        "method": "GET",
        "raw_path": b"/github/repos/x",
        "query_string": b"",
        "headers": [(b"pdp-call-token", token().encode())],
    }


def test_a_client_that_leaves_ends_the_request_to_the_upstream(here: World) -> None:
    """By which the upstream learns that nobody waits any more."""
    before, released = here.upstream.pieces, threading.Event()
    begun = threading.Event()

    def never() -> Iterator[bytes]:
        # Shorter than the broker waits for an upstream: who is not cut off ends the answer whole.
        released.wait(20)
        yield b"x"

    here.upstream.pieces = never
    face = ProxyFace(here.broker, presenter=lambda _: PRESENTER)
    messages = [{"type": "http.request", "body": b""}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await asyncio.to_thread(begun.wait, PATIENCE)
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        begun.set()

    try:
        with pytest.raises(ConnectionAbortedError):
            asyncio.run(face(a_request(), receive, send))
    finally:
        released.set()
        here.upstream.pieces = before
        face.close()

    assert "broken" == here.record.events[-1].facts["outcome"]


def test_a_client_that_does_not_take_the_answer_holds_no_thread(here: World) -> None:
    """Otherwise as many of them as there are threads would keep all others out, for as long as they like."""
    face = ProxyFace(here.broker, presenter=lambda _: PRESENTER)
    messages = [{"type": "http.request", "body": b""}]

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    try:
        with patch("pdp.broker.replies._TAKING_SECONDS", 0.01):
            asyncio.run(asyncio.wait_for(face(a_request(), receive, send), PATIENCE))
    finally:
        face.close()

    assert "broken" == here.record.events[-1].facts["outcome"]
