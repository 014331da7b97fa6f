"""Claude Agent SDK: hooks that ask before each tool call of an agent, built-in tools and subagents included.

A hook that raises lets the tool run there, so these never raise: whatever goes wrong is a deny.
"""

from __future__ import annotations

import logging
import re
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
# Of so many conversations it is remembered that they are over. Beyond, none goes on, because it could be one of them.
_MOST_OVER = 16384

Hook = Callable[[Any, Any, Any], Awaitable[Any]]


class PDPHooks:
    """Ask a door about each tool call: `ClaudeAgentOptions(…, hooks=PDPHooks(door).hooks)`.

    The names of tools are those of the framework, `mcp__server__tool` or `Bash`; no tool of a server whose name has
    `__` is found by such a name. An allow leaves the framework's own permissions in force. A door whose session is a
    function gets the input of the hook.
    What cannot be kept from the model there is a deny, or ends the conversation: the obligation `redact_result`, since
    the error of a tool cannot be replaced, and what must be withheld of an error, or of a built-in tool.
    """

    def __init__(self, door: Door) -> None:
        door.require_no_call_tokens("this adapter")
        self._door = door
        self._pending = Pending()
        # Why conversations are over: they hold what the model must not see, and it would see it at its next turn.
        self._over: dict[str, str] = {}
        self._none_goes_on = ""
        self._seconds = _HOOK_SECONDS + (door.wait or 0.0)

    @property
    def hooks(self) -> dict[str, list[HookMatcher]]:
        """Return the hooks. Add those of your own to the lists."""
        by_event: Mapping[str, Hook] = {
            "PreToolUse": self._ask,
            "PostToolUse": self._hand_on,
            "PostToolUseFailure": self._failed,
            "PostToolBatch": self._go_on,
            "UserPromptSubmit": self._go_on,
        }
        return {
            event: [HookMatcher(hooks=[self._never_raises(event, hook)], timeout=self._seconds, on_failure="block")]
            for event, hook in by_event.items()
        }

    async def _ask(self, given: Any, *_: Any) -> dict[str, Any]:  # noqa: ANN401 - the input of a hook
        call = FrameworkCall(
            name=_name(given), arguments=given["tool_input"], tool_call_id=given["tool_use_id"], run=given
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
            return self._withheld(given, _OTHERWISE)
        kept = await admission.handed_on_async(given["tool_response"])
        return self._withheld(given, kept.text) if isinstance(kept, Refusal) else {}

    async def _failed(self, given: Any, *_: Any) -> dict[str, Any]:  # noqa: ANN401 - the input of a hook
        admission = self._pending.take(_key(given))
        if admission is not None and (hidden := await admission.failed_async(given["error"])):
            self._end(given, hidden.text)
        return {}

    async def _go_on(self, given: Any, *_: Any) -> dict[str, Any]:  # noqa: ANN401 - the input of a hook
        """Say that the model may be asked for its next turn, unless the conversation is over."""
        why = self._over.get(given["session_id"]) or self._none_goes_on
        return _stopped(why) if why else {}

    def _withheld(self, given: Any, text: str) -> dict[str, Any]:  # noqa: ANN401 - the input of a hook
        """Put a text in the place of a result. One of a built-in tool has a form of its own, and ends all."""
        if not given["tool_name"].startswith(_MCP):
            return self._end(given, text)
        blocks = [{"type": "text", "text": text}]
        return {"hookSpecificOutput": {"hookEventName": "PostToolUse", "updatedToolOutput": blocks}}

    def _end(self, given: Any, why: str) -> dict[str, Any]:  # noqa: ANN401 - the input of a hook
        if len(self._over) < _MOST_OVER:
            self._over[given["session_id"]] = why
        elif given["session_id"] not in self._over:
            _LOG.error("no conversation goes on: too many are over")
            self._none_goes_on = _TOO_MANY
        return _stopped(why)

    def _never_raises(self, event: str, hook: Hook) -> Hook:
        """Return a hook that answers with a deny, or ends the conversation, where it would raise."""

        @wraps(hook)
        async def answer(given: Any, tool_use_id: Any, context: Any) -> dict[str, Any]:  # noqa: ANN401 - passed on
            try:
                return await hook(given, tool_use_id, context)
            except Exception as error:  # noqa: BLE001 - fails closed: the framework would run the tool
                _LOG.error("a hook for `%s` failed: %s", event, type(error).__name__)
                return _denied(Refusal(text=_BROKEN)) if event == "PreToolUse" else self._end(given, _BROKEN)

        return answer


def _key(given: Any) -> tuple[str, str]:  # noqa: ANN401 - the input of a hook
    return given["session_id"], given["tool_use_id"]


def _name(given: Any) -> str:  # noqa: ANN401 - the input of a hook
    """Return the name of a tool, which no entry has if it could be another server's.

    `mcp__a__b__c` is the tool `b__c` of the server `a`, or `c` of `a__b`: it counts as the first.
    """
    name = str(given["tool_name"])
    if not name.startswith(_MCP):
        return name
    meant, _, tool = name.removeprefix(_MCP).partition("__")
    server = given.get("mcp_server", {}).get("name")
    if server is None:
        return f"{name} of an unknown server" if "__" in f"_{tool}" else name
    # As the framework does for its own names.
    return name if re.sub("[^a-zA-Z0-9_-]", "_", server) == meant else f"{name} of {server}"


def _denied(refusal: Refusal) -> dict[str, Any]:
    said: dict[str, Any] = {
        "hookSpecificOutput": {
            "hookEventName": "PreToolUse",
            "permissionDecision": "deny",
            "permissionDecisionReason": refusal.text,
        }
    }
    return {**said, **_stopped(str(DenyLoopError(refusal)))} if refusal.ends_run else said


def _stopped(why: str) -> dict[str, Any]:
    return {"continue_": False, "stopReason": why}


def _content(response: Any) -> Any:  # noqa: ANN401 - whatever a tool returns
    return {"content": response} if isinstance(response, list) else response


_RESPONSES: Form[Any] = Form(content=_content)
_OTHERWISE = f"The result of this call is withheld: it is not the call that was asked about; {refusals.NO_RETRY}."
_TOO_MANY = "Too many conversations hold what a model must not see: start the program anew."
_BROKEN = f"The door failed at a call: {refusals.NO_RETRY}; tell the user."
