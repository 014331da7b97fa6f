"""Where a call token is in a message of MCP to a server over pipes: in `_meta`, by the name that it has as a header."""

from __future__ import annotations

import json

from pdp.calltokens.claims import HEADER
from pdp.doors.mcp.messages import Message


def with_call_token(request: Message, token: str) -> Message:
    """Return a request with a call token, which replaces what the client says there; without one as it is."""
    if not token:
        return request
    said = {HEADER: json.dumps(token)}
    if isinstance(request.params.get("_meta"), dict):
        return request.with_members(("params", "_meta"), said)
    return request.with_members(("params",), {"_meta": json.dumps({HEADER: token})})
