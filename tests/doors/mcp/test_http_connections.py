"""The connections to the server behind the proxy: used again, unless the server has said more than its answer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pdp.doors.mcp.upstream import Upstream, UpstreamError
from tests.doors.mcp.conversation import PATIENCE
from tests.machinery.credentials.authority import Authority

pytestmark = pytest.mark.anyio

# What one connection says, request by request.
Says = Callable[[int], Sequence[bytes]]


def whole(body: bytes, head: bytes = b"") -> bytes:
    """Return an answer over HTTP."""
    return b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


FORGED = whole(b"forged")
# As much as the proxy reads at one time.
PIECE = whole(b"right" + b" " * (65_536 - len(whole(b" " * 65_000)) + 65_000 - 5))
EARLY = b"HTTP/1.1 103 Early Hints\r\n\r\n"


@asynccontextmanager
async def serving(says: Says, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[int]]]:
    """Serve, and provide the port and how many requests came on each connection."""
    asked: list[int] = []
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(asked)
        asked.append(0)
        writers.append(writer)
        while (await reader.readline()).startswith(b"GET"):
            await reader.readuntil(b"\r\n\r\n")
            for one in says(asked[number]):
                writer.write(one)
            asked[number] += 1
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1], asked
        for writer in writers:
            writer.close()
        await asyncio.sleep(0)


async def bodies(upstream: Upstream, count: int) -> list[bytes]:
    """Ask some times, one after the other, and return what is answered."""
    found = []
    for _ in range(count):
        async with upstream.exchange("GET", {}) as answer:
            found.append((await answer.body()).strip())
        await asyncio.sleep(0.01)
    return found


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """Return how a server speaks TLS whose roots are in `roots.pem`."""
    files = Authority().files(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    return context


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "first",
    [
        [whole(b"right") + FORGED],
        [whole(b"right"), FORGED],
        [PIECE, FORGED],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nright\r\n0\r\n\r\n" + FORGED],
    ],
)
async def test_what_comes_behind_an_answer_is_none(
    first: list[bytes], scheme: str, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    """The next request may be that of another session. It goes by another connection."""
    secure = scheme == "https"
    async with (
        asyncio.timeout(PATIENCE),
        serving(lambda number: [whole(b"second")] if number else first, tls if secure else None) as (port, asked),
        Upstream(f"{scheme}://localhost:{port}/", ca_file=tmp_path / "roots.pem") as upstream,
    ):
        found = await bodies(upstream, 2)

        assert [b"right", b"right"] == found
        assert [1, 1] == asked


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_connection_is_used_again(scheme: str, tls: ssl.SSLContext, tmp_path: Path) -> None:
    """A new one takes several turns over a network."""
    secure = scheme == "https"
    async with (
        asyncio.timeout(PATIENCE),
        serving(lambda _: [EARLY, whole(b"right")], tls if secure else None) as (port, asked),
        Upstream(f"{scheme}://localhost:{port}/", ca_file=tmp_path / "roots.pem") as upstream,
    ):
        found = await bodies(upstream, 20)

        assert [b"right"] * 20 == found
        assert [20] == asked


async def test_an_answer_that_does_not_begin_is_given_up() -> None:
    """A server could send headers before those of its answer for ever, and keep the proxy busy."""
    async with (
        asyncio.timeout(PATIENCE),
        serving(lambda _: [EARLY * 100]) as (port, _),
        Upstream(f"http://127.0.0.1:{port}/") as upstream,
    ):
        with pytest.raises(UpstreamError, match="does not answer"):
            await bodies(upstream, 1)


async def test_what_is_said_before_tls_is_no_answer(tls: ssl.SSLContext, tmp_path: Path) -> None:
    """Whoever is between could say it, and would be taken for the server."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(FORGED)
        await writer.start_tls(tls)
        while await reader.readline():
            writer.write(whole(b"right"))

    async with (
        asyncio.timeout(PATIENCE),
        await asyncio.start_server(answer, "127.0.0.1", 0) as server,
        Upstream(
            f"https://localhost:{server.sockets[0].getsockname()[1]}/", ca_file=tmp_path / "roots.pem"
        ) as upstream,
    ):
        with pytest.raises(UpstreamError, match="does not answer"):
            await bodies(upstream, 1)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("size", [0, 1, 3, 20_000, 2_000_000])
async def test_a_body_is_sent_whole(size: int, scheme: str, tls: ssl.SSLContext, tmp_path: Path) -> None:
    """Whatever the system takes of it at one time, and again on the same connection."""
    body, connections = b"x" * size, list[int]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            writer.write(whole(b"%d" % len(await reader.readexactly(size))))
        writer.close()

    async with (
        asyncio.timeout(PATIENCE / 2),
        await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls if scheme == "https" else None) as server,
    ):
        url = f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}/"
        async with Upstream(url, ca_file=tmp_path / "roots.pem") as upstream:
            for _ in range(5):
                async with upstream.exchange("POST", {"content-length": f"{size}"}, body) as said:
                    assert b"%d" % size == await said.body()

    assert [0] == connections
