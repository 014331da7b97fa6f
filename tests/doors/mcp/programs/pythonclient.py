"""A client on the Python SDK: `pythonclient.py PLAN`; what it gets of each step is printed as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from mcp import Client, MCPError, StdioServerParameters
from mcp.types import PromptReference


async def play(plan: dict[str, Any]) -> list[Any]:
    """Connect, make each step, and return what came of it."""
    command, *words = plan["command"]
    server = StdioServerParameters(command=command, args=words, env=dict(os.environ))
    seen: list[Any] = []
    async with Client(server, mode=plan["mode"]) as client:
        for method, params in plan["steps"]:
            try:
                result = await _steps(client)[method](params)
                seen.append({"result": json.loads(result.model_dump_json(by_alias=True))})
            except MCPError as error:
                seen.append({"error": error.error.message, "code": error.error.code})
    return seen


def _steps(client: Client) -> dict[str, Callable[[dict[str, Any]], Any]]:
    async def tell(progress: float, total: float | None, message: str | None) -> None:
        """Want to be told, so that the server tells."""

    return {
        "tools/list": lambda _: client.list_tools(),
        "tools/call": lambda params: client.call_tool(params["name"], params["arguments"], progress_callback=tell),
        "resources/list": lambda _: client.list_resources(),
        "resources/read": lambda params: client.read_resource(params["uri"]),
        "prompts/list": lambda _: client.list_prompts(),
        "prompts/get": lambda params: client.get_prompt(params["name"], params["arguments"]),
        "completion/complete": lambda params: client.complete(
            PromptReference(name=params["ref"]["name"]), params["argument"]
        ),
        "ping": lambda _: client.send_ping(),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(play(json.loads(sys.argv[1])))))
