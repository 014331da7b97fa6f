"""Strands' agent with a model of our own."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from strands import Agent, ToolContext, tool
from strands.agent.conversation_manager import NullConversationManager
from strands.hooks import BeforeToolCallEvent, HookOrder
from strands.models import Model
from strands.tools.tools import PythonAgentTool
from strands.types.tools import AgentTool
from strands.vended_tools.subagent import make_subagent

from pdp.client import Client
from pdp.doors.core import Door
from pdp.doors.strands import PDPPlugin
from pdp.testing.inprocess import RunningServer
from pdp.v1.authorization_pb2 import CALL_STATUS_FAILED
from tests.doors.adapters.page import asked, example, obliged
from tests.doors.conformance import DoorConformance, approve, opened
from tests.doors.desk import MAPPED, NAMES, PEOPLE, PREFIX, SCHEMA, CountedTools, Driver, Step

_EMAIL = "ann@example.com"


class ScriptedModel(Model):
    """A model that calls what it is told to call."""

    def __init__(self, *steps: Step) -> None:
        self._left = list(enumerate(steps))

    def update_config(self, **_: Any) -> None:
        """Have nothing to configure."""

    def get_config(self) -> Any:
        """Return nothing."""
        return {}

    def structured_output(self, *_: Any, **__: Any) -> Any:
        """Not used here."""
        raise NotImplementedError

    async def stream(self, *_: Any, **__: Any) -> AsyncGenerator[Any, None]:
        """Return the next call, or the end."""
        start: Any = {}
        delta: Any = {"text": "that is all"}
        if self._left:
            number, step = self._left.pop(0)
            step.before()
            start = {"toolUse": {"toolUseId": f"call_{number}", "name": step.name}}
            delta = {"toolUse": {"input": json.dumps(step.arguments)}}
        yield {"messageStart": {"role": "assistant"}}
        yield {"contentBlockStart": {"start": start}}
        yield {"contentBlockDelta": {"delta": delta}}
        yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": "tool_use" if start else "end_turn"}}


def _tool(name: str, tools: CountedTools) -> PythonAgentTool:
    """Return a tool whose result is one text, or the blocks that `tools` returns."""

    def function(tool_use: Any, **_: Any) -> Any:
        returned = tools(name, tool_use["input"])
        blocks = returned if isinstance(returned, list) else [{"text": returned}]
        return {"toolUseId": tool_use["toolUseId"], "status": "success", "content": blocks}

    schema: Any = {"json": {"type": "object", "properties": dict(SCHEMA)}}
    return PythonAgentTool(name, {"name": name, "description": name, "inputSchema": schema}, function)


def _agent(door: Door, model: Model, tools: Sequence[AgentTool], **options: Any) -> Agent:
    return Agent(
        model=model,
        tools=list(tools),
        plugins=[PDPPlugin(door, **options)],
        callback_handler=None,
        conversation_manager=NullConversationManager(),
    )


def _results(agent: Agent) -> list[Any]:
    blocks = [block for message in agent.messages for block in message["content"]]
    return [block["toolResult"] for block in blocks if "toolResult" in block]


def _shown(agent: Agent) -> list[str]:
    return ["".join(block["text"] for block in result["content"]) for result in _results(agent)]


class StrandsDriver(Driver):
    """`Agent`, called and awaited."""

    name = "strands"

    def play(self, door: Door, tools: CountedTools, steps: Sequence[Step], run: Any = None) -> list[str]:
        """Call the agent."""
        agent = self._agent(door, tools, steps)
        agent("go", invocation_state={"run": run})
        return _shown(agent)

    async def play_async(self, door: Door, tools: CountedTools, steps: Sequence[Step], run: Any = None) -> list[str]:
        """Await the agent."""
        agent = self._agent(door, tools, steps)
        await agent.invoke_async("go", invocation_state={"run": run})
        return _shown(agent)

    def _agent(self, door: Door, tools: CountedTools, steps: Sequence[Step]) -> Agent:
        of_run = copy.copy(door)
        vars(of_run)["session_of"] = lambda state: door.session_of(state["run"])
        return _agent(of_run, ScriptedModel(*steps), [_tool(PREFIX + name, tools) for name in NAMES])


class TestStrands(DoorConformance):
    """The cases, with the agent of Strands."""

    driver = StrandsDriver()


def test_the_page_does_what_it_says() -> None:
    """Its agent asks before it calls a tool."""
    tools = CountedTools()
    with example("python strands") as (defined, session, server):
        model = ScriptedModel(Step(tool="git_log", prefix=""))
        agent = defined["agent_with_door"](session, model, [_tool("git_log", tools)])
        agent("go")

        assert ["done"] == _shown(agent)
        assert [("git", "git_log")] == asked(server)


def test_what_other_hooks_change_is_asked_about() -> None:
    """However late they come: other arguments, and another tool than the model chose."""
    tools = CountedTools()
    pay = _tool(f"{PREFIX}pay", tools)

    def rewrite(event: BeforeToolCallEvent) -> None:
        event.tool_use = {**event.tool_use, "input": {"amount": 7}}
        event.selected_tool = pay

    with example("python strands") as (_, session, server):
        agent = _agent(Door(session, MAPPED), ScriptedModel(Step()), [_tool(Step().name, tools)])
        agent.hooks.add_callback(BeforeToolCallEvent, rewrite, order=HookOrder.SDK_LAST + 1)
        agent("go")

        assert [("pay", {"amount": 7})] == tools.runs
        assert [("desk", "pay")] == asked(server)
        assert b'{"amount":7}' == server.sent("Authorize")[0].call.arguments_json


def test_a_call_without_the_model_is_asked_about() -> None:
    """By the agent's own shortcut to a tool."""
    tools = CountedTools()
    with example("python strands") as (_, session, server):
        agent = _agent(
            Door(session, {"note": "desk/note"}), ScriptedModel(), [_tool("note", tools), _tool("pay", tools)]
        )
        agent.tool.note(text="hello")

        assert "(unknown_tool)" in str(agent.tool.pay(amount=5))
        assert [("note", {"text": "hello"})] == tools.runs
        assert [("desk", "note")] == asked(server)


def _answer(result: Any) -> Any:
    """Return the answer of the user to the interrupt for which a run has paused."""
    (interrupt,) = result.interrupts
    return [{"interruptResponse": {"interruptId": interrupt.id, "response": "yes"}}]


@pytest.mark.parametrize("approved", [True, False])
def test_a_call_that_waits_for_a_person_interrupts_the_run(server: RunningServer, *, approved: bool) -> None:
    """With `pauses`. When the run goes on, the approval of the PDP decides, and not the answer to the framework."""
    tools = CountedTools()
    session_id, handle = opened(server)
    with Client(server.address, token=server.token("pep"), plaintext=True, timeout=60.0) as client:
        model = ScriptedModel(Step(tool="pay", arguments={"amount": 5}))
        door = Door(client.attach(handle), MAPPED)
        agent = _agent(door, model, [_tool(f"{PREFIX}pay", tools)], pauses=True)
        held = agent("go")
        before = list(tools.runs)
        if approved:
            approve(server, session_id)
        agent(_answer(held))

    assert [] == before
    assert "must approve exactly this call" in str(held.interrupts)
    assert [("pay", {"amount": 5})] * approved == tools.runs
    assert approved == ("done" in _shown(agent))


def test_a_run_that_goes_on_without_its_state_has_no_session() -> None:
    """The framework keeps no state over an interrupt, so the program passes it again."""
    tools = CountedTools()

    with example("python strands") as (_, session, server):
        agent = _agent(Door(lambda state: state["session"], MAPPED), ScriptedModel(Step()), [_tool(Step().name, tools)])
        agent.hooks.add_callback(BeforeToolCallEvent, lambda event: event.interrupt("sure"))
        held = agent("go", invocation_state={"session": session})
        agent(_answer(held))

        assert [] == tools.runs
        assert "no decision" in _shown(agent)[0]
        assert [] == asked(server)


def test_a_tool_may_interrupt_the_run_and_is_asked_about_again(server: RunningServer) -> None:
    """Its call is not over, and what it streams meanwhile is dropped where there are obligations."""
    told: list[Any] = []

    @tool(name=f"{PREFIX}people", context=True)
    async def people(tool_context: ToolContext) -> AsyncGenerator[Any, None]:
        yield _EMAIL
        tool_context.interrupt("sure")
        yield PEOPLE

    with Client(server.address, token=server.token("pep"), plaintext=True, timeout=60.0) as client:
        model = ScriptedModel(Step(tool="people", arguments={}))
        agent = _agent(Door(client.attach(opened(server)[1]), MAPPED), model, [people])
        agent.callback_handler = lambda **event: told.append(event)
        before = len(server.evidence.decision_spans)
        held = agent("go")
        shown = _shown(agent)
        agent(_answer(held))

    assert [] == shown
    assert "[redacted]" in _shown(agent)[0]
    assert _EMAIL not in str([one for one in told if "tool_stream_event" in one])
    assert 2 == len(server.evidence.decision_spans[before:])


def test_an_interrupt_of_a_tool_tells_no_more_than_a_result() -> None:
    """Its reason could hold what must be redacted: the call has failed."""

    @tool(name=Step().name, context=True)
    def note(text: str, tool_context: ToolContext) -> str:
        tool_context.interrupt("sure", reason=_EMAIL)
        return text

    with example("python strands") as (_, session, server):
        obliged(server, redact_result={"fields": ["[].email"]})
        agent = _agent(Door(session, MAPPED), ScriptedModel(Step()), [note])
        ended = agent("go")

        assert "end_turn" == ended.stop_reason
        assert "its result is withheld" in _shown(agent)[0]
        assert _EMAIL not in str(agent.messages)
        assert [CALL_STATUS_FAILED] == [one.status for one in server.sent("ReportOutcome")]


@pytest.mark.parametrize(
    ("blocks", "shown"),
    [
        ([{"json": [{"name": "Ann", "email": _EMAIL}]}], True),
        ([{"text": f'{{"email": "{_EMAIL}"}}'}, {"text": '{"email": null}'}], True),
        ([{"text": f'{{"email": "{_EMAIL}"}}'}, {"json": {"email": _EMAIL}}], False),
        ([{"image": {"format": "png", "source": {"bytes": _EMAIL.encode()}}}], False),
    ],
    ids=["a value", "texts", "of two kinds", "an image"],
)
def test_blocks_are_redacted_or_withheld(server: RunningServer, blocks: list[Any], *, shown: bool) -> None:
    """And what the tool returned besides is dropped."""
    tools = CountedTools(returns=blocks)
    with Client(server.address, token=server.token("pep"), plaintext=True, timeout=60.0) as client:
        model = ScriptedModel(Step(tool="people"))
        agent = _agent(Door(client.attach(opened(server)[1]), MAPPED), model, [_tool(f"{PREFIX}people", tools)])
        agent("go")

    (result,) = _results(agent)
    assert 1 == len(tools.runs)
    assert _EMAIL not in str(agent.messages)
    assert ("[redacted]" if shown else "withheld") in str(result)


# The framework warns of a model without a size.
@pytest.mark.filterwarnings("ignore:context_window_limit:UserWarning")
def test_an_agent_that_a_tool_makes_of_this_one_asks_the_same_door() -> None:
    """And so does the one that it makes: the framework hands on tools, and no plugin."""
    tools = CountedTools()
    with example("python strands") as (_, session, server):
        task = Step(tool="subagent", prefix="", arguments={"task": "pay"})
        agent = _agent(
            Door(session, {"subagent": "agents/subagent"}),
            ScriptedModel(task, task, Step(tool="pay")),
            [make_subagent(max_depth=2), _tool(f"{PREFIX}pay", tools)],
        )
        agent("go")

        assert [("agents", "subagent")] * 2 == asked(server)
        assert [] == tools.runs
