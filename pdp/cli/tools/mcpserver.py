"""Read the list of tools of an MCP server that this program starts. Needs the optional `mcp` package."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TextIO, cast

import anyio
import click
from mcp import ClientSession, MCPError, StdioServerParameters, stdio_client
from mcp.types import PaginatedRequestParams

_PAGES = 1000
_FAILURES = (OSError, MCPError, ValueError, ExceptionGroup)


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
