"""The door of Envoy: one question of Envoy, one answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

from pdp.calltokens.claims import AUDIENCE, THUMBPRINT
from pdp.doors.envoy.extauthz_pb2 import CheckRequest, CheckResponse
from pdp.doors.envoy.httprequests import HTTPRequests
from pdp.doors.envoy.mcprequests import MCPRequests
from pdp.doors.envoy.replies import Refuse, Reply
from pdp.doors.envoy.requests import CALL_TOKEN, CERTIFICATE, Request
from pdp.doors.grpcport import Method, serving
from pdp.observer import Refusal
from pdp.serving.web import FORBIDDEN, RefusedRequestError

_LOG = logging.getLogger(__name__)

# Of the `context_extensions` of a route, which has one of the two; it may say besides which call tokens it wants.
SERVER, TABLE = "server", "table"
_OF_TOKENS: Final = frozenset({CALL_TOKEN, CERTIFICATE})
_INTERNAL: Final = 500
_SERVICE: Final = "envoy.service.auth.v3.Authorization"
MOST_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyDoor:
    """Answers Envoy's questions about HTTP requests. What a route is for is said by its `context_extensions`."""

    mcp: MCPRequests
    http: HTTPRequests

    def serving(self, address: str, credentials: Any = None) -> AbstractAsyncContextManager[str]:  # noqa: ANN401 - gRPC has no types
        """Answer at an address while the block runs, as `pdp.doors.grpcport.serving` does."""
        methods = {"Check": Method(question=CheckRequest, answer=self.check)}
        return serving(_SERVICE, methods, address, most_bytes=MOST_BYTES, credentials=credentials)

    async def check(
        self, question: CheckRequest, metadata: Mapping[str, str], patience: float | None = None
    ) -> CheckResponse:
        """Return what Envoy is to do with a request, which waits for `patience` seconds. Never raises."""
        try:
            request = Request.read(question, metadata, patience)
            reply = await self._reply(request)
            return reply.sent(request.headers)
        except RefusedRequestError as refused:
            self._refused(refused.why)
            return Refuse(status=refused.status).sent()
        except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, nothing is sent on
            # Without its text, which can hold arguments.
            _LOG.error("a request could not be handled: %s", type(error).__name__)
            self._refused(Refusal.OTHER)
            return Refuse(status=_INTERNAL).sent()

    async def _reply(self, request: Request) -> Reply:
        named = request.route.keys() - _OF_TOKENS
        if _tokens_are_right(request.route):
            if named == {SERVER} and request.route[SERVER]:
                return await self.mcp.reply(request, request.route[SERVER])
            if named == {TABLE} and request.route[TABLE] in self.http.tables:
                return await self.http.reply(request, request.route[TABLE])
        _LOG.error("a request is denied: its route names no server, no table that there is, or a wrong call token")
        self._refused(Refusal.PLACE)
        return Refuse(status=FORBIDDEN)

    def _refused(self, why: Refusal) -> None:
        self.mcp.asking.refused(why)


def _tokens_are_right(route: Mapping[str, str]) -> bool:
    """Say whether a route says nothing of call tokens, or names an audience, and a certificate only with one."""
    audience, certificate = route.get(CALL_TOKEN), route.get(CERTIFICATE)
    if audience is None:
        return certificate is None
    return bool(AUDIENCE.fullmatch(audience) and (certificate is None or THUMBPRINT.fullmatch(certificate)))
