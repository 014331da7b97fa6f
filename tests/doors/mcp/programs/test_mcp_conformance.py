"""The public conformance package of MCP says the same of a server with the proxy as without it, but for a table."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from pdp.doors.mcp.methods import PASSABLE
from pdp.testing.bundles import bundle_files
from pdp.testing.inprocess import RunningServer, running_server
from tests.doors.mcp.programs import conformanceserver
from tests.doors.mcp.programs.installed import ENGINE, METHODS, NODE
from tests.doors.mcp.webprocess import program, web_door
from tests.doors.mcp.webworld import Desk, behind
from tests.machinery.ports import free_port

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.doors,
    # What is deprecated in one revision is in the one before.
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]

_EVERYTHING, _SMALL = "everything", "small"
# The revisions that each server speaks.
RUNS = ((_EVERYTHING, "2025-11-25"), (_SMALL, "2025-11-25"), (_SMALL, "2026-07-28"))
# For all scenarios of a run: on a busy machine they take a minute.
_PACKAGE_SECONDS = 180
# What the package notes on its way, and what is no check.
_TRAFFIC = frozenset({"outgoing-request", "incoming-response", "incoming-sse-event", "stream-closed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What the package says of checks of one scenario without the proxy, and with it."""

    without: frozenset[tuple[str, str]]
    with_it: frozenset[tuple[str, str]]


_POLLING = "server-sse-priming-event", "server-sse-retry-field", "server-sse-disconnect-resume"
TABLE = {
    # Events are written anew and have no ids: the proxy itself asks a server for the rest of a stream.
    (_SMALL, "2025-11-25", "sse-polling"): Difference(
        without=frozenset((check, "SUCCESS") for check in _POLLING),
        with_it=frozenset(zip(_POLLING, ("WARNING", "WARNING", "INFO"), strict=True)),
    ),
    # The server has no tool for this, and an error in a stream of its own about that: the proxy denies the call.
    (_EVERYTHING, "2025-11-25", "sse-polling"): Difference(
        without=frozenset(zip(_POLLING, ("SUCCESS", "WARNING", "INFO"), strict=True)),
        with_it=frozenset({("server-sse-content-type", "INFO")}),
    ),
    # Another `Host` or `Origin` gets nothing, whatever the server would have answered.
    (_EVERYTHING, "2025-11-25", "dns-rebinding-protection"): Difference(
        without=frozenset({("localhost-host-rebinding-rejected", "FAILURE")}),
        with_it=frozenset({("localhost-host-rebinding-rejected", "SUCCESS")}),
    ),
    # After its end a session of MCP does not exist for the proxy, whatever the server would have answered.
    (_EVERYTHING, "2025-11-25", "session-lifecycle"): Difference(
        without=frozenset({("server-session-terminated-returns-404", "FAILURE")}),
        with_it=frozenset({("server-session-terminated-returns-404", "SUCCESS")}),
    ),
    # No call runs as a task: `params.task` is refused, and not only ignored.
    (_SMALL, "2026-07-28", "tasks-dispatch-and-envelope"): Difference(
        without=frozenset({("sep-2663-legacy-task-param-ignored", "SUCCESS")}),
        with_it=frozenset({("sep-2663-legacy-task-param-ignored", "FAILURE")}),
    ),
}


async def test_the_package_says_the_same_with_and_without_the_proxy(tmp_path: Path) -> None:
    """Scenario by scenario and check by check, and each row of the table is needed."""
    async with AsyncExitStack() as opened:
        urls = {
            _EVERYTHING: await opened.enter_async_context(_everything()),
            _SMALL: await opened.enter_async_context(behind(Desk(), conformanceserver.app(conformanceserver.server()))),
        }
        pdp = opened.enter_context(running_server(_bundle({name: await _tools(url) for name, url in urls.items()})))
        handle = _handle(pdp, *urls)
        passes = [word for method in sorted(PASSABLE) for word in ("--pass", method)]
        doors = {
            name: (await opened.enter_async_context(web_door(pdp, name, url, tmp_path, *passes))).last_word
            for name, url in urls.items()
        }
        seen = await asyncio.gather(
            *(_both(urls[name], doors[name], revision, tmp_path, handle) for name, revision in RUNS)
        )

    found: dict[tuple[str, str, str], Difference] = {}
    for run, (direct, proxied) in zip(RUNS, seen, strict=True):
        assert direct.keys() == proxied.keys()
        for scenario, without in direct.items():
            with_it = proxied[scenario]
            if without != with_it:
                found[*run, scenario] = Difference(
                    without=frozenset(without - with_it), with_it=frozenset(with_it - without)
                )
        # The package finds in the small server what it looks for.
        failing = [scenario for scenario, checks in direct.items() if "FAILURE" in {status for _, status in checks}]
        assert run[0] == _EVERYTHING or all(scenario.startswith("tasks-") for scenario in failing)
    assert found == TABLE


async def _both(
    url: str, door: str, revision: str, folder: Path, handle: str
) -> tuple[dict[str, Counter[Any]], dict[str, Counter[Any]]]:
    """Have the package judge a server without the proxy and with it."""
    return await _judged(url, revision, folder / "direct"), await _judged(door, revision, folder / "proxied", handle)


async def _judged(url: str, revision: str, folder: Path, handle: str = "") -> dict[str, Counter[Any]]:
    """Have the package judge a server; return for each scenario its checks and what came of them."""
    assert ENGINE is not None, "Node is absent: run `make doors`"
    output = folder / re.sub(r"\W", "-", url) / revision
    process = await asyncio.create_subprocess_exec(
        str(ENGINE),
        *(("--import", "./handle.mjs") if handle else ()),
        *("node_modules/@modelcontextprotocol/conformance/dist/index.js", "server", "--url", url),
        *("--requirements", revision, "--output-dir", str(output)),
        cwd=NODE,
        env={**os.environ, "SESSION_HANDLE": handle},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(_PACKAGE_SECONDS):
        await process.wait()
    seen: dict[str, Counter[Any]] = {}
    for file in output.glob("*/checks.json"):
        scenario = re.sub(r"-\d{4}-\d\d-\d\dT.*", "", file.parent.name).removeprefix("server-").removeprefix("server-")
        checks = json.loads(file.read_bytes())
        seen[scenario] = Counter((one["id"], one["status"]) for one in checks if one["id"] not in _TRAFFIC)
    assert seen
    return seen


@asynccontextmanager
async def _everything() -> AsyncIterator[str]:
    """Run the server that can do everything, and provide its URL."""
    # It cannot be told to choose a port.
    port = free_port()
    file = NODE / "node_modules/.bin/mcp-server-everything"
    async with program("node", str(file), "streamableHttp", variables={"PORT": str(port)}) as server:
        assert "listening" in server.said
        yield f"http://127.0.0.1:{port}/mcp"


async def _tools(url: str) -> list[dict[str, Any]]:
    async with Client(url) as client:
        listed = await client.list_tools()
    return [tool.model_dump(by_alias=True, exclude_none=True, mode="json") for tool in listed.tools]


def _bundle(tools: dict[str, list[dict[str, Any]]]) -> dict[str, bytes]:
    """Return a bundle that permits every call."""
    ceiling = [f"{name}/*" for name in tools]
    return bundle_files(
        policies={"it": '@id("it/all") permit (principal, action, resource);'},
        tools={name: [*listed, *METHODS] for name, listed in tools.items()},
        directory=f"users: {{alice: {{}}, approver: {{}}}}\nagents: {{coder: {{ceiling: {json.dumps(ceiling)}}}}}\n",
        labels=("tainted",),
    )


def _handle(pdp: RunningServer, *servers: str) -> str:
    """Return the handle of an active session for all tools."""
    tools = tuple(f"{name}/*" for name in servers)
    opened = pdp.client("pep").request_session(user="alice", agent="coder", purpose="to try", tools=tools)
    shown = opened.session
    pdp.client("approver").approve_session(shown.session_id, request_digest=shown.request_digest)
    return str(opened.session_handle)
