"""A small MCP server: it keeps the exact bytes of every line it got, and counts how often each tool ran.

As a program it talks on stdin and stdout, and writes the lines into the file that it is told: `toolserver.py FILE`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pdp.testing.bundles import tool

# What the catalogue knows too, by server name `files`.
TOOLS = (
    tool("read", {"path": {"type": "string"}, "n": {"type": "number"}}),
    tool("write", {"path": {"type": "string"}}),
    tool("people", {"path": {"type": "string"}}),
    tool("large", {"path": {"type": "string"}}),
    tool("reset", {"path": {"type": "string"}}),
    tool("hidden", {"path": {"type": "string"}}),
)
# What a server that asks for content as methods do has in the catalogue.
METHODS = (
    tool("resources/read", {"uri": {"type": "string"}}, ["uri"]),
    tool("prompts/get", {"name": {"type": "string"}, "arguments": {"type": "object"}}, ["name"]),
)

# Returns what to write instead of the usual answer to a request.
Reaction = Callable[[dict[str, Any]], Iterable[bytes]]

CAPABILITIES: dict[str, Any] = {"tools": {}, "resources": {}, "prompts": {}, "completions": {}, "logging": {}}
SERVER = {"name": "small", "version": "1"}
MODERN = "io.modelcontextprotocol/protocolVersion"
LASTING = {"ttlMs": 60_000, "cacheScope": "public"}


class ToolServer:
    """The server: `take` a line, and get the lines that it writes. `reactions` replace its answers, by method."""

    def __init__(self, tools: Sequence[dict[str, Any]] = TOOLS) -> None:
        self.tools = list(tools)
        self.page_size = len(self.tools)
        self.lines: list[bytes] = []
        self.ran: Counter[str] = Counter()
        self.reactions: dict[str, Reaction] = {}
        self.results: dict[str, Any] = {}

    def take(self, line: bytes) -> list[bytes]:
        """Return what the server writes when it gets a line."""
        self.lines.append(line)
        message = json.loads(line)
        method = message.get("method", "")
        if method == "tools/call":
            self.ran[message["params"]["name"]] += 1
        elif method in ("resources/read", "prompts/get", "completion/complete"):
            self.ran[method] += 1
        if method in self.reactions:
            return list(self.reactions[method](message))
        if "id" not in message or not method:
            return []
        return [self.answer(message, self.result_of(message))]

    def sent(self, method: str) -> list[bytes]:
        """Return the lines that came with a method."""
        return [line for line in self.lines if json.loads(line).get("method") == method]

    def result_of(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the usual result."""
        method, params = request["method"], request.get("params", {})
        if method == "initialize":
            words = {"serverInfo": SERVER, "instructions": "Be kind."}
            return {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, **words}
        if method == "server/discover":
            return {"supportedVersions": ["2026-07-28"], "capabilities": CAPABILITIES, **LASTING}
        if method == "tools/list":
            begin = int(params.get("cursor", "0"))
            end = begin + self.page_size
            more: dict[str, Any] = {"nextCursor": str(end)} if end < len(self.tools) else {}
            more |= LASTING if MODERN in params.get("_meta", {}) else {}
            return {"tools": self.tools[begin:end], **more}
        if method == "tools/call":
            text = json.dumps(params.get("arguments"))
            usual = {"content": [{"type": "text", "text": f"ran {params['name']} with {text}"}], "isError": False}
            result: dict[str, Any] = self.results.get(params["name"], usual)
            return result
        return {}

    @staticmethod
    def answer(request: dict[str, Any], result: Any) -> bytes:
        """Write an answer, in the order of members and with the blanks that some servers use."""
        meta = request.get("params", {}).get("_meta", {})
        if isinstance(result, dict) and MODERN in meta:
            result = {"resultType": "complete", **result}
        written = json.dumps({"result": result, "jsonrpc": "2.0", "id": request["id"]}, ensure_ascii=False)
        return written.encode()


def main() -> None:
    """Serve stdin and stdout until stdin ends."""
    server = ToolServer()
    with Path(sys.argv[1]).open("ab", buffering=0) as kept:
        for line in iter(sys.stdin.buffer.readline, b""):
            kept.write(line)
            for out in server.take(line.rstrip(b"\n")):
                sys.stdout.buffer.write(out + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
