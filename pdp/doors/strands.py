"""Strands Agents: a plugin that asks before each tool call of an agent.

It stands behind all hooks, which may change a call or choose another tool until then.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, TypeAlias
from weakref import WeakSet

from strands import Agent
from strands.hooks import AfterToolCallEvent, BeforeToolCallEvent
from strands.interventions import InterventionHandler, Proceed
from strands.middleware import ExecuteToolContext, ExecuteToolStage, MiddlewareNext, ToolResultEvent, TypedEvent
from strands.plugins import Plugin
from strands.types.tools import ToolResult

from pdp.doors.admissions import Admission, Form, Refusal
from pdp.doors.core import DenyLoopError, Door, FrameworkCall
from pdp.observer import CallOutcome

Next: TypeAlias = "MiddlewareNext[ExecuteToolContext, TypedEvent]"


class PDPPlugin(Plugin, InterventionHandler):
    """Asks a door about each tool call, in `Agent(…, plugins=[…, PDPPlugin(door)])`. Put it last.

    Agents that the framework's tools `subagent` and `swarm` make of this one ask the same door.
    A door whose session is a function gets the `invocation_state` of the run. A denied call is a result with the
    status `error`. With `pauses`, a call that a person must approve interrupts the run, and is asked about again when
    the run goes on.
    A model that repeats a denied call again and again ends the run: the cause of its error is `DenyLoopError`.
    """

    name = "pdp"

    def __init__(self, door: Door, *, pauses: bool = False) -> None:
        super().__init__()
        door.require_no_call_tokens("this adapter")
        self._door = door
        self._pauses = pauses
        self._agents: WeakSet[Agent] = WeakSet()

    def init_agent(self, agent: Agent) -> None:
        """Stand between the agent and all its tools, those of MCP servers included."""
        self._agents.add(agent)
        # Agents that the framework makes of this one inherit its tools and its interventions, and no plugin.
        inherited = agent._intervention_registry  # noqa: SLF001 - these are set when an agent is made, before its plugins
        if self not in inherited.handlers:
            inherited._handlers = [*inherited.handlers, self]  # noqa: SLF001 - the same
        agent.add_middleware(ExecuteToolStage, self._ask)
        agent.add_hook(_end_run, AfterToolCallEvent)

    def before_tool_call(self, event: BeforeToolCallEvent[Any], **_: Any) -> Proceed:  # noqa: ANN401 - not looked at
        """Stand between the tools and an agent that inherits this."""
        if event.agent not in self._agents:
            self.init_agent(event.agent)
        return Proceed()

    async def _ask(self, context: ExecuteToolContext, call_next: Next) -> AsyncGenerator[TypedEvent, None]:
        """Run the tool with what was asked about, if the call is allowed."""
        use = context.tool_use
        # A hook may have chosen another tool than the model.
        name = context.tool.tool_name if context.tool else use["name"]
        call = FrameworkCall(
            name=name, arguments=use["input"], tool_call_id=use["toolUseId"], run=context.invocation_state
        )
        admission = await self._door.ask_async(call, _RESULTS)
        if isinstance(admission, Refusal):
            if self._pauses and admission.waits:
                # It returns when the run goes on, whatever the person has answered here.
                context.interrupt(self.name, reason=admission.text)
            yield _refused(use["toolUseId"], admission)
            return
        result = refusal = None
        with admission.running():
            async for event in call_next(context.replace(tool_use={**use, "input": admission.arguments})):
                if isinstance(event, ToolResultEvent):
                    result = event
                elif "tool_interrupt_event" in event:
                    refusal = await admission.steered_async(event)
                    if refusal is None:
                        yield event
                elif not admission.answer.obligations:
                    # What else a tool tells while it runs could hold what must be redacted.
                    yield event
        if refusal is not None:
            yield _refused(use["toolUseId"], refusal)
        elif result is not None:
            yield await _handed_on(admission, result)
        else:
            # The tool has interrupted the run: the call is asked about again when it goes on.
            admission.under_way.over(CallOutcome.ALLOW)


async def _handed_on(admission: Admission, event: ToolResultEvent) -> ToolResultEvent:
    kept = await admission.handed_on_async(event.tool_result)
    if isinstance(kept, Refusal):
        return _refused(event.tool_use_id, kept)
    return ToolResultEvent(kept, exception=event.exception)


def _refused(tool_use_id: str, refusal: Refusal) -> ToolResultEvent:
    result: ToolResult = {"toolUseId": tool_use_id, "status": "error", "content": [{"text": refusal.text}]}
    return ToolResultEvent(result, exception=DenyLoopError(refusal) if refusal.ends_run else None)


def _end_run(event: AfterToolCallEvent) -> None:
    """Raise where the framework does not turn an error into a result."""
    if isinstance(event.exception, DenyLoopError):
        raise event.exception


def _content(result: ToolResult) -> Any:  # noqa: ANN401 - any JSON value
    """Return what the model sees: the text or the value of the only block, or blocks as in a result of MCP."""
    blocks: list[Any] = result["content"]
    if len(blocks) == 1 and blocks[0].keys() in ({"text"}, {"json"}):
        (value,) = blocks[0].values()
        return value
    return {"content": [{"type": next(iter(block)), **block} for block in blocks]}


def _with_content(result: ToolResult, content: Any) -> ToolResult:  # noqa: ANN401 - any JSON value
    # Without what a tool of MCP returned besides: it is not redacted.
    blocks: list[Any] = result["content"]
    if len(blocks) == 1 and blocks[0].keys() in ({"text"}, {"json"}):
        (kind,) = blocks[0]
        shown: list[Any] = [{kind: content}]
    else:
        shown = [{"text": block["text"]} for block in content["content"]]
    return {"toolUseId": result["toolUseId"], "status": result["status"], "content": shown}


def _failed(result: ToolResult) -> bool:
    return result["status"] == "error"


def _carried(pause: TypedEvent) -> list[Any] | None:
    """Return what a tool shows to the people whom it interrupts the run for."""
    return [one.reason for one in pause["tool_interrupt_event"]["interrupts"] if one.reason is not None] or None


_RESULTS: Form[Any] = Form(content=_content, with_content=_with_content, failed=_failed, carried=_carried)
