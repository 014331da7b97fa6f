"""Serve an MCP server that speaks over pipes by HTTP, with FastMCP: `bridge.py PORT COMMAND …`."""

from __future__ import annotations

import sys

from fastmcp.client.transports import StdioTransport
from fastmcp.server import create_proxy

if __name__ == "__main__":
    port, command, *words = sys.argv[1:]
    bridge = create_proxy(StdioTransport(command, words), mode="auto")
    bridge.run(transport="http", host="127.0.0.1", port=int(port), path="/mcp", show_banner=False)
