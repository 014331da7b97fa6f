"""An MCP server that does nothing: it answers every call of its one tool at once, with what it was sent."""

from __future__ import annotations

import json
import sys
from typing import Any

TOOL = {
    "name": "echo",
    "description": "Return what was sent.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
}


def main() -> None:
    """Serve stdin and stdout until stdin ends."""
    for line in iter(sys.stdin.buffer.readline, b""):
        request = json.loads(line)
        if "id" not in request:
            continue
        answer = {"jsonrpc": "2.0", "id": request["id"], "result": _result(request)}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def _result(request: dict[str, Any]) -> dict[str, Any]:
    if request["method"] == "tools/list":
        return {"tools": [TOOL]}
    if request["method"] == "tools/call":
        return {"content": [{"type": "text", "text": request["params"]["arguments"]["text"]}], "isError": False}
    return {}


if __name__ == "__main__":
    main()
