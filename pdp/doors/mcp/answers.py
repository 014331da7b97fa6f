"""What the proxy itself says to a client of MCP: denies that a model can act on, errors, and notifications.

A call of a tool that may not run is answered with a result, since clients show a model the text of a result and hide
that of an error. The text names no policy and nothing that the tool server or an error has said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pdp.client import Answer
from pdp.doors.mcp.messages import Message, MessageId
from pdp.doors.mcp.methods import CALL, CANCELLED, PROGRESS, SUBSCRIPTION_ID, TOOLS_CHANGED

# JSON-RPC's own codes, and one of ours outside of the ranges that JSON-RPC and MCP keep.
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
# A header and the message disagree: MCP's own.
HEADER_MISMATCH = -32020
DENIED = -31001

# Where a result says which decision it is about.
DECISION = "agent-pdp/decision"


def refusal(request: Message, text: str, decision: Mapping[str, str] | None = None) -> str:
    """Return the answer to a request that may not be carried out: a result for a call of a tool, else an error."""
    if request.method != CALL:
        return error(request.id, DENIED, text, decision)
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": True}
    if request.meta.keys():
        # Results of the era without a handshake say that they are complete; earlier clients ignore it.
        result["resultType"] = "complete"
    if decision:
        result["_meta"] = {DECISION: dict(decision)}
    return result_of(request.id, result)


def result_of(message_id: MessageId | None, value: Mapping[str, Any]) -> str:
    """Return the answer to a request that has a result."""
    return _written({"jsonrpc": "2.0", "id": message_id, "result": dict(value)})


def error(message_id: MessageId | None, code: int, text: str, decision: Mapping[str, str] | None = None) -> str:
    """Return an error of JSON-RPC."""
    said: dict[str, Any] = {"code": code, "message": text}
    if decision:
        said["data"] = {DECISION: dict(decision)}
    return _written({"jsonrpc": "2.0", "id": message_id, "error": said})


def tools_changed(subscription: MessageId | None = None) -> str:
    """Return the notification that the list of tools is another now, for a subscription if there are such."""
    said: dict[str, Any] = {"jsonrpc": "2.0", "method": TOOLS_CHANGED}
    if subscription is not None:
        said["params"] = {"_meta": {SUBSCRIPTION_ID: subscription}}
    return _written(said)


def progress_alone(told: Message) -> str:
    """Return a server's notification of progress with its numbers, and without its text."""
    kept = {"progressToken": told.part("params", "progressToken")}
    for name in ("progress", "total"):
        value = told.params.get(name)
        kept[name] = told.part("params", name) if isinstance(value, int | float | Decimal) else None
    params = ",".join(f"{json.dumps(name)}:{text}" for name, text in kept.items() if text is not None)
    return f'{{"jsonrpc":"2.0","method":"{PROGRESS}","params":{{{params}}}}}'


def request(message_id: str, method: str, params: Mapping[str, Any]) -> str:
    """Return a request of the proxy's own to the server."""
    return _written({"jsonrpc": "2.0", "id": message_id, "method": method, "params": dict(params)})


def cancelled(request_id: MessageId | None, why: str) -> str:
    """Return the notification that the answer to a request is no longer wanted."""
    return _written({"jsonrpc": "2.0", "method": CANCELLED, "params": {"requestId": request_id, "reason": why}})


def decision_of(answer: Answer) -> dict[str, str]:
    """Return what identifies the decision about a call, for programs."""
    named = {"decision_id": answer.decision_id, "basis": answer.basis, "session_id": answer.session_id}
    return {name: value for name, value in named.items() if value}


def _written(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
