"""The desk as a target of agentgateway: an MCP server whose tools count their runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.doors.agentgateway.gateway import UpstreamError
from tests.doors.desk import NAMES, SCHEMA, CountedTools


class DeskTarget:
    """Answers requests of MCP, and keeps the parameters and headers with which they came."""

    def __init__(self, tools: CountedTools | None = None) -> None:
        self._tools = tools or CountedTools()
        # What takes the place of every result, for a test.
        self.answers: dict[str, Any] = {}
        self.error = ""
        self.got: list[tuple[str, Mapping[str, Any], Mapping[str, str]]] = []

    def __call__(self, method: str, params: Mapping[str, Any], headers: Mapping[str, str]) -> Mapping[str, Any]:
        """Answer one request."""
        self.got.append((method, dict(params), dict(headers)))
        if self.error:
            raise UpstreamError(self.error)
        if self.answers:
            return self.answers
        if method == "tools/list":
            return {"tools": [{"name": name, "inputSchema": {"properties": dict(SCHEMA)}} for name in NAMES]}
        if method == "tools/call":
            return self._called(params)
        return {}

    @property
    def calls(self) -> list[str]:
        """Return the names of the tools that were called."""
        return [params["name"] for method, params, _ in self.got if method == "tools/call"]

    def _called(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            text, failed = str(self._tools(params["name"], params["arguments"])), False
        except Exception as error:  # noqa: BLE001 - a server of MCP makes a result of it
            text, failed = str(error), True
        return {"content": [{"type": "text", "text": text}], **({"isError": True} if failed else {})}
