"""FastMCP: a middleware of an MCP server that asks before each call of its tools, and lists only what a session sees.

Add it last, so that it is nearest to the tools: what a middleware after it does to a call is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastmcp.server.dependencies import get_http_headers
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.tools.base import InputRequiredToolResult, Tool, ToolResult
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsRequest

from pdp.client import AsyncClient, Client
from pdp.doors.admissions import Form, Refusal
from pdp.doors.core import Door, FrameworkCall, Session
from pdp.doors.refusals import NO_RETRY
from pdp.errors import ConfigurationError

SESSION_HEADER = "x-pdp-session"

_CHOSEN = "The call did not run: it may not choose a version of the tool (`_meta.fastmcp`). Call the tool without one."

_TASK = (
    "The call was made as a task in the background, and its result is withheld: it cannot be looked at there; "
    f"{NO_RETRY}."
)


def session_of_header(client: Client | AsyncClient) -> Callable[[object], Session]:
    """Return the session of a door for a server that speaks HTTP: that of the handle in `X-PDP-Session`.

    A request without the header has no session, and its calls are denied.
    """

    def session(_: object) -> Session:
        handle = get_http_headers(include_all=True).get(SESSION_HEADER)
        if not handle:
            raise ConfigurationError(f"the request has no header `{SESSION_HEADER}`")
        return client.attach(handle)

    return session


class PDPMiddleware(Middleware):
    """Asks a door about each call: `server.add_middleware(PDPMiddleware(door))`.

    A door whose session is a function gets the `MiddlewareContext` of the request; `session_of_header` makes one.
    Resources and prompts are not asked about.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_call_tool(
        self,
        context: MiddlewareContext[CallToolRequestParams],
        call_next: CallNext[CallToolRequestParams, ToolResult],
    ) -> ToolResult:
        """Run the tool with what was asked about, if the call is allowed."""
        if _chooses(context):
            return ToolResult(content=_CHOSEN, is_error=True)
        message = context.message

        async def tool(arguments: dict[str, Any]) -> ToolResult:
            asked = message.model_copy(update={"arguments": arguments})
            result = await call_next(context.copy(message=asked))
            if isinstance(result, InputRequiredToolResult):
                raise _InputRequiredError(result)
            if not isinstance(result, ToolResult):
                raise _TaskError
            return result

        call = FrameworkCall(name=message.name, arguments=message.arguments or {}, run=context)
        try:
            result = await self._door.run_async(call, tool, _RESULTS)
        except _InputRequiredError as asking:
            return asking.result
        except _TaskError:
            return ToolResult(content=_TASK, is_error=True)
        # A server ends no run of its client: one that repeats a denied call is told the same each time.
        return ToolResult(content=result.text, is_error=True) if isinstance(result, Refusal) else result

    async def on_list_tools(
        self, context: MiddlewareContext[ListToolsRequest], call_next: CallNext[ListToolsRequest, Sequence[Tool]]
    ) -> Sequence[Tool]:
        """List the tools that the session sees. This hides tools; calls are asked about anyway."""
        visible = await self._door.visible(context)
        return [tool for tool in await call_next(context) if tool.name in visible]


class _TaskError(Exception):
    """An extension of the server runs the call in the background: what comes of it passes no middleware."""


class _InputRequiredError(Exception):
    """A tool asks the client for input: the call is not over, and is asked about again when it comes with the input."""

    def __init__(self, result: InputRequiredToolResult) -> None:
        super().__init__("the tool asks for input")
        self.result = result


def _chooses(context: MiddlewareContext[Any]) -> bool:
    """Say whether a request chooses a version of a tool, which can be another tool than the one that is listed."""
    request = context.fastmcp_context.request_context if context.fastmcp_context is not None else None
    return request is not None and "fastmcp" in (request.meta or {})


def _content(result: Any) -> Any:  # noqa: ANN401 - a `ToolResult`, or what stands for a call that is not over
    """Return a result as MCP sends it."""
    if not isinstance(result, ToolResult):
        return result
    sent: dict[str, Any] = {
        "content": [block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in result.content],
        "isError": result.is_error,
    }
    if result.structured_content is not None:
        sent["structuredContent"] = result.structured_content
    return sent


def _with_content(_: ToolResult, content: dict[str, Any]) -> ToolResult:
    return ToolResult.from_mcp_result(CallToolResult.model_validate(content))


def _failed(result: object) -> bool:
    return isinstance(result, ToolResult) and result.is_error


def _carried(asking: _InputRequiredError) -> Any:  # noqa: ANN401 - any JSON value
    return asking.result.input_required.model_dump(mode="json", by_alias=True, exclude_none=True)


_RESULTS: Form[Any] = Form(
    content=_content, with_content=_with_content, failed=_failed, steering=(_InputRequiredError,), carried=_carried
)
