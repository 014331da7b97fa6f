"""The runner of the OpenAI Agents SDK with a model of our own, and tools of a real MCP server."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from agents import (
    Agent,
    FunctionTool,
    Model,
    ModelResponse,
    RunConfig,
    Runner,
    ToolGuardrailFunctionOutput,
    Usage,
    WebSearchTool,
    default_tool_error_function,
    tool_namespace,
    tool_output_guardrail,
)
from agents.items import TResponseStreamEvent
from agents.mcp import MCPServerStdio
from agents.realtime import RealtimeAgent, RealtimeModel
from agents.realtime.model_events import RealtimeModelToolCallEvent
from agents.realtime.session import RealtimeSession
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from pdp.doors.core import Door
from pdp.doors.openai_agents import PDPGuardrails
from pdp.errors import ConfigurationError
from tests.doors.adapters.page import asked, example, obliged
from tests.doors.conformance import COROUTINES, DoorConformance
from tests.doors.desk import MAPPED, NAMES, PEOPLE, PREFIX, SCHEMA, CountedTools, Driver, Step

_QUIET = RunConfig(tracing_disabled=True)


class ScriptedModel(Model):
    """A model that calls what it is told to call."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._left = list(enumerate(steps))

    async def get_response(self, *_: Any, **__: Any) -> ModelResponse:
        """Return the next call, or the end."""
        if not self._left:
            text = ResponseOutputText(text="that is all", type="output_text", annotations=[])
            message = ResponseOutputMessage(
                id="end", content=[text], role="assistant", status="completed", type="message"
            )
            return ModelResponse(output=[message], usage=Usage(), response_id=None)
        number, step = self._left.pop(0)
        step.before()
        written = step.arguments if isinstance(step.arguments, str) else json.dumps(step.arguments)
        namespace, name = step.name.rpartition(".")[::2]
        call = ResponseFunctionToolCall(
            name=name, namespace=namespace or None, arguments=written, call_id=f"call_{number}", type="function_call"
        )
        return ModelResponse(output=[call], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[TResponseStreamEvent]:
        """Not used here."""
        raise NotImplementedError


def _tool(name: str, tools: CountedTools) -> FunctionTool:
    async def invoke(context: Any, written: str) -> Any:
        try:
            return tools(name, json.loads(written))
        except Exception as error:  # noqa: BLE001 - as every tool that `function_tool` makes
            return default_tool_error_function(context, error)

    schema: dict[str, Any] = {"type": "object", "properties": dict(SCHEMA)}
    return FunctionTool(
        name=name, description=name, params_json_schema=schema, on_invoke_tool=invoke, strict_json_schema=False
    )


def _shown(result: Any) -> list[str]:
    return [str(item.output) for item in result.new_items if item.type == "tool_call_output_item"]


class OpenAIAgentsDriver(Driver):
    """`Runner.run`."""

    name = "openai_agents"

    async def play_async(self, door: Door, tools: CountedTools, steps: Sequence[Step], run: Any = None) -> list[str]:
        """Await the agent."""
        known = PDPGuardrails(door).guarded([_tool(PREFIX + name, tools) for name in NAMES])
        agent: Agent[Any] = Agent(name="desk", model=ScriptedModel(steps), tools=known)
        return _shown(await Runner.run(agent, "go", context=run, max_turns=100, run_config=_QUIET))


class TestOpenAIAgents(DoorConformance):
    """The cases, with the runner of the OpenAI Agents SDK."""

    driver = OpenAIAgentsDriver()
    ways = COROUTINES


class SilentModel(RealtimeModel):  # type: ignore[misc,unused-ignore]
    """The connection of a realtime session, which keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def connect(self, options: Any) -> None:
        """Do nothing."""

    async def send_event(self, event: Any) -> None:
        """Keep an event."""
        self.sent.append(event)

    async def close(self) -> None:
        """Do nothing."""

    def add_listener(self, listener: Any) -> None:
        """Tell it nothing."""

    def remove_listener(self, listener: Any) -> None:
        """Do nothing."""


def test_a_call_of_a_realtime_session_is_asked_about_and_handed_on() -> None:
    """There each guardrail gets a context of its own."""
    tools, model = CountedTools(returns=PEOPLE), SilentModel()

    async def run(session: Any) -> None:
        guarded = PDPGuardrails(Door(session, MAPPED)).guarded([_tool(Step().name, tools)])
        realtime = RealtimeSession(model, RealtimeAgent(name="desk", tools=guarded), None)
        await realtime._handle_tool_call(
            RealtimeModelToolCallEvent(name=Step().name, call_id="call_1", arguments='{"text": "a"}')
        )

    with example("python openai-agents") as (_, session, server):
        obliged(server, redact_result={"fields": ["[].email"]})
        asyncio.run(run(session))

        assert [("note", {"text": "a"})] == tools.runs
        assert [("desk", "note")] == asked(server)
        assert [PEOPLE.replace("ann@example.com", "[redacted]")] == [one.output for one in model.sent]


def test_the_page_does_what_it_says() -> None:
    """Its agent asks before it calls a tool."""
    tools = CountedTools()
    with example("python openai-agents") as (defined, session, server):
        model = ScriptedModel([Step(tool="git_log", prefix="")])
        agent = defined["agent_with_door"](session, model, [_tool("git_log", tools)])

        assert ["done"] == _shown(asyncio.run(Runner.run(agent, "go", run_config=_QUIET)))
        assert [("git", "git_log")] == asked(server)


def test_tools_of_the_same_name_are_told_apart_by_their_namespaces() -> None:
    """The table has them with it."""
    notes, crm = CountedTools(), CountedTools()
    with example("python openai-agents") as (_, session, server):
        guardrails = PDPGuardrails(Door(session, {"notes.delete": "notes/delete", "delete": "notes/delete"}))
        of_each = {"notes": notes, "crm": crm}
        known = [
            tool
            for name, tools in of_each.items()
            for tool in tool_namespace(name=name, description=name, tools=guardrails.guarded([_tool("delete", tools)]))
        ]
        model = ScriptedModel([Step(tool="notes.delete", prefix=""), Step(tool="crm.delete", prefix="")])
        agent: Agent[Any] = Agent(name="desk", model=model, tools=known)
        done, unknown = _shown(asyncio.run(Runner.run(agent, "go", run_config=_QUIET)))

        assert "done" == done
        assert "(unknown_tool)" in unknown
        assert (1, 0) == (len(notes.runs), len(crm.runs))
        assert [("notes", "delete")] == asked(server)


def test_a_tool_that_runs_elsewhere_is_refused() -> None:
    """No guardrail would see its calls."""
    with example("python openai-agents") as (_, session, _server):
        guardrails = PDPGuardrails(Door(session, MAPPED))

        with pytest.raises(ConfigurationError, match="`web_search` is no function tool"):
            guardrails.guarded([WebSearchTool()])


def test_another_guardrail_is_kept() -> None:
    """It comes before the door's, and may reject what the door would have handed on."""

    @tool_output_guardrail
    def never(_: Any) -> ToolGuardrailFunctionOutput:
        return ToolGuardrailFunctionOutput.reject_content("not that")

    tools = CountedTools()
    with example("python openai-agents") as (_, session, server):
        tool = _tool(Step().name, tools)
        tool.tool_output_guardrails = [never]
        guarded = PDPGuardrails(Door(session, MAPPED)).guarded([tool])
        agent: Agent[Any] = Agent(name="desk", model=ScriptedModel([Step()]), tools=guarded)

        assert ["not that"] == _shown(asyncio.run(Runner.run(agent, "go", run_config=_QUIET)))
        assert [("desk", "note")] == asked(server)


def test_what_another_guardrail_puts_in_place_of_a_result_is_redacted() -> None:
    """The framework asks no guardrail after it."""

    @tool_output_guardrail
    def shortened(data: Any) -> ToolGuardrailFunctionOutput:
        return ToolGuardrailFunctionOutput.reject_content(data.output.strip())

    with example("python openai-agents") as (_, session, server):

        def decide(request: Any, _: Any) -> Any:
            decision = server.honest(request)
            decision.obligations.add(id="redact_result", parameters_json=b'{"fields": ["[].email"]}')
            return decision

        server.decide = decide
        tool = _tool(Step().name, CountedTools(returns=f" {PEOPLE}"))
        tool.tool_output_guardrails = [shortened]
        guarded = PDPGuardrails(Door(session, MAPPED)).guarded([tool])
        agent: Agent[Any] = Agent(name="desk", model=ScriptedModel([Step()]), tools=guarded)
        (shown,) = _shown(asyncio.run(Runner.run(agent, "go", run_config=_QUIET)))

        assert "[redacted]" in shown
        assert "ann@example.com" not in shown


def test_a_call_that_the_framework_holds_for_approval_is_asked_about_after_it() -> None:
    """So an approval of the framework opens nothing that the PDP denies."""
    tools = CountedTools()
    with example("python openai-agents") as (_, session, server):
        tool = _tool(Step().name, tools)
        tool.needs_approval = True
        guarded = PDPGuardrails(Door(session, MAPPED)).guarded([tool])
        agent: Agent[Any] = Agent(name="desk", model=ScriptedModel([Step()]), tools=guarded)
        held = asyncio.run(Runner.run(agent, "go", run_config=_QUIET))
        before = asked(server)
        state = held.to_state()
        state.approve(held.interruptions[0])
        result = asyncio.run(Runner.run(agent, state, run_config=_QUIET))

        assert [] == before
        assert "done" == _shown(result)[-1]
        assert [("desk", "note")] == asked(server)


_SERVER = """
from mcp.server import MCPServer
server = MCPServer("desk")

@server.tool()
def note(text: str) -> str:
    return text.upper()

server.run("stdio")
"""


def test_the_tools_of_an_mcp_server_are_asked_about(tmp_path: Path) -> None:
    """The guardrails are those of the server, and its tools have none of their own."""
    program = tmp_path / "server.py"
    program.write_text(_SERVER, encoding="utf-8")

    async def run(session: Any) -> list[str]:
        guardrails = PDPGuardrails(Door(session, {"note": "desk/note"}))
        parameters: Any = {"command": sys.executable, "args": [str(program)]}
        async with MCPServerStdio(parameters, **guardrails.of_server) as server:
            agent: Agent[Any] = Agent(name="desk", model=ScriptedModel([Step(prefix="")]), mcp_servers=[server])
            return _shown(await Runner.run(agent, "go", run_config=_QUIET))

    with example("python openai-agents") as (_, session, server):
        (shown,) = asyncio.run(run(session))

        assert "HELLO" in shown
        assert [("desk", "note")] == asked(server)
