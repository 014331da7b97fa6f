"""What the proxy refuses over HTTP before a call is asked about: none of it reaches the server."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import socket
from contextlib import AsyncExitStack, suppress
from typing import Any
from unittest.mock import patch

import httpx2
import pytest

from pdp.doors.mcp.messages import MOST_BYTES
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import MODERN, PATIENCE, STATED
from tests.doors.mcp.webworld import HANDLE, World, message_of, world

pytestmark = pytest.mark.anyio

CALL = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


def a_call(name: str = "echo", **arguments: Any) -> dict[str, Any]:
    """Return a call of the era without a handshake."""
    params = {"name": name, "arguments": arguments or {"text": "x"}, "_meta": STATED}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("host", "attacker.example", 403),
        ("host", "127.0.0.1", 403),
        ("origin", "https://attacker.example", 403),
        ("origin", "null", 403),
        ("content-type", "text/plain", 415),
        ("content-type", "application/json; charset=utf-16", 415),
        ("content-encoding", "gzip", 415),
        ("mcp-method", "tools/list", 400),
        ("mcp-method", "", 400),
        ("mcp-name", "hidden", 400),
        ("mcp-name", "=?base64?!?=", 400),
        ("mcp-name", "", 400),
        ("mcp-protocol-version", "2025-11-25", 400),
        ("mcp-protocol-version", "", 400),
    ],
)
async def test_a_wrong_header_is_refused(desk_pdp: RunningServer, header: str, value: str, status: int) -> None:
    """Another host, another origin, another kind of body, or a header that says other than the message."""
    async with world(desk_pdp) as here:
        _, handle = here.session()
        answer = await here.call("echo", {"text": "x"}, handle=handle, **{header: value})

        assert status == answer.status_code
        assert (
            header not in ("mcp-method", "mcp-name", "mcp-protocol-version")
            or -32020 == message_of(answer)["error"]["code"]
        )
        assert {} == here.desk.headers


async def test_the_page_of_the_own_origin_may_call(desk_pdp: RunningServer) -> None:
    """A page of this machine with the port of the proxy is not foreign."""
    async with world(desk_pdp) as here:
        _, handle = here.session()
        origin = here.url.removesuffix("/mcp")
        answer = await here.call("echo", {"text": "x"}, handle=handle, origin=origin)

        assert 200 == answer.status_code


async def test_a_name_beyond_ascii_is_compared_as_it_is_meant(desk_pdp: RunningServer) -> None:
    """Such a name comes in base64; the call is asked about, and unknown."""
    name = "größe"
    written = f"=?base64?{base64.b64encode(name.encode()).decode()}?="
    async with world(desk_pdp) as here:
        _, handle = here.session()
        answer = await here.call(name, handle=handle, mcp_name=written)

        assert "did not run" in message_of(answer)["result"]["content"][0]["text"]
        assert 0 == here.desk.ran.total()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xef\xbb\xbf{}",
        json.dumps([a_call()]).encode(),
        json.dumps(a_call()).encode("utf-16"),
        json.dumps(a_call()).replace('"name": "echo"', '"name": "hidden", "name": "echo"').encode(),
        json.dumps(a_call(), ensure_ascii=False).replace('"x"', '"\\ud800"').encode(),
        gzip.compress(json.dumps(a_call()).encode()),
    ],
)
async def test_what_is_no_message_is_refused(desk_pdp: RunningServer, body: bytes) -> None:
    """Each is answered with a parse error, and the proxy goes on."""
    sent = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "echo"}
    async with world(desk_pdp) as here:
        _, handle = here.session()
        refused = await here.post(body, sent, handle=handle)
        after = await here.call("echo", {"text": "after"}, handle=handle)

        assert (400, -32700) == (refused.status_code, message_of(refused)["error"]["code"])
        assert "after" in after.text
        assert ["after"] == here.desk.texts


async def raw(here: World, head: str, *pieces: bytes) -> str:
    """Send an HTTP request as it is written, and return the first line of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", here.listener.port)
    writer.write(head.replace("\n", "\r\n").encode() + b"\r\n")
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    line = await reader.readline()
    writer.close()
    return line.decode().strip()


def head(here: World, handle: str, *lines: str, method: str = "POST") -> str:
    """Return the head of a request."""
    own = [f"{method} /mcp HTTP/1.1", f"host: 127.0.0.1:{here.listener.port}", "content-type: application/json"]
    return "\n".join([*own, f"{HANDLE}: {handle}", *lines, ""])


async def test_a_body_that_is_announced_too_large_is_refused_unread(desk_pdp: RunningServer) -> None:
    """Not one byte of it is waited for."""
    async with world(desk_pdp) as here:
        _, handle = here.session()
        answer = await raw(here, head(here, handle, f"content-length: {MOST_BYTES + 1}"))

        assert answer.startswith("HTTP/1.1 413")


async def test_a_body_in_pieces_is_refused_as_soon_as_it_is_too_large(desk_pdp: RunningServer) -> None:
    """A stranger's body ends earlier than that of a session."""
    async with world(desk_pdp) as here:
        piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
        answer = await raw(here, head(here, "pdps_unknown", "transfer-encoding: chunked"), piece, b"1\r\n \r\n")

        assert answer.startswith("HTTP/1.1 413")


async def test_a_body_of_the_largest_size_is_sent_on(desk_pdp: RunningServer) -> None:
    """At the bound a message passes as it is written."""
    body = json.dumps(a_call("missing", text="x")).encode()
    sent = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "missing"}
    async with world(desk_pdp) as here:
        _, handle = here.session()
        answer = await here.post(body + b" " * (MOST_BYTES - len(body)), sent, handle=handle)

        assert 200 == answer.status_code
        assert "did not run" in answer.text


async def test_a_slow_body_is_given_up(desk_pdp: RunningServer) -> None:
    """Who sends a body byte by byte holds a connection for a while only."""
    async with world(desk_pdp) as here:
        _, handle = here.session()
        with patch("pdp.serving.web._BODY_SECONDS", 0.05):
            answer = await raw(here, head(here, handle, "transfer-encoding: chunked"), b"1\r\n{\r\n")

        assert answer.startswith("HTTP/1.1 408")


@pytest.mark.parametrize("begun", [b"", b"POST /mcp HTTP/1.1\r\nhost:"])
async def test_a_slow_head_is_given_up(desk_pdp: RunningServer, begun: bytes) -> None:
    """A connection without a whole request ends."""
    with patch("pdp.serving.webconnections.HEAD_SECONDS", 0.05):
        async with world(desk_pdp) as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.listener.port)
            writer.write(begun)
            with suppress(ConnectionResetError):
                assert b"" == await reader.read()
            writer.close()


async def test_connections_without_a_request_make_room(desk_pdp: RunningServer) -> None:
    """However many there are, one more is served, and none that has a request is ended for it."""
    with patch("pdp.serving.webconnections.MOST_CONNECTIONS", 6):
        async with world(desk_pdp) as here, AsyncExitStack() as opened:
            _, handle = here.session()
            calling = asyncio.ensure_future(here.call("slow", {"steps": 0}, handle=handle))
            await here.desk.begun.wait()
            writers = [(await asyncio.open_connection("127.0.0.1", here.listener.port))[1] for _ in range(20)]
            for writer in writers:
                opened.callback(writer.close)
                writer.write(b"POST /mcp HTTP/1.1\r\n")
            served = await here.call("echo", {"text": "here"}, handle=handle)
            here.desk.go_on.set()
            called = await calling

    assert "here" in served.text
    assert "done" in called.text


async def test_a_large_head_is_refused(desk_pdp: RunningServer) -> None:
    """Headers are bounded too."""
    async with world(desk_pdp) as here:
        answer = await raw(here, head(here, "x", *(f"x-{n}: {'y' * 4000}" for n in range(40))))

        assert answer.startswith("HTTP/1.1 4")


@pytest.mark.parametrize("name", [HANDLE, "Mcp-Name", "Origin"])
async def test_a_header_that_is_there_twice_is_refused(desk_pdp: RunningServer, name: str) -> None:
    """One reader would take the first, and another the last."""
    async with world(desk_pdp) as here:
        answer = await raw(here, head(here, "x", f"{name}: a", f"{name}: b", "content-length: 0"))

        assert answer.startswith("HTTP/1.1 400")


@pytest.mark.parametrize(("method", "status"), [("PUT", 405), ("OPTIONS", 405), ("GET", 405), ("DELETE", 405)])
async def test_other_methods_are_refused(desk_pdp: RunningServer, method: str, status: int) -> None:
    """Without a handshake there is nothing to listen to, and nothing to end."""
    async with world(desk_pdp) as here:
        _, handle = here.session()
        headers = {HANDLE: handle, "mcp-protocol-version": MODERN, "mcp-session-id": "x"}
        async with httpx2.AsyncClient(timeout=PATIENCE) as http:
            answer = await http.request(method, here.url, headers=headers)

        assert (status, "DELETE, GET, POST") == (answer.status_code, answer.headers["allow"])
        assert {} == here.desk.headers


async def test_another_path_is_refused(desk_pdp: RunningServer) -> None:
    """There is one route."""
    async with world(desk_pdp) as here, httpx2.AsyncClient(timeout=PATIENCE) as http:
        answer = await http.post(here.url + "/x", json=a_call(), headers=CALL)

        assert 404 == answer.status_code


async def test_an_unknown_method_is_refused(desk_pdp: RunningServer) -> None:
    """What is not in the table does not pass."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"_meta": STATED}}
    async with world(desk_pdp) as here:
        _, handle = here.session()
        answer = await here.post(body, {"mcp-protocol-version": MODERN, "mcp-method": "tasks/get"}, handle=handle)

        assert (404, -32601) == (answer.status_code, message_of(answer)["error"]["code"])
        assert {} == here.desk.headers


async def test_answers_are_not_held_back_to_be_collected(desk_pdp: RunningServer) -> None:
    """Without the protocol by name asyncio leaves Nagle's algorithm on, which costs 40 ms for each answer."""
    async with world(desk_pdp) as here:
        proto = here.listener.socket.proto
        await here.call("echo", handle="")

    assert socket.IPPROTO_TCP == proto
