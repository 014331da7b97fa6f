"""Call tokens for a tool server that the Python SDK of MCP serves over pipes: append `CallTokens` to its `middleware`.

    server = MCPServer("notes")
    server.middleware.append(CallTokens(verifier, server="notes"))

Over HTTP, `pdp.calltokens.asgi` stands in front of the application instead. Nothing here imports the SDK.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from pdp.calltokens.claims import HEADER, Presenter
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.requests import Requested
from pdp.calltokens.verifying import Verifier


class RequestContext(Protocol):
    """What the SDK tells of a message: `params` as it was parsed, and `request` of the transport, None over pipes."""

    method: str
    params: Mapping[str, Any] | None
    request: Any


class CallTokens:
    """Lets a call of a tool of `server` pass only with its call token, which is in `_meta`."""

    def __init__(self, verifier: Verifier, *, server: str) -> None:
        self._verifier = verifier
        self._server = server

    async def __call__(self, ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:  # noqa: ANN401 - of the SDK
        """Answer one message."""
        if ctx.method == "tools/call":
            try:
                # It can ask for keys, or whether the token still counts.
                await asyncio.to_thread(self._verify, ctx)
            except CallTokenRefusedError as refused:
                said = {"type": "text", "text": f"call token refused: {refused.reason}: {refused}"}
                # The type is for the era without a handshake; the other one passes over it.
                return {"resultType": "complete", "content": [said], "isError": True}
        return await call_next(ctx)

    def _verify(self, context: RequestContext) -> None:
        call = Requested.of_mcp(context.params)
        if not call.token:
            raise CallTokenRefusedError(Reason.MALFORMED, f"no call token in `_meta.{HEADER}`")
        # Who wrote to a pipe is a process on this machine. Of another transport that is not known.
        presenter = Presenter() if context.request is None else None
        self._verifier.verify(
            call.token, server=self._server, tool=call.tool, arguments=call.arguments, presenter=presenter
        )
