"""What a client gets of the result of a request that was asked about: reported, redacted, or withheld."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from typing import Any

from pdp.calltokens.strictjson import mistakable
from pdp.client import Answer, ToolResultWithheld
from pdp.client.aio.admitted import AsyncAdmittedCall
from pdp.client.results import is_message
from pdp.doors import refusals
from pdp.doors.mcp import answers
from pdp.doors.mcp.apart import apart
from pdp.doors.mcp.messages import Message
from pdp.doors.mcp.methods import CALL, SERVER_ASKS
from pdp.doors.observing import TOOL_ERROR, UNOBSERVED, CallUnderWay
from pdp.foundation.obligations import REDACT_RESULT
from pdp.observer import CallOutcome

_LOG = logging.getLogger(__name__)

_COMPLETE, _INPUT_REQUIRED = "complete", "input_required"
_ASKING = ("resultType", "inputRequests")


async def handed_on(
    request: Message,
    call: AsyncAdmittedCall,
    said: Message,
    unfit: Callable[[Message], str],
    under_way: CallUnderWay = UNOBSERVED,
) -> str:
    """Report what came of an allowed request, and return what the client gets of it.

    `unfit` names what keeps a message of the server from the client; empty for nothing. `under_way` is told what became
    of the call.
    """
    try:
        text = await _handed_on(request, call, said, unfit)
    except ToolResultWithheld as withheld:
        # Without what went wrong elsewhere, which the exception tells too.
        why = withheld.why
    except Exception as error:  # noqa: BLE001 - fails closed: a result that may not have been reported is not shown
        _LOG.error("a result is withheld, because handling it failed: %s", type(error).__name__)
        why = "handling it failed"
    else:
        under_way.over(CallOutcome.ALLOW, error_of(said))
        return text
    under_way.over(CallOutcome.WITHHELD)
    return answers.refusal(request, refusals.withheld(call.answer, why), answers.decision_of(call.answer))


def problem_of(said: Message, passes: Collection[str]) -> str:
    """Name what keeps a message of the server from the client; empty for nothing.

    A server of the era without a handshake can ask the client for something in an answer: `passes` says for what.
    """
    result = said.value.get("result")
    if not isinstance(result, dict):
        return ""
    if mistakable(result, _ASKING):
        return "the result has a member that some readers take for another"
    kind = result.get("resultType", _COMPLETE)
    if kind == _INPUT_REQUIRED:
        wanted = result.get("inputRequests") or {}
        asks = wanted.values() if isinstance(wanted, dict) else [None]
        methods = [
            one.get("method") if isinstance(one, dict) and not mistakable(one, ("method",)) else None for one in asks
        ]
        if not all(isinstance(one, str) and one in SERVER_ASKS.intersection(passes) for one in methods):
            return "the server asks for something that it may not ask the client for"
    elif kind != _COMPLETE:
        return "the result is of a kind that this proxy does not know"
    return ""


def redacts(answer: Answer) -> bool:
    """Say whether parts of the result of an allowed call must be redacted."""
    return any(one.id == REDACT_RESULT for one in answer.obligations)


async def _handed_on(request: Message, call: AsyncAdmittedCall, said: Message, unfit: Callable[[Message], str]) -> str:
    failed = "error" in said.value
    # An error of the protocol is reported as a result that says that the call failed, and it can be too large too.
    result = _failure(said.part("error") or "") if failed else await apart(lambda _: _result(said), said.text)
    call.result = result
    await call.reported()
    kept = await apart(lambda _: call.kept(), said.text)
    if problem := unfit(said):
        raise ToolResultWithheld(call.answer, problem)
    if failed and redacts(call.answer):
        raise ToolResultWithheld(call.answer, "the call failed, and its error may hold redacted values")
    if redacts(call.answer) and not _has_fields(request, result):
        raise ToolResultWithheld(call.answer, "it is not of a form in which fields can be redacted")
    if failed or kept == result:
        return said.text
    if isinstance(result, dict) and "resultType" in result:
        kept["resultType"] = result["resultType"]
    return await apart(lambda _: _with_result(said, kept), said.text)


def _with_result(said: Message, result: object) -> str:
    written = json.dumps(result, separators=(",", ":"), ensure_ascii=False)
    return said.with_members((), {"result": written}).text


def error_of(said: Message) -> str:
    """Return the word for what went wrong at a tool by its answer; empty for nothing."""
    result = said.value.get("result")
    failed = "error" in said.value or (isinstance(result, dict) and result.get("isError") is True)
    return TOOL_ERROR if failed else ""


def _has_fields(request: Message, result: object) -> bool:
    """Say whether a result is of a form in which the fields of a rule are looked for.

    As any other JSON value, one with a further member or with a question would pass if no field has the name that is
    redacted: a text that is no JSON has none.
    """
    if request.method == CALL:
        return is_message(result)
    return not isinstance(result, dict) or result.get("resultType", _COMPLETE) == _COMPLETE


def _result(said: Message) -> Any:  # noqa: ANN401 - any JSON value
    return json.loads(said.part("result") or "null")


def _failure(error: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": error}], "isError": True}
