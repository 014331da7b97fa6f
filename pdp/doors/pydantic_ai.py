"""Pydantic AI: a capability that asks before each tool call of an agent.

What runs is asked about: the arguments after validation, and after all that other capabilities did to them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pydantic_ai import AbstractToolset, RunContext, ToolReturn, ToolsetTool, WrapperToolset
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, SkipToolExecution, ToolFailed
from pydantic_core import PydanticSerializationError, to_jsonable_python

from pdp.doors import refusals
from pdp.doors.admissions import Form, Refusal, frozen
from pdp.doors.core import DenyLoopError, Door, FrameworkCall


class PDPCapability(AbstractCapability[Any]):
    """Asks a door about each tool call, in `Agent(…, capabilities=[PDPCapability(door)])`.

    A door whose session is a function gets the `deps` of the run. A denied call is a tool that failed (`ToolFailed`).
    A model that repeats a denied call again and again ends the run: `DenyLoopError`.
    """

    def __init__(self, door: Door) -> None:
        super().__init__()
        self._door = door

    def get_ordering(self) -> CapabilityOrdering:
        """Stand nearest to the tools, wherever the program lists it."""
        return CapabilityOrdering(position="innermost")

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        """Stand between the agent and all its tools, those of MCP servers included."""
        return _AskingToolset(wrapped=toolset, door=self._door)


@dataclass
class _AskingToolset(WrapperToolset[Any]):
    """The tools of a run. The framework makes copies of it, field by field."""

    door: Door

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:  # noqa: ANN401 - whatever a tool returns
        """Run the tool with what was asked about, if the call is allowed."""
        if name != tool.tool_def.name:
            # Which of the two runs depends on the toolset.
            raise ToolFailed(_OTHERWISE)

        async def run(arguments: dict[str, Any]) -> object:
            try:
                return await self.wrapped.call_tool(name, arguments, ctx, tool)
            except SkipToolExecution as skip:
                # The model sees it like any other result.
                return skip.result

        call = FrameworkCall(name=name, arguments=tool_args, tool_call_id=ctx.tool_call_id or "", run=ctx.deps)
        freeze = partial(_freeze, tool=tool, context=ctx.validation_context)
        told = partial(_told, ctx, before=tuple(ctx.pending_messages or ()))
        form = replace(_VALUES, freeze=freeze, beside=lambda: _contents(told()))
        result = await self.door.run_async(call, run, form)
        if not isinstance(result, Refusal):
            return result
        for message in told():
            # It could say to the model what the result may not.
            ctx.dequeue(message.enqueue_id)
        if result.ends_run:
            raise DenyLoopError(result)
        raise ToolFailed(result.text)


def _freeze(arguments: dict[str, Any], tool: ToolsetTool[Any], context: Any) -> tuple[dict[str, Any], bytes]:  # noqa: ANN401 - the program's own
    """Return validated arguments, which may hold objects, and their JSON under the names of the tool's schema.

    Raise `ValueError` where the JSON says less than the objects, such as of a secret or of a field that is left out.
    """
    copied = copy.deepcopy(arguments)
    read, text = frozen(to_jsonable_python(copied, by_alias=True))
    if read != copied and tool.args_validator.validate_json(text, context=context) != copied:
        raise ValueError("the arguments hold what their JSON does not")
    return copied, text


def _told(ctx: RunContext[Any], before: tuple[Any, ...]) -> list[Any]:
    """Return what a call has put into the conversation besides its result (`enqueue`), or may have."""
    known, here = {one.enqueue_id for one in before}, (None, (ctx.tool_call_id, ctx.run_step))
    queued = tuple(ctx.pending_messages or ())
    return [one for one in queued if one.enqueue_id not in known and getattr(one, "_tool_call", None) in here]


def _contents(queued: list[Any]) -> Any:  # noqa: ANN401 - any JSON value
    parts = [part for one in queued for message in one.messages for part in message.parts]
    return _value([getattr(part, "content", part) for part in parts]) if parts else None


def _bare(result: object) -> object:
    """Return a result without what the tool returned for the model or the program besides."""
    return ToolReturn(return_value=result.return_value) if isinstance(result, ToolReturn) else result


def _content(result: Any) -> Any:  # noqa: ANN401 - whatever a tool returns
    """Return what the model sees as JSON, as a result of MCP if there are several parts; what is no JSON as it is."""
    if not isinstance(result, ToolReturn):
        return _value(result)
    value, beside = _value(result.return_value), result.content or ()
    if not beside:
        return value
    parts = (beside,) if isinstance(beside, str) else beside
    return {"content": [_block(part) for part in parts], "structuredContent": value}


def _block(part: object) -> dict[str, Any]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "part", "part": _value(part)}


def _value(value: Any) -> Any:  # noqa: ANN401 - whatever a tool returns
    try:
        return value if isinstance(value, str) else to_jsonable_python(value, by_alias=True, bytes_mode="base64")
    except PydanticSerializationError:
        return value


def _with_content(result: object, content: object) -> object:
    return ToolReturn(return_value=content) if isinstance(result, ToolReturn) else content


_OTHERWISE = f"Denied: the call names another tool than the one that would run; {refusals.NO_RETRY}."
_VALUES: Form[Any] = Form(
    bare=_bare,
    content=_content,
    with_content=_with_content,
    steering=(ApprovalRequired, CallDeferred),
    carried=lambda pause: pause.metadata,
)
