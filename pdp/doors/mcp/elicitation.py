"""Point the person at a client of MCP to the page where a call is approved, by an elicitation in URL mode.

Only the PDP knows whether the person has approved: that the client says "accept" means nothing. The state that comes
back with the client's next try says which request the client was pointed to, and gives no authority, so nothing proves
that it is ours.
"""

from __future__ import annotations

from pdp.client import Answer
from pdp.doors.mcp.messages import Message
from pdp.doors.mcp.methods import CAPABILITIES, INPUT_RESPONSES, REQUEST_STATE

# What begins the state of a request that the client was pointed to.
_STATE = "agent-pdp/approval/"
# Requests that can be answered with a request to the client.
_METHODS = frozenset({"prompts/get", "resources/read", "tools/call"})


def can_be_pointed(request: Message) -> bool:
    """Say whether the client can open a link for its person instead of the answer to this request."""
    stated = request.meta.get(CAPABILITIES)
    elicitation = stated.get("elicitation") if isinstance(stated, dict) else None
    return request.method in _METHODS and isinstance(elicitation, dict) and isinstance(elicitation.get("url"), dict)


def pointed_to(request: Message) -> str:
    """Return the id of the access request to which the client was pointed before this try; empty for none."""
    state = request.params.get(REQUEST_STATE)
    return state.removeprefix(_STATE) if isinstance(state, str) and state.startswith(_STATE) else ""


def points(request: Message, answer: Answer) -> bool:
    """Say whether the client gets the link of a call that waits, to which it was not pointed before."""
    fresh = answer.access_request_id != pointed_to(request)
    return answer.waits and bool(answer.access_link) and fresh and can_be_pointed(request)


def sent_on(request: Message) -> Message:
    """Return the request without what belongs to a pointing, which the server does not know."""
    if not pointed_to(request):
        return request
    return request.without(("params",), {INPUT_RESPONSES, REQUEST_STATE}.__contains__)


def pointing(answer: Answer) -> dict[str, object]:
    """Return the result that has the client open the link of a call that waits for a person."""
    what = f"A person must approve this call of `{answer.server}/{answer.tool}` first."
    asked = {"method": "elicitation/create", "params": {"mode": "url", "message": what, "url": answer.access_link}}
    return {
        "resultType": "input_required",
        "inputRequests": {"approval": asked},
        "requestState": f"{_STATE}{answer.access_request_id}",
    }
