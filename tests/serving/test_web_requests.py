"""HTTP as the doors and the console take it: what has two readings is refused, and floods leave the log readable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from pdp.serving.weblistener import Listener, serve
from pdp.serving.webrequests import Seldom

pytestmark = pytest.mark.anyio
LOG = logging.getLogger("uvicorn.error")


async def echo(scope: Any, _: Any, send: Any) -> None:
    """Answer with the host and the target that the application sees."""
    host = dict(scope["headers"]).get(b"host", b"")
    seen = host + b" " + scope["raw_path"] + b"?" + scope["query_string"]
    headers = [(b"connection", b"close"), (b"content-length", str(len(seen)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": seen})


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    """Serve it, and provide the port."""
    with Listener("127.0.0.1:0") as listener:
        serving = asyncio.ensure_future(serve(echo, listener))
        yield listener.port
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


async def answer_to(port: int, *lines: str, body: str = "") -> str:
    """Send a request as it is; return all that comes until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([*lines, "", body]).encode("ascii"))
    answer = (await reader.read()).decode("ascii")
    writer.close()
    return answer


@pytest.mark.parametrize("names", [("content-length", "transfer-encoding"), ("Transfer-Encoding", "Content-Length")])
async def test_a_request_with_two_lengths_is_refused(names: tuple[str, str]) -> None:
    """And the connection closed: what follows could be the rest of a body, or another request."""
    values = {"content-length": "4", "transfer-encoding": "chunked"}
    lengths = [f"{name}: {values[name.lower()]}" for name in names]
    async with listening() as port:
        answer = await answer_to(port, "POST / HTTP/1.1", "host: a", *lengths, body="0\r\n\r\n")

    assert answer.startswith("HTTP/1.1 400")
    assert 1 == answer.count("HTTP/1.1")


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("/b?c=d", "a /b?c=d"),
        ("http://example.org:80/b?c=d", "example.org:80 /b?c=d"),
        ("HTTPS://example.org/b", "example.org /b?"),
        ("http://example.org", "example.org /?"),
        ("http://example.org?c=d", "example.org /?c=d"),
        ("http:///b", " /b?"),
        ("http://user@a/b", "user@a /b?"),
    ],
)
async def test_a_target_can_be_a_whole_url(target: str, seen: str) -> None:
    """Its host counts, and not that of the header."""
    async with listening() as port:
        answer = await answer_to(port, f"GET {target} HTTP/1.1", "Host: a")

    assert seen == answer.partition("\r\n\r\n")[2]


async def test_nonsense_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line in a minute tells of it."""
    monkeypatch.setattr(LOG, "filters", [])
    monkeypatch.setattr("pdp.serving.weblistener._SELDOM", Seldom())
    async with listening() as port:
        answers = [await answer_to(port, "nonsense") for _ in range(20)]
        upgrades = [await answer_to(port, "GET / HTTP/1.1", "host: a", "connection: upgrade", "upgrade: websocket")]

    assert ["HTTP/1.1 400"] * 20 == [one[:12] for one in answers]
    assert ["HTTP/1.1 200"] == [one[:12] for one in upgrades]
    said = [one.message for one in caplog.records if LOG.name == one.name and logging.WARNING == one.levelno]
    assert sorted(set(said)) == sorted(said)
    assert "Invalid HTTP request received." in said
