"""Claude Agent SDK: hooks that ask before each tool call of an agent, built-in tools and subagents included.

A hook that raises lets the tool run there, so these never raise: whatever goes wrong is a deny.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

from claude_agent_sdk import HookMatcher

from pdp.doors import refusals
from pdp.doors.admissions import Form, Refusal
from pdp.doors.core import DenyLoopError, Door, FrameworkCall
from pdp.doors.pending import Pending
from pdp.observer import CallOutcome

_LOG = logging.getLogger(__name__)

# Within so many seconds a hook must answer, beside what the door lets a call wait for a person. The client's own bounds
# are shorter. A hook that is late is a deny before a call.
_HOOK_SECONDS = 120.0
_MCP = "mcp__"

Hook = Callable[[Any, Any, Any], Awaitable[Any]]


class PDPHooks:
    """Ask a door about each tool call: `ClaudeAgentOptions(…, hooks=PDPHooks(door).hooks)`.

    The names of tools are those of the framework, `mcp__server__tool` or `Bash`. An allow leaves the framework's own
    permissions in force. A door whose session is a function gets the input of the hook.
    What cannot be kept from the model there is a deny, or ends the run: the obligation `redact_result`, since the error
    of a tool cannot be replaced, and a result of a built-in tool that must be withheld.
    """

    def __init__(self, door: Door) -> None:
        door.require_no_call_tokens("this adapter")
        self._door = door
        self._pending = Pending()
        self._seconds = _HOOK_SECONDS + (door.wait or 0.0)

    @property
    def hooks(self) -> dict[str, list[HookMatcher]]:
        """Return the hooks. Add those of your own to the lists."""
        by_event: Mapping[str, Hook] = {
            "PreToolUse": self._ask,
            "PostToolUse": self._hand_on,
            "PostToolUseFailure": self._failed,
        }
        return {
            event: [HookMatcher(hooks=[_never_raises(event, hook)], timeout=self._seconds, on_failure="block")]
            for event, hook in by_event.items()
        }

    async def _ask(self, given: Any, *_: Any) -> dict[str, Any]:  # noqa: ANN401 - the input of a hook
        call = FrameworkCall(
            name=given["tool_name"], arguments=given["tool_input"], tool_call_id=given["tool_use_id"], run=given
        )
        admission = await self._door.ask_async(call, _RESPONSES)
        if isinstance(admission, Refusal):
            return _denied(admission)
        if admission.redacts:
            admission.under_way.over(CallOutcome.DENY)
            await admission.failed_async()
            _LOG.warning("a call of `%s` is denied: nothing can be redacted here", call.name)
            return _denied(Refusal(text=refusals.unmet(admission.answer, call=call.name)))
        self._pending.put(_key(given), admission)
        return {}

    async def _hand_on(self, given: Any, *_: Any) -> dict[str, Any]:  # noqa: ANN401 - the input of a hook
        admission = self._pending.take(_key(given))
        if admission is None or admission.arguments != given["tool_input"]:
            if admission is not None:
                admission.under_way.over(CallOutcome.WITHHELD)
                # As a call that was made, whatever it held: one that failed would not count.
                await admission.handed_on_async(None)
            _LOG.error("a result of `%s` is withheld: it ran with other arguments than asked about", given["tool_name"])
            return _withheld(given, _OTHERWISE)
        kept = await admission.handed_on_async(given["tool_response"])
        return _withheld(given, kept.text) if isinstance(kept, Refusal) else {}

    async def _failed(self, given: Any, *_: Any) -> dict[str, Any]:  # noqa: ANN401 - the input of a hook
        if admission := self._pending.take(_key(given)):
            await admission.failed_async()
        return {}


def _never_raises(event: str, hook: Hook) -> Hook:
    """Return a hook that answers with a deny, or withholds, where it would raise."""

    @wraps(hook)
    async def answer(given: Any, tool_use_id: Any, context: Any) -> dict[str, Any]:  # noqa: ANN401 - passed on
        try:
            return await hook(given, tool_use_id, context)
        except Exception as error:  # noqa: BLE001 - fails closed: the framework would run the tool
            _LOG.error("a hook for `%s` failed: %s", event, type(error).__name__)
            return _denied(Refusal(text=_BROKEN)) if event == "PreToolUse" else _stopped(_BROKEN)

    return answer


def _key(given: Any) -> tuple[str, str]:  # noqa: ANN401 - the input of a hook
    return given["session_id"], given["tool_use_id"]


def _denied(refusal: Refusal) -> dict[str, Any]:
    said: dict[str, Any] = {
        "hookSpecificOutput": {
            "hookEventName": "PreToolUse",
            "permissionDecision": "deny",
            "permissionDecisionReason": refusal.text,
        }
    }
    return {**said, **_stopped(str(DenyLoopError(refusal)))} if refusal.ends_run else said


def _withheld(given: Any, text: str) -> dict[str, Any]:  # noqa: ANN401 - the input of a hook
    """Put a text in the place of a result. That of a built-in tool has a form of its own, so the run ends."""
    if not given["tool_name"].startswith(_MCP):
        return _stopped(text)
    blocks = [{"type": "text", "text": text}]
    return {"hookSpecificOutput": {"hookEventName": "PostToolUse", "updatedToolOutput": blocks}}


def _stopped(why: str) -> dict[str, Any]:
    return {"continue_": False, "stopReason": why}


def _content(response: Any) -> Any:  # noqa: ANN401 - whatever a tool returns
    return {"content": response} if isinstance(response, list) else response


_RESPONSES: Form[Any] = Form(content=_content)
_OTHERWISE = f"The result of this call is withheld: it is not the call that was asked about; {refusals.NO_RETRY}."
_BROKEN = f"The door failed at a call: {refusals.NO_RETRY}; tell the user."
