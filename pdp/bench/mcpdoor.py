"""The door of MCP: calls of tools over HTTP, of a tool server alone and through `pdp mcp` before it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pdp.bench.dialects import Metadata
from pdp.bench.doors import behind_door
from pdp.bench.failure import WrongAnswerError
from pdp.bench.overhttp import request
from pdp.bench.plan import MCP_DOOR, TOOL_SERVER, Shape
from pdp.bench.processes import listening, module_process
from pdp.bench.questions import Question, Workload
from pdp.bench.servers import Target
from pdp.doors.mcp.answers import DECISION
from pdp.doors.mcp.headers import encoded

_REVISION = "2026-07-28"
_META = {
    "io.modelcontextprotocol/protocolVersion": _REVISION,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
}
_HEADERS = {
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
    "mcp-protocol-version": _REVISION,
    "mcp-method": "tools/call",
}
_SERVING = "serving `"


class MCPDialect:
    """Calls tools at an address, as a client of MCP without a handshake. `handles` are those of the sessions."""

    cached = False
    metadata: Metadata = ()
    # Requests are JSON, and their traces make them different.
    id_field = 0

    def __init__(self, address: str, handles: Sequence[str]) -> None:
        self._address = address
        self._handles = handles

    def path(self, shape: Shape) -> str | None:
        """Return where tools are: below it, each server of the catalogue has a path."""
        return "/" if shape is Shape.MCP else None

    def encode(self, shape: Shape, questions: Sequence[Question]) -> bytes:  # noqa: ARG002 - there is one shape
        """Return the request for one call."""
        (one,) = questions
        params = {"name": one.tool, "arguments": json.loads(one.arguments_json), "_meta": _META}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
        own = {"host": self._address, "mcp-name": encoded(one.tool), "x-pdp-session": self._handles[one.asker]}
        return request("POST", f"/{one.server}/mcp", {**_HEADERS, **own}, body)

    def check(self, shape: Shape, answer: bytes, questions: Sequence[Question]) -> int:  # noqa: ARG002 - there is one shape
        """Require what the tool answers, or a deny that rests on a decision. No answer says that it was remembered."""
        (question,) = questions
        result = _result(answer)
        if question.allowed:
            _require_called(result, question)
            return 0
        decision = result.get("_meta", {}).get(DECISION, {})
        if not result.get("isError"):
            raise WrongAnswerError(f"`{question.server}/{question.tool}` must be refused, and was called")
        if "decision_id" not in decision:
            raise WrongAnswerError(f"the door asked nobody about `{question.server}/{question.tool}`")
        return 0


class ToolDialect(MCPDialect):
    """Calls the same tools without a door: each call reaches its tool."""

    def check(self, shape: Shape, answer: bytes, questions: Sequence[Question]) -> int:  # noqa: ARG002 - there is one shape
        """Require what the tool answers."""
        _require_called(_result(answer), questions[0])
        return 0


def _result(answer: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(answer)
        if isinstance(said["result"], dict):
            return said["result"]
    except (ValueError, KeyError, TypeError):
        pass
    raise WrongAnswerError("the answer is not the result of a call over MCP")


def _require_called(result: Mapping[str, Any], question: Question) -> None:
    """Raise `WrongAnswerError` unless the tool answered, which repeats its arguments."""
    (content,) = result["content"]
    if result["isError"]:
        raise WrongAnswerError(
            f"`{question.server}/{question.tool}` must be called, and was refused: {content['text']}"
        )
    if json.loads(content["text"]) != json.loads(question.arguments_json):
        raise WrongAnswerError(f"`{question.server}/{question.tool}` was called with other arguments")


@contextmanager
def tool_server(workload: Workload, folder: Path, core: int | None) -> Iterator[Target]:
    """Run a server of the tools in `folder/policies`."""
    with module_process("pdp.bench.toolserver", [str(folder / "policies" / "tools")], core=core) as process:
        address = listening(process, TOOL_SERVER)
        # It has no sessions, and does not read that header.
        dialect = ToolDialect(address, ("none",) * len(workload.askers))
        yield Target(name=TOOL_SERVER, address=address, pid=process.pid, core=core, dialect=dialect)


@contextmanager
def mcp_door(workload: Workload, folder: Path, core: int | None, environment: Mapping[str, str]) -> Iterator[Target]:
    """Run a server of ours, a server of tools, and the door before it, on the same core; the CPU is that of all."""
    with tool_server(workload, folder, core) as tools:
        behind = folder / "servers.yaml"
        names = dict.fromkeys(one.server for one in workload.repeated)
        # JSON is YAML.
        behind.write_text(json.dumps({name: {"upstream": f"http://{tools.address}/{name}/mcp"} for name in names}))
        behind.chmod(0o600)
        command = ("mcp", "--servers", str(behind), "--listen", "127.0.0.1:0")
        with behind_door(MCP_DOOR, command, workload, folder, core, environment, says=_SERVING) as (two, handles, said):
            address = urlsplit(said.rpartition(" ")[2]).netloc
            others = (*two.others, *filter(None, [tools.pid]))
            yield replace(two, address=address, dialect=MCPDialect(address, handles), others=others)
