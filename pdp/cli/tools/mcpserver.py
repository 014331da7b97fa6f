"""Read the list of tools of an MCP server, over stdio or HTTP. Needs the optional `mcp` package."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NoReturn, TextIO, cast

import anyio
import click
from httpx2 import AsyncByteStream, AsyncClient, HTTPError, Response
from mcp import ClientSession, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import PaginatedRequestParams

_PAGES = 1000
_MOST_BYTES = 16 * 1024 * 1024
_FAILURES = (OSError, MCPError, HTTPError, ValueError, ExceptionGroup)


def listed_tools(command: Sequence[str], environ: Mapping[str, str], *, seconds: float) -> list[dict[str, Any]]:
    """Return the entries of all pages of a server's `tools/list` answer.

    Raise `click.ClickException` when the server does not start, does not answer in time or answers wrongly.
    """
    # The package logs unreadable answers with a traceback; our own line reports them.
    logging.getLogger("mcp").addHandler(logging.NullHandler())
    # The server gets none of our own variables: one of them can hold a session's handle.
    kept = {name: value for name, value in environ.items() if not name.startswith("PDP_")}
    server = StdioServerParameters(command=command[0], args=list(command[1:]), env=kept)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as temporary:
        words = cast("TextIO", temporary)  # a text file except for its declared type
        try:
            return anyio.run(_list, lambda: stdio_client(server, errlog=words), seconds)
        except _FAILURES as error:
            said = _last_line(words)
            reason = _reason(error, seconds) + (f"; it said: {said}" if said else "")
            raise click.ClickException(f"cannot list the tools of `{command[0]}`: {reason}") from error


def tools_at(url: str, token: str | None, *, seconds: float) -> list[dict[str, Any]]:
    """Return the same from a server at a URL of streamable HTTP.

    A `token` goes only to its own origin. Raise `click.ClickException` when the server does not answer in time, answers
    wrongly or too much.
    """
    logging.getLogger("mcp").addHandler(logging.NullHandler())
    # A few bytes can unpack to a thousand times as many.
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {token}"} if token else {})
    bound = _Bound()

    @asynccontextmanager
    async def connect() -> AsyncIterator[Any]:
        async with (
            AsyncClient(headers=headers, timeout=seconds, event_hooks={"response": [bound.limit]}) as http,
            streamable_http_client(url, http_client=http, max_sse_event_size=None) as two,
        ):
            yield two

    try:
        return anyio.run(_list, connect, seconds)
    except _FAILURES as error:
        reason = bound.exceeded or _reason(error, seconds)
        raise click.ClickException(f"cannot list the tools of `{url}`: {reason}") from error


class _Bound:
    """The bound on all answers of a server together: `_MOST_BYTES`, and none compressed.

    The package reports a failed read in its own words, or not at all: `exceeded` says what was wrong.
    """

    def __init__(self) -> None:
        self.exceeded = ""
        self._left = _MOST_BYTES

    async def limit(self, response: Response) -> None:
        """Count the bytes of an answer as they are read. For the client's hooks."""
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            self._refuse(f"it answers in the encoding `{encoding[:32]}`, which was not requested")
        response.stream = _Counted(cast("AsyncByteStream", response.stream), self._take)

    def _take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            self._refuse(f"it answers more than {_MOST_BYTES} bytes")

    def _refuse(self, why: str) -> NoReturn:
        self.exceeded = why
        raise HTTPError(why)


class _Counted(AsyncByteStream):
    """The body of an answer, which reports the number of bytes of each piece."""

    def __init__(self, body: AsyncByteStream, take: Callable[[int], None]) -> None:
        self._body = body
        self._take = take

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._body:
            self._take(len(piece))
            yield piece

    async def aclose(self) -> None:
        await self._body.aclose()


async def _list(connect: Callable[[], AbstractAsyncContextManager[Any]], seconds: float) -> list[dict[str, Any]]:
    tools: list[dict[str, Any]] = []
    with anyio.fail_after(seconds):
        async with connect() as streams, ClientSession(*streams) as session:
            await session.initialize()
            cursor: str | None = None
            for _ in range(_PAGES):
                page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
                # These values are sent by alias and without empty fields; digests are made of the same form.
                tools += page.model_dump(by_alias=True, exclude_none=True)["tools"]
                cursor = page.next_cursor
                if not cursor:
                    return tools
    raise ValueError(f"more than {_PAGES} pages")


def _reason(error: BaseException, seconds: float) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"no answer in {seconds:g} s"
    text = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
    return text[:1].lower() + text[1:] if text else "the connection broke"


def _last_line(words: TextIO) -> str:
    words.seek(0, os.SEEK_END)
    words.seek(max(0, words.tell() - 4096))
    lines = [line.strip() for line in words.read().splitlines() if line.strip()]
    return "".join(character for character in lines[-1] if character.isprintable())[:200] if lines else ""
