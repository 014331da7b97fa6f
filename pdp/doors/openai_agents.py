"""OpenAI Agents SDK: guardrails that ask before each call of a function tool, and look at its result.

Only they see the arguments as the model wrote them, and run after the framework's own approvals.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from agents import (
    FunctionTool,
    Tool,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrail,
    ToolInputGuardrailData,
    ToolOutputGuardrail,
    ToolOutputGuardrailData,
)

from pdp.doors.admissions import Form, Refusal, frozen
from pdp.doors.core import DenyLoopError, Door, FrameworkCall
from pdp.doors.pending import Pending
from pdp.doors.refusals import NO_RETRY
from pdp.errors import ConfigurationError

_NEVER_ASKED = f"The result of this call is withheld: the call was not asked about; {NO_RETRY}."


class PDPGuardrails:
    """Ask a door about each call of a tool: `Agent(tools=guardrails.guarded([…]))`.

    For the tools of an MCP server, pass `**guardrails.of_server` to `MCPServerStdio` or `MCPServerStreamableHttp`, each
    with guardrails of a door of its own, because the framework does not say which server a tool is from.
    A door whose session is a function gets the `context` of the run.
    A model that repeats a denied call again and again ends the run: the cause of its error is `DenyLoopError`.
    """

    def __init__(self, door: Door) -> None:
        door.require_no_call_tokens("this adapter")
        self._door = door
        self._pending = Pending()
        self._before: ToolInputGuardrail[Any] = ToolInputGuardrail(self._ask, name="pdp")
        self._after: ToolOutputGuardrail[Any] = ToolOutputGuardrail(self._hand_on, name="pdp")

    @property
    def of_server(self) -> Mapping[str, Any]:
        """Return both guardrails, by the names of the parameters of an MCP server."""
        return {"tool_input_guardrails": [self._before], "tool_output_guardrails": [self._after]}

    def guarded(self, tools: Iterable[Tool]) -> list[Tool]:
        """Return the tools with the guardrails, which come after those that they have.

        Raise `ConfigurationError` for a tool that runs elsewhere, such as a search of the model's provider.
        """
        return [self._guarded(tool) for tool in tools]

    def _guarded(self, tool: Tool) -> Tool:
        if not isinstance(tool, FunctionTool):
            raise ConfigurationError(f"the tool `{tool.name}` is no function tool: no guardrail sees its calls")
        return dataclasses.replace(
            tool,
            tool_input_guardrails=[*(tool.tool_input_guardrails or ()), self._before],
            tool_output_guardrails=[*map(self._through, tool.tool_output_guardrails or ()), self._after],
        )

    def _through(self, other: ToolOutputGuardrail[Any]) -> ToolOutputGuardrail[Any]:
        """Hand on what another guardrail puts in the place of a result: the framework asks none after it."""

        async def hand_on(data: ToolOutputGuardrailData) -> ToolGuardrailFunctionOutput:
            said = await other.run(data)
            if said.behavior["type"] != "reject_content":
                return said
            kept = await self._hand_on(dataclasses.replace(data, output=said.behavior["message"]))
            return said if kept.behavior["type"] == "allow" else kept

        return ToolOutputGuardrail(hand_on, name=other.get_name())

    async def _ask(self, data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
        context = data.context
        call = FrameworkCall(
            # With the namespace, if it has one: tools of two may have the same name.
            name=context.qualified_tool_name,
            arguments=context.tool_arguments,
            tool_call_id=context.tool_call_id,
            run=context.context,
        )
        admission = await self._door.ask_async(call, _TEXT)
        if not isinstance(admission, Refusal):
            self._pending.put(_key(data), admission)
            return ToolGuardrailFunctionOutput.allow()
        self._pending.take(_key(data))
        if admission.ends_run:
            raise DenyLoopError(admission)
        return ToolGuardrailFunctionOutput.reject_content(admission.text)

    async def _hand_on(self, data: ToolOutputGuardrailData) -> ToolGuardrailFunctionOutput:
        admission = self._pending.take(_key(data))
        if admission is None:
            return ToolGuardrailFunctionOutput.reject_content(_NEVER_ASKED)
        kept = await admission.handed_on_async(data.output)
        if isinstance(kept, Refusal):
            return ToolGuardrailFunctionOutput.reject_content(kept.text)
        if kept is data.output:
            return ToolGuardrailFunctionOutput.allow()
        text = kept if isinstance(kept, str) else json.dumps(kept, ensure_ascii=False)
        return ToolGuardrailFunctionOutput.reject_content(text)


def _key(data: ToolInputGuardrailData) -> tuple[int, int, str, str, str]:
    """Return what the two guardrails of one call share: its run, by what all contexts of that hold, and the call.

    In a realtime session each of the two has a context of its own.
    """
    context = data.context
    run = id(context.usage), id(context.context)
    return *run, context.tool_call_id, context.qualified_tool_name, context.tool_arguments


def _freeze(text: str) -> tuple[str, bytes]:
    """Return the text that the model wrote, twice: the tool gets just that.

    Raise `ValueError` for one that Python reads as what is no JSON, such as a number beyond all.
    """
    frozen(json.loads(text or "{}"))
    return text, text.encode()


_TEXT: Form[Any] = Form(freeze=_freeze)
