"""LangChain's agent with its fake model, and a `ToolNode` of LangGraph."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import StructuredTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import ParentCommand
from langgraph.graph import MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt

from pdp.doors.core import Door
from pdp.doors.langchain import PDPMiddleware
from pdp.v1.authorization_pb2 import CALL_STATUS_FAILED, CALL_STATUS_SUCCEEDED
from tests.doors.adapters.page import asked, example, obliged
from tests.doors.conformance import DoorConformance
from tests.doors.desk import MAPPED, NAMES, PREFIX, SCHEMA, CountedTools, Driver, Step


class ScriptedModel(GenericFakeChatModel):
    """A model that calls what it is told to call."""

    def bind_tools(self, *_: Any, **__: Any) -> Any:
        """Know the tools already."""
        return self


def _messages(steps: Sequence[Step]) -> Iterator[AIMessage]:
    for number, step in enumerate(steps):
        step.before()
        call = {"name": step.name, "args": step.arguments, "id": f"call_{number}"}
        yield AIMessage(content="", tool_calls=[call])
    yield AIMessage(content="that is all")


def _tool(name: str, tools: CountedTools) -> StructuredTool:
    def function(**arguments: Any) -> Any:
        return tools(name, arguments)

    async def coroutine(**arguments: Any) -> Any:
        return tools(name, arguments)

    schema = {"title": name, "type": "object", "properties": dict(SCHEMA)}
    return StructuredTool(name=name, description=name, args_schema=schema, func=function, coroutine=coroutine)


class LangChainDriver(Driver):
    """`create_agent`, invoked or awaited."""

    name = "langchain"

    def play(self, door: Door, tools: CountedTools, steps: Sequence[Step], run: Any = None) -> list[str]:
        """Invoke the agent."""
        return _shown(self._agent(door, tools, steps).invoke(_ASK, _CONFIG, context=run))

    async def play_async(self, door: Door, tools: CountedTools, steps: Sequence[Step], run: Any = None) -> list[str]:
        """Await the agent."""
        return _shown(await self._agent(door, tools, steps).ainvoke(_ASK, _CONFIG, context=run))

    def _agent(self, door: Door, tools: CountedTools, steps: Sequence[Step]) -> Any:
        known = [_tool(PREFIX + name, tools) for name in NAMES]
        model = ScriptedModel(messages=_messages(steps))
        return create_agent(model, known, middleware=[PDPMiddleware(door)])


_ASK: Any = {"messages": [("user", "go")]}
_CONFIG: Any = {"recursion_limit": 100}


def _shown(state: Any) -> list[str]:
    return [str(one.content) for one in state["messages"] if isinstance(one, ToolMessage)]


class TestLangChain(DoorConformance):
    """The cases, with LangChain's agent."""

    driver = LangChainDriver()


def test_the_page_does_what_it_says() -> None:
    """Its agent asks before it calls a tool."""
    tools = CountedTools()
    with example("python langchain") as (defined, session, server):
        model = ScriptedModel(messages=_messages([Step(tool="git_log", prefix="")]))
        agent = defined["agent_with_door"](session, model, [_tool("git_log", tools)])
        shown = _shown(agent.invoke(_ASK))

        assert ["done"] == shown
        assert [("git", "git_log")] == asked(server)


def test_a_node_of_a_graph_asks_too() -> None:
    """A `ToolNode` takes the two methods of the middleware."""
    tools = CountedTools()
    with example("python langchain") as (_, session, server):
        middleware = PDPMiddleware(Door(session, MAPPED))
        node = ToolNode([_tool(PREFIX + name, tools) for name in NAMES], wrap_tool_call=middleware.wrap_tool_call)
        graph = StateGraph(MessagesState).add_node("tools", node).set_entry_point("tools").compile()
        asks = AIMessage(content="", tool_calls=[{"name": Step().name, "args": {"text": "a"}, "id": "call_1"}])
        shown = _shown(graph.invoke({"messages": [asks]}))

        assert ["done"] == shown
        assert [("desk", "note")] == asked(server)


def test_a_tool_may_interrupt_the_run_and_is_asked_about_again() -> None:
    """What steers a run is no failure of the tool."""

    def pause() -> None:
        interrupt("sure?")

    tools = CountedTools(during=pause)
    with example("python langchain") as (_, session, server):
        agent = create_agent(
            ScriptedModel(messages=_messages([Step()])),
            [_tool(Step().name, tools)],
            middleware=[PDPMiddleware(Door(session, MAPPED))],
            checkpointer=InMemorySaver(),
        )
        config: Any = {"configurable": {"thread_id": "1"}}
        paused = agent.invoke(_ASK, config)
        shown = _shown(agent.invoke(Command(resume="yes"), config))

        assert "__interrupt__" in paused
        assert ["done"] == shown
        assert [("desk", "note")] * 2 == asked(server)
        assert [] == server.sent("ReportOutcome")


# What a tool's result may not hold, as obligations and by what the model is told.
OBLIGED: Any = [
    ({"redact_result": {"fields": ["[].email"]}}, "its result is withheld"),
    ({"max_result_bytes": {"bytes": 4}}, "its result is withheld"),
    ({}, ""),
]


def test_of_a_redacted_message_only_the_content_is_left() -> None:
    """A tool that returns a message of its own may say more beside it."""
    email = "ann@example.com"
    beside: Any = {"artifact": email, "id": email, "additional_kwargs": {"x": email}, "response_metadata": {"x": email}}
    returned = ToolMessage(f'[{{"email": "{email}"}}]', tool_call_id="call_0", **beside)

    with example("python langchain") as (_, session, server):
        obliged(server, redact_result={"fields": ["[].email"]})
        agent = create_agent(
            ScriptedModel(messages=_messages([Step()])),
            [_tool(Step().name, CountedTools(returns=returned))],
            middleware=[PDPMiddleware(Door(session, MAPPED))],
        )
        (shown,) = [one for one in agent.invoke(_ASK)["messages"] if isinstance(one, ToolMessage)]

        assert '[{"email": "[redacted]"}]' == shown.content
        assert email not in str(shown.model_dump())


@pytest.mark.parametrize(("obligations", "told"), OBLIGED)
def test_an_interrupt_tells_no_more_than_a_result(obligations: Any, told: str) -> None:
    """Where it would, the call has failed; otherwise the run pauses, and nothing is reported."""

    def pause() -> None:
        interrupt([{"email": "ann@example.com"}])

    with example("python langchain") as (_, session, server):
        obliged(server, **obligations)
        agent = create_agent(
            ScriptedModel(messages=_messages([Step()])),
            [_tool(Step().name, CountedTools(during=pause))],
            middleware=[PDPMiddleware(Door(session, MAPPED))],
            checkpointer=InMemorySaver(),
        )
        state = agent.invoke(_ASK, {"configurable": {"thread_id": "1"}})

        assert bool(told) is not ("ann@example.com" in str(state))
        assert told in "".join(_shown(state))
        assert [CALL_STATUS_FAILED] * bool(told) == [one.status for one in server.sent("ReportOutcome")]


@pytest.mark.parametrize(("obligations", "told"), OBLIGED)
@pytest.mark.parametrize("way", ["threads", "asyncio"])
def test_a_command_for_the_graph_above_is_a_result(way: str, obligations: Any, told: str) -> None:
    """A tool that runs a graph raises it: it is reported, and withheld where nothing can be redacted or bounded."""

    def to_parent() -> None:
        update = {"messages": [("user", '[{"email": "ann@example.com"}]')]}
        raise ParentCommand(Command(graph=Command.PARENT, goto="after", update=update))

    with example("python langchain") as (_, session, server):
        obliged(server, **obligations)
        middleware = PDPMiddleware(Door(session, MAPPED))
        node = ToolNode(
            [_tool(Step().name, CountedTools(during=to_parent))],
            wrap_tool_call=middleware.wrap_tool_call,
            awrap_tool_call=middleware.awrap_tool_call,
        )
        inner = StateGraph(MessagesState).add_node("tools", node).set_entry_point("tools").compile()
        outer = StateGraph(MessagesState).add_node("inner", inner, destinations=("after",)).set_entry_point("inner")
        graph = outer.add_node("after", lambda _: {}).compile()
        asks = AIMessage(content="", tool_calls=[{"name": Step().name, "args": {"text": "a"}, "id": "call_1"}])
        state: Any = {"messages": [asks]}
        state = graph.invoke(state) if way == "threads" else asyncio.run(graph.ainvoke(state))

        assert bool(told) is not ("ann@example.com" in str(state))
        assert told in "".join(_shown(state))
        assert [CALL_STATUS_SUCCEEDED] == [one.status for one in server.sent("ReportOutcome")]


def test_what_a_middleware_outside_changes_is_asked_about() -> None:
    """The door is last, so it sees what the tool gets."""
    tools = CountedTools()

    class Rewrites(AgentMiddleware):  # type: ignore[misc,unused-ignore]
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(tool_call={**request.tool_call, "args": {"text": "rewritten"}}))

    with example("python langchain") as (_, session, server):
        agent = create_agent(
            ScriptedModel(messages=_messages([Step()])),
            [_tool(Step().name, tools)],
            middleware=[Rewrites(), PDPMiddleware(Door(session, MAPPED))],
        )
        agent.invoke(_ASK)

        assert [("note", {"text": "rewritten"})] == tools.runs
        assert b'{"text":"rewritten"}' == server.sent("Authorize")[0].call.arguments_json


def test_a_tool_that_a_middleware_outside_chooses_is_asked_about() -> None:
    """The call keeps the name that the model wrote, and another tool runs."""
    tools = CountedTools()

    class Redirects(AgentMiddleware):  # type: ignore[misc,unused-ignore]
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(tool=_tool(f"{PREFIX}pay", tools)))

    with example("python langchain") as (_, session, server):
        agent = create_agent(
            ScriptedModel(messages=_messages([Step()])),
            [_tool(Step().name, tools)],
            middleware=[Redirects(), PDPMiddleware(Door(session, MAPPED))],
        )
        agent.invoke(_ASK)

        assert ["pay"] == [name for name, _ in tools.runs]
        assert [("desk", "pay")] == asked(server)
