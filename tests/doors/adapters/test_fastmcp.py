"""A server of FastMCP, with its own client, in process and over HTTP."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from typing import Any

import pytest
from fastmcp import Client, Context, FastMCP
from fastmcp.server.extensions import ServerExtension
from fastmcp.server.middleware import Middleware
from fastmcp.tools.base import Tool, ToolResult
from fastmcp.utilities.tests import asgi_server
from mcp_types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult
from pydantic import BaseModel

from pdp.client import AsyncClient
from pdp.doors.core import Door
from pdp.doors.fastmcp import PDPMiddleware, session_of_header
from pdp.testing.inprocess import RunningServer
from pdp.v1.authorization_pb2 import CALL_STATUS_FAILED, CALL_STATUS_SUCCEEDED
from tests.doors.adapters.page import asked, example, obliged
from tests.doors.conformance import COROUTINES, DoorConformance, opened
from tests.doors.desk import MAPPED, NAMES, PREFIX, SCHEMA, CountedTools, Driver, Step


class Submitted(BaseModel):
    """What an extension that runs tools in the background answers a call with."""

    task_id: str


class CountedTool(Tool):
    """A tool that does not look at its arguments."""

    function: Any

    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        """Run with what it is given."""
        return ToolResult(content=self.function(self.name, arguments))


def _server(door: Door, tools: CountedTools) -> FastMCP[Any]:
    server: FastMCP[Any] = FastMCP("desk")
    schema = {"type": "object", "properties": dict(SCHEMA)}
    for name in NAMES:
        server.add_tool(CountedTool(name=PREFIX + name, description=name, parameters=schema, function=tools))
    server.add_middleware(PDPMiddleware(door))
    return server


async def _play(client: Client[Any], steps: Sequence[Step]) -> list[str]:
    shown = []
    for step in steps:
        step.before()
        arguments: Any = step.arguments
        result = await client.call_tool(step.name, arguments, raise_on_error=False)
        shown.append("".join(getattr(block, "text", "") for block in result.content))
    return shown


class FastMCPDriver(Driver):
    """A server with the middleware, and a client that makes the calls."""

    name = "fastmcp"

    async def play_async(self, door: Door, tools: CountedTools, steps: Sequence[Step], run: Any = None) -> list[str]:
        """Play the steps through a client in process; each server here serves one run."""
        of_run = copy.copy(door)
        vars(of_run)["session_of"] = lambda _: door.session_of(run)
        async with Client(_server(of_run, tools)) as client:
            return await _play(client, steps)


class TestFastMCP(DoorConformance):
    """The cases, with a server of FastMCP."""

    driver = FastMCPDriver()
    ways = COROUTINES


def test_the_page_does_what_it_says() -> None:
    """Its server asks before it runs a tool."""

    async def run(server: Any) -> str:
        @server.tool  # type: ignore[untyped-decorator,unused-ignore]
        def git_log(path: str) -> str:
            return f"log of {path}"

        async with Client(server) as client:
            return str((await client.call_tool("git_log", {"path": "/srv"})).data)

    with example("python fastmcp") as (defined, session, server):
        assert "log of /srv" == asyncio.run(run(defined["server_with_door"](session)))
        assert [("git", "git_log")] == asked(server)


def test_only_what_a_session_sees_is_listed(server: RunningServer) -> None:
    """A tool that is not listed is denied all the same when it is called by name."""
    tools = CountedTools()

    async def run(handle: str) -> tuple[list[str], list[str]]:
        async with (
            AsyncClient(server.address, token=server.token("pep"), plaintext=True, timeout=60.0) as pdp,
            Client(_server(Door(pdp.attach(handle), MAPPED), tools)) as client,
        ):
            listed = sorted(one.name for one in await client.list_tools())
            return listed, await _play(client, [Step(tool="closed")])

    listed, (denied,) = asyncio.run(run(opened(server)[1]))

    assert sorted(f"{PREFIX}{name}" for name in NAMES if name not in ("closed", "unmapped")) == listed
    assert [] == asyncio.run(run("pdps_" + "a" * 43))[0]
    assert "(default_deny)" in denied
    assert [] == tools.runs


def test_the_session_is_that_of_the_header(server: RunningServer) -> None:
    """Of each request by itself; without the header there is none."""
    tools = CountedTools()

    async def run() -> list[list[str]]:
        async with AsyncClient(server.address, token=server.token("pep"), plaintext=True, timeout=60.0) as pdp:
            door = Door(session_of_header(pdp), MAPPED)
            async with asgi_server(_server(door, tools)) as served:
                shown = []
                for headers in ({"X-PDP-Session": opened(server)[1]}, {}, {"X-PDP-Session": "pdps_wrong"}):
                    async with served.client(headers=headers) as client:
                        shown.append(await _play(client, [Step()]))
                return shown

    (done,), (without,), (wrong,) = asyncio.run(run())

    assert 1 == len(tools.runs)
    assert "done" == done
    assert "no decision" in without
    assert "(session_not_found)" in wrong


@pytest.mark.parametrize("structured", [True, False])
def test_structured_content_is_redacted_too(server: RunningServer, *, structured: bool) -> None:
    """As in every result of MCP."""
    people = [{"name": "Ann", "email": "ann@example.com"}]

    class Structured(CountedTool):
        async def run(self, arguments: dict[str, Any]) -> ToolResult:
            self.function(self.name, arguments)
            return ToolResult(content=people, structured_content={"result": people} if structured else None)

    async def run(handle: str) -> str:
        async with AsyncClient(server.address, token=server.token("pep"), plaintext=True, timeout=60.0) as pdp:
            desk: FastMCP[Any] = FastMCP("desk")
            desk.add_tool(Structured(name=f"{PREFIX}people", parameters={"type": "object"}, function=CountedTools()))
            desk.add_middleware(PDPMiddleware(Door(pdp.attach(handle), MAPPED)))
            async with Client(desk) as client:
                return str(await client.call_tool(f"{PREFIX}people", {}))

    shown = asyncio.run(run(opened(server)[1]))

    assert "Ann" in shown
    assert "ann@example.com" not in shown


def test_a_call_that_chooses_a_version_of_a_tool_does_not_run(server: RunningServer) -> None:
    """It can be another tool than the one that is listed, and that was approved."""
    tools = CountedTools()
    name = f"{PREFIX}note"

    async def run(handle: str) -> tuple[str, str]:
        async with AsyncClient(server.address, token=server.token("pep"), plaintext=True, timeout=60.0) as pdp:
            desk: FastMCP[Any] = FastMCP("desk")
            for version in ("1.0", "2.0"):
                schema = {"type": "object", "properties": dict(SCHEMA)}
                desk.add_tool(CountedTool(name=name, version=version, parameters=schema, function=tools))
            desk.add_middleware(PDPMiddleware(Door(pdp.attach(handle), MAPPED)))
            async with Client(desk) as client:
                first = await client.call_tool(name, {"text": "x"}, version="1.0", raise_on_error=False)
                return str(first.content), str((await client.call_tool(name, {"text": "x"})).content)

    chosen, listed = asyncio.run(run(opened(server)[1]))

    assert "may not choose a version" in chosen
    assert "done" in listed
    assert 1 == len(tools.runs)


@pytest.mark.parametrize(
    ("obligations", "told"),
    [
        ({"redact_result": {"fields": ["[].email"]}}, "its result is withheld"),
        ({"max_result_bytes": {"bytes": 40}}, "its result is withheld"),
        ({}, ""),
    ],
)
def test_what_a_tool_asks_the_client_tells_no_more_than_a_result(obligations: Any, told: str) -> None:
    """Where it would, the call has failed; otherwise the client is asked, and the call with its answer is a new one."""
    asks: list[str] = []

    async def ask(message: str, *_: Any) -> dict[str, Any]:
        asks.append(message)
        return {}

    async def run(session: Any) -> str:
        desk: FastMCP[Any] = FastMCP("desk")

        @desk.tool(name=f"{PREFIX}note")  # type: ignore[untyped-decorator,unused-ignore]
        async def note(context: Context) -> Any:
            schema: dict[str, Any] = {"type": "object", "properties": {}}
            form = ElicitRequestFormParams(message="is it ann@example.com?", requested_schema=schema)
            asked_for = InputRequiredResult(input_requests={"it": ElicitRequest(params=form)}, request_state="1")
            return "done" if context.input_responses else asked_for

        desk.add_middleware(PDPMiddleware(Door(session, MAPPED)))
        async with Client(desk, elicitation_handler=ask) as client:
            return str((await client.call_tool(f"{PREFIX}note", {}, raise_on_error=False)).content)

    with example("python fastmcp") as (_, session, server):
        obliged(server, **obligations)
        shown = asyncio.run(run(session))

        assert ["is it ann@example.com?"] * (not told) == asks
        assert (told or "done") in shown
        assert [CALL_STATUS_FAILED if told else CALL_STATUS_SUCCEEDED] == [
            one.status for one in server.sent("ReportOutcome")
        ]
        assert 1 + (not told) == len(asked(server))


@pytest.mark.parametrize("obligations", [{"redact_result": {"fields": ["[].email"]}}, {}])
def test_a_call_that_becomes_a_task_hands_nothing_on(obligations: Any) -> None:
    """Its result would come later, past every middleware: not reported, and as the tool returned it."""
    came_out: list[Any] = []

    class Tasks(ServerExtension):  # type: ignore[misc,unused-ignore]
        identifier = "com.example/tasks"

        async def intercept_tool_call(self, params: Any, context: Any, call_next: Any) -> Any:  # noqa: ARG002 - a hook
            return Submitted(task_id="task_1")

    class Outside(Middleware):  # type: ignore[misc,unused-ignore]
        async def on_call_tool(self, context: Any, call_next: Any) -> Any:
            came_out.append(await call_next(context))
            return came_out[-1]

    async def run(session: Any) -> None:
        desk: FastMCP[Any] = FastMCP("desk")
        desk.add_tool(CountedTool(name=f"{PREFIX}note", parameters={"type": "object"}, function=CountedTools()))
        desk.add_extension(Tasks())
        desk.add_middleware(Outside())
        desk.add_middleware(PDPMiddleware(Door(session, MAPPED)))
        async with Client(desk) as client:
            await client.call_tool(f"{PREFIX}note", {}, raise_on_error=False)

    with example("python fastmcp") as (_, session, server):
        obliged(server, **obligations)
        asyncio.run(run(session))

        assert ["task_1" in str(one) for one in came_out] == [False]
        assert "its result is withheld" in str(came_out[0].content)
        assert [CALL_STATUS_FAILED] == [one.status for one in server.sent("ReportOutcome")]
