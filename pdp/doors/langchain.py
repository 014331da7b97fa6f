"""LangChain and LangGraph: a middleware that asks before each tool call of an agent.

Put it last in the list, nearest to the tools: what a middleware after it does to a call is not seen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from langchain.agents.middleware import AgentMiddleware, ToolCallRequest
from langchain_core.messages import ToolMessage
from langgraph.errors import GraphBubbleUp, GraphInterrupt, ParentCommand
from langgraph.types import Command

from pdp.doors.admissions import Form, Refusal
from pdp.doors.core import DenyLoopError, Door, FrameworkCall

Result: TypeAlias = "ToolMessage | Command[Any]"
Returned: TypeAlias = "Result | _ToParent"


class PDPMiddleware(AgentMiddleware):
    """Asks a door about each tool call, in `create_agent(…, middleware=[…, PDPMiddleware(door)])`.

    It serves `invoke` and `ainvoke`. For a `ToolNode` of a graph of your own, pass its two methods as `wrap_tool_call`
    and `awrap_tool_call`. A door whose session is a function gets the `context` of the run.
    A model that repeats a denied call again and again ends the run: `DenyLoopError`.
    """

    def __init__(self, door: Door) -> None:
        super().__init__()
        self._door = door

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Result]) -> Result:
        """Run the tool with what was asked about, if the call is allowed."""

        def tool(arguments: dict[str, Any]) -> Returned:
            try:
                return handler(_with_arguments(request, arguments))
            except ParentCommand as error:
                return _ToParent(error)

        return _message(request, self._door.run(_call(request), tool, _MESSAGES))

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Result]]
    ) -> Result:
        """Do as `wrap_tool_call`, for asyncio."""

        async def tool(arguments: dict[str, Any]) -> Returned:
            try:
                return await handler(_with_arguments(request, arguments))
            except ParentCommand as error:
                return _ToParent(error)

        return _message(request, await self._door.run_async(_call(request), tool, _MESSAGES))


@dataclass(frozen=True, slots=True)
class _ToParent:
    """A command for the graph above, which a graph in the tool raises: the result of a call that is over."""

    error: ParentCommand


def _call(request: ToolCallRequest) -> FrameworkCall:
    call = request.tool_call
    # Outside of a graph there is no runtime.
    context = getattr(request.runtime, "context", None)
    # A middleware may have chosen another tool than the model: that one runs.
    name = request.tool.name if request.tool else call["name"]
    return FrameworkCall(name=name, arguments=call["args"], tool_call_id=call["id"] or "", run=context)


def _with_arguments(request: ToolCallRequest, arguments: dict[str, Any]) -> ToolCallRequest:
    return request.override(tool_call={**request.tool_call, "args": arguments})


def _message(request: ToolCallRequest, result: Returned | Refusal) -> Result:
    if isinstance(result, _ToParent):
        raise result.error
    if not isinstance(result, Refusal):
        return result
    if result.ends_run:
        raise DenyLoopError(result)
    call = request.tool_call
    return ToolMessage(content=result.text, name=call["name"], tool_call_id=call["id"], status="error")


def _content(result: Returned) -> object:
    """Return what the model sees: a text, or blocks as in a result of MCP. A `Command` is no JSON value."""
    if not isinstance(result, ToolMessage):
        return result
    return {"content": result.content} if isinstance(result.content, list) else result.content


def _with_content(result: ToolMessage, content: object) -> ToolMessage:
    # Without the artifact and the like: what the tool returned beside the content is not redacted.
    changed: Any = content["content"] if isinstance(content, dict) else content
    return ToolMessage(content=changed, name=result.name, tool_call_id=result.tool_call_id, status=result.status)


def _failed(result: Returned) -> bool:
    return isinstance(result, ToolMessage) and result.status == "error"


def _carried(pause: GraphBubbleUp) -> object:
    """Return what an interrupt shows to whoever answers it."""
    if not isinstance(pause, GraphInterrupt):
        return pause
    values = [one.value for one in pause.args[0]]
    return values[0] if len(values) == 1 else values


_MESSAGES: Form[Any] = Form(
    content=_content, with_content=_with_content, failed=_failed, steering=(GraphBubbleUp,), carried=_carried
)
