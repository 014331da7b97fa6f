"""Proxies of MCP by others, which ask nobody: `otherproxies.py sdk|fastmcp pipes|PORT URL|COMMAND…`.

`sdk` is a server of the `mcp` SDK before its client, and `fastmcp` is `create_proxy` of FastMCP. They run in the
environment of `make .venv-doors/ready`, and only `benchmarks.doors` starts them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import uvicorn
from fastmcp.client.transports import StdioTransport
from fastmcp.server import create_proxy
from mcp import Client, StdioServerParameters
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult


async def _sdk(port: int | None, upstream: Sequence[str]) -> None:
    url = upstream[0].startswith("http")
    behind: Any = upstream[0] if url else StdioServerParameters(command=upstream[0], args=list(upstream[1:]))
    async with Client(behind) as client:

        async def listed(_: object, __: object) -> ListToolsResult:
            return await client.list_tools()

        async def called(_: object, params: CallToolRequestParams) -> CallToolResult:
            return await client.call_tool(params.name, params.arguments)

        server = Server("proxy", on_list_tools=listed, on_call_tool=called)
        if port is None:
            async with stdio_server() as (reader, writer):
                await server.run(reader, writer, server.create_initialization_options())
        else:
            config = uvicorn.Config(server.streamable_http_app(), port=port, log_level="critical")
            await uvicorn.Server(config).serve()


def _fastmcp(port: int | None, upstream: Sequence[str]) -> None:
    url = upstream[0].startswith("http")
    proxy: Any = create_proxy(upstream[0] if url else StdioTransport(upstream[0], list(upstream[1:])), mode="auto")
    if port is None:
        proxy.run(show_banner=False, log_level="CRITICAL")
    else:
        proxy.run("http", host="127.0.0.1", port=port, path="/mcp", show_banner=False, log_level="CRITICAL")


def main() -> None:
    """Serve until the client ends, or forever."""
    which, where, *upstream = sys.argv[1:]
    port = None if where == "pipes" else int(where)
    if which == "sdk":
        asyncio.run(_sdk(port, upstream))
    else:
        _fastmcp(port, upstream)


if __name__ == "__main__":
    main()
