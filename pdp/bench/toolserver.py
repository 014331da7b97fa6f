"""An MCP server that does nothing: it answers each call of a tool at once, with the arguments that it was sent.

`python -m pdp.bench.toolserver FOLDER` serves each catalogue in a folder, `NAME.json`, over HTTP at `/NAME/mcp`. With
`FOLDER NAME` it serves one over pipes, until they end. It speaks both eras of MCP.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pdp.bench.webserver import Request, serve

_LASTING = {"ttlMs": 60_000, "cacheScope": "public"}
_MODERN = "io.modelcontextprotocol/protocolVersion"


def answer_to(text: bytes, tools: Any) -> bytes:  # noqa: ANN401 - JSON
    """Return the answer to a message; nothing to one that has no id."""
    request = json.loads(text)
    if "id" not in request:
        return b""
    params = request.get("params", {})
    result = _result(request["method"], params, tools)
    if _MODERN in params.get("_meta", {}):
        result = {"resultType": "complete", **result}
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()


def _result(method: str, params: Mapping[str, Any], tools: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    match method:
        case "initialize":
            told = {"name": "tools", "version": "1"}
            return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": told}
        case "server/discover":
            return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **_LASTING}
        case "tools/list":
            return {"tools": tools, **_LASTING}
        case "tools/call":
            return {"content": [{"type": "text", "text": json.dumps(params["arguments"])}], "isError": False}
    return {}


def _over_http(catalogue: Callable[[str], Any]) -> None:
    listed: dict[str, Any] = {}

    def answering(request: Request) -> tuple[HTTPStatus, bytes]:
        name = request.path.strip("/").partition("/")[0]
        if request.method != "POST":
            return HTTPStatus.METHOD_NOT_ALLOWED, b""
        if name not in listed:
            listed[name] = catalogue(name)
        answer = answer_to(request.body, listed[name])
        return (HTTPStatus.OK if answer else HTTPStatus.ACCEPTED), answer

    serve(answering)


def _over_pipes(tools: Any) -> None:  # noqa: ANN401 - JSON
    for line in iter(sys.stdin.buffer.readline, b""):
        if answer := answer_to(line, tools):
            sys.stdout.buffer.write(answer + b"\n")
            sys.stdout.buffer.flush()


def main() -> None:
    """Serve a folder of catalogues over HTTP, or one of them over pipes."""
    folder, *names = sys.argv[1:]

    def catalogue(name: str) -> Any:  # noqa: ANN401 - JSON
        file = Path(folder) / f"{name}.json"
        return json.loads(file.read_bytes())["tools"] if file.exists() else []

    if names:
        _over_pipes(catalogue(names[0]))
    else:
        _over_http(catalogue)


if __name__ == "__main__":
    main()
