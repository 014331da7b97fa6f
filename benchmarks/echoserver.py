"""An MCP server that does nothing: it answers every call of its one tool at once, with what it was sent.

Over pipes, and with `--http` over HTTP at a port that it prints. It speaks both eras of MCP.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

TOOL = {
    "name": "echo",
    "description": "Return what was sent.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
}
_SERVER = {"name": "echo", "version": "1"}
_LASTING = {"ttlMs": 60_000, "cacheScope": "public"}
_MODERN = "io.modelcontextprotocol/protocolVersion"


def answer_to(request: dict[str, Any]) -> bytes:
    """Return the answer to a request; nothing to what has no id."""
    if "id" not in request:
        return b""
    result = _result(request)
    if _MODERN in request.get("params", {}).get("_meta", {}):
        result = {"resultType": "complete", **result}
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()


def _result(request: dict[str, Any]) -> dict[str, Any]:
    match request["method"]:
        case "initialize":
            return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": _SERVER}
        case "server/discover":
            return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **_LASTING}
        case "tools/list":
            return {"tools": [TOOL], **_LASTING}
        case "tools/call":
            return {"content": [{"type": "text", "text": request["params"]["arguments"]["text"]}], "isError": False}
    return {}


async def _connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while head := await _head(reader):
        lines = head.decode("latin-1").lower().split("\r\n")
        length = next((int(line.partition(":")[2]) for line in lines if line.startswith("content-length:")), 0)
        body = await reader.readexactly(length)
        if not lines[0].startswith("post "):
            status, answer = "405 Method Not Allowed", b""
        else:
            answer = answer_to(json.loads(body))
            status = "200 OK" if answer else "202 Accepted"
        about = f"content-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n"
        writer.write(f"HTTP/1.1 {status}\r\n{about}".encode() + answer)
        await writer.drain()
    writer.close()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def _serve() -> None:
    server = await asyncio.start_server(_connected, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """Serve HTTP, or else stdin and stdout until stdin ends."""
    if sys.argv[1:] == ["--http"]:
        asyncio.run(_serve())
        return
    for line in iter(sys.stdin.buffer.readline, b""):
        if answer := answer_to(json.loads(line)):
            sys.stdout.buffer.write(answer + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
