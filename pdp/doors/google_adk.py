"""Google ADK: a plugin that asks before each tool call of all agents of an app.

The framework's hooks come before the tool is asked to run, and later ones may change its arguments. So the plugin asks
where the tool runs: behind all hooks, and behind the framework's own confirmation of a call.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import MethodType
from typing import Any

from google.adk.plugins import BasePlugin
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.tool_confirmation import ToolConfirmation
from google.adk.tools.tool_context import ToolContext

from pdp.doors.admissions import Form, Refusal
from pdp.doors.core import DenyLoopError, Door, FrameworkCall

_NAME = "pdp"

Run = Callable[..., Awaitable[Any]]


class PDPPlugin(BasePlugin):
    """Asks a door about each tool call, in `App(…, plugins=[PDPPlugin(door)])`.

    A door whose session is a function gets the `ToolContext` of the call. A denied call is a result `{"error": …}`.
    With `pauses`, a call that a person must approve pauses the run as a confirmation of the framework, and the same
    call is asked about again when the run goes on.
    A model that repeats a denied call again and again ends the run: `DenyLoopError`.
    """

    def __init__(self, door: Door, *, pauses: bool = False) -> None:
        super().__init__(name=_NAME)
        self._door = door
        self._pauses = pauses

    async def before_tool_callback(self, *, tool: BaseTool, **_: Any) -> None:  # noqa: ANN401 - not looked at
        """Let the tool ask when it runs. A result here, even an empty one, would take the place of the tool's."""
        run: Run = tool.run_async
        if isinstance(run, _AskedRun):
            if run.tool is tool:
                return
            # The tool is a copy, as the framework makes one to give it another name: it must run itself.
            run = run.of(tool)
        tool.run_async = _AskedRun(tool, run)  # type: ignore[method-assign,unused-ignore] # as the framework does

    async def result_of(self, tool: BaseTool, run: Run, arguments: dict[str, Any], context: ToolContext) -> Any:  # noqa: ANN401 - whatever a tool returns
        """Run the tool with what was asked about, if the call is allowed; return what the model gets."""
        call_id = context.function_call_id or ""
        call = FrameworkCall(name=tool.name, arguments=arguments, tool_call_id=call_id, run=context)
        confirmations = context.actions.requested_tool_confirmations
        before = dict(confirmations)
        form = replace(_VALUES, beside=lambda: _told({k: v for k, v in confirmations.items() if k not in before}))
        result = await self._door.run_async(call, lambda asked: run(args=asked, tool_context=context), form)
        if not isinstance(result, Refusal):
            return result
        # What the tool asks people for could say what the model must not see.
        context.actions.requested_tool_confirmations = before
        if result.ends_run:
            raise DenyLoopError(result)
        if self._pauses and result.waits and call_id and context.tool_confirmation is None:
            context.request_confirmation(hint=result.text)
            # The pause is no result of which the model could make something.
            context.actions.skip_summarization = True
        return {"error": result.text}


class _AskedRun:
    """Takes the place of `run_async` of one tool. The plugin is that of the run in which a call is made."""

    def __init__(self, tool: BaseTool, run: Run) -> None:
        self.tool = tool
        self.run = run

    def of(self, copied: BaseTool) -> Run:
        """Return what a copy of the tool runs."""
        run = self.run
        if inspect.ismethod(run) and run.__self__ is self.tool:
            run = MethodType(run.__func__, copied)
        return run

    async def __call__(self, *, args: dict[str, Any], tool_context: ToolContext) -> Any:  # noqa: ANN401 - whatever a tool returns
        plugin = tool_context.get_invocation_context().plugin_manager.get_plugin(_NAME)
        if isinstance(plugin, PDPPlugin):
            return await plugin.result_of(self.tool, self.run, args, tool_context)
        # A run of another runner, which has no door.
        return await self.run(args=args, tool_context=tool_context)


def _told(confirmations: dict[str, ToolConfirmation]) -> list[Any] | None:
    """Return what a tool shows to the people who must confirm its call."""
    return [one.model_dump() for one in confirmations.values()] or None


def _failed(result: object) -> bool:
    return isinstance(result, dict) and result.keys() == {"error"}


_VALUES: Form[Any] = Form(failed=_failed)
