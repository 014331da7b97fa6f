"""Lines come whole however they are cut, and one that is too long is not kept."""

from __future__ import annotations

import asyncio
import os

import pytest

from pdp.doors.mcp import lines as module
from pdp.doors.mcp.lines import Sender, TooLong, lines

LONG = 1000
CUT = TooLong(b"abxxxxxx", b"xxxxxxcd")


@pytest.fixture(autouse=True)
def _short_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", LONG)
    monkeypatch.setattr(module, "_KEPT", 8)


async def read(*chunks: bytes) -> list[bytes | TooLong]:
    """Return the lines of what comes in these chunks, and then ends."""
    source = asyncio.StreamReader()

    async def feed() -> None:
        for chunk in chunks:
            source.feed_data(chunk)
            await asyncio.sleep(0)
        source.feed_eof()

    feeding = asyncio.ensure_future(feed())
    found = [line async for line in lines(source)]
    await feeding
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\nb", [b"a", b"b"]),
        (b"a\r\n\r\nb\r", [b"a\r", b"\r", b"b\r"]),
        (b"a\rb\x0b\x0c\x1c\xc2\x85\xe2\x80\xa8c\n", [b"a\rb\x0b\x0c\x1c\xc2\x85\xe2\x80\xa8c"]),
        (b"x" * LONG + b"\ny", [b"x" * LONG, b"y"]),
        (b"ab" + b"x" * LONG + b"cd\ny", [CUT, b"y"]),
        (b"ab" + b"x" * 3 * LONG + b"cd", [CUT]),
        (b"a\nab" + b"x" * 5 * LONG + b"cd\n\n" + b"x" * LONG + b"\nb\n", [b"a", CUT, b"", b"x" * LONG, b"b"]),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 7, LONG - 1, LONG, LONG + 1, 100_000])
async def test_lines_come_whole(text: bytes, found: list[bytes | TooLong], size: int) -> None:
    """Only a line feed ends one; of what is too long its two ends are kept, and what follows it is read."""
    chunks = [text[begin : begin + size] for begin in range(0, len(text), size)]

    assert found == await read(*chunks)


async def test_messages_are_written_whole_and_at_once() -> None:
    """Many at one time do not mix, and what was sent is in the pipe when `send` returns."""
    reading, writing = os.pipe()
    loop = asyncio.get_running_loop()
    with os.fdopen(writing, "wb", 0) as file:
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, file)
        sender = Sender(asyncio.StreamWriter(transport, protocol, None, loop))
        wanted = [f"{number}:" + "é" * 40_000 for number in range(20)]
        sending = asyncio.gather(*map(sender.send, wanted))
        read_all = asyncio.ensure_future(
            asyncio.to_thread(_read, reading, sum(len(one.encode()) + 1 for one in wanted))
        )
        await sending
        text = await read_all
        sender.close()

    assert wanted == text.decode().splitlines()


def _read(descriptor: int, size: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read(size)
