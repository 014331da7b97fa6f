"""Read the list of tools of an MCP server at a URL. Needs the extra `mcp`."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import click

from pdp.doors.mcp.listing import ListingError, listed_tools
from pdp.doors.mcp.serversfile import ServerEntry
from pdp.doors.mcp.upstream import Upstream, UpstreamError


def tools_at(server: ServerEntry, *, seconds: float) -> list[dict[str, Any]]:
    """Return the entries of all pages of a server's `tools/list` answer.

    Raise `click.ClickException` when the server does not answer in time, answers wrongly or too much.
    """
    # What is logged for those who run the proxy, our own line says here.
    logging.getLogger("pdp.doors").addHandler(logging.NullHandler())
    try:
        return asyncio.run(_listed(server, seconds))
    except TimeoutError:
        reason = f"no answer in {seconds:g} s"
    except UpstreamError as error:
        reason = error.reason
    except ListingError as error:
        reason = str(error)
    raise click.ClickException(f"cannot list the tools of `{server.upstream}`: {reason}")


async def _listed(server: ServerEntry, seconds: float) -> list[dict[str, Any]]:
    async with asyncio.timeout(seconds), Upstream.of(server) as upstream:
        return await listed_tools(upstream)
