"""What becomes of a request to an MCP server: read as the MCP proxy reads it, and answered before it is sent on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from pdp.client import ToolCall, ToolCallDenied
from pdp.doors import refusals
from pdp.doors.asking import Asking, NoSessionHereError, UnreportedError
from pdp.doors.calltokens import NoCallTokenError, token_of
from pdp.doors.envoy.replies import Pass, Refuse, Reply
from pdp.doors.envoy.requests import Request
from pdp.doors.mcp import answers, methods
from pdp.doors.mcp import headers as http
from pdp.doors.mcp.messages import InvalidMessageError, Message
from pdp.doors.mcp.questions import RefusedError, question
from pdp.doors.observing import CallUnderWay
from pdp.observer import CallOutcome, Refusal
from pdp.serving.web import BAD_REQUEST, FORBIDDEN, NOT_ALLOWED, NOT_FOUND, RefusedRequestError, require_plain_json

_LOG = logging.getLogger(__name__)

_OK, _ACCEPTED, _UNAVAILABLE = 200, 202, 503
# Headers that repeat arguments for what is in front of a server.
_MIRRORED: Final = "mcp-param-"


@dataclass(frozen=True, slots=True, kw_only=True)
class MCPRequests:
    """Decides about requests of MCP. `passes` is that of the MCP proxy's `Gate`."""

    asking: Asking
    passes: frozenset[str] = frozenset()

    async def reply(self, request: Request, server: str) -> Reply:
        """Say what becomes of a request to the MCP server that the catalogue knows as `server`."""
        try:
            if "?" in request.target:
                raise RefusedRequestError(BAD_REQUEST, "the URL has a query, of which the decision would know nothing")
            if request.method == "POST":
                return await self._post(request, server)
            if request.method in ("GET", "DELETE"):
                return await self._bare(request)
            raise RefusedRequestError(NOT_ALLOWED)
        except RefusedRequestError as refused:
            self.asking.refused(refused.why)
            return _refused(refused.status, str(refused))

    async def _post(self, request: Request, server: str) -> Reply:
        require_plain_json(request.headers)
        try:
            message = Message.read(request.body)
        except InvalidMessageError as error:
            self.asking.refused(Refusal.MALFORMED)
            return Refuse(status=BAD_REQUEST, body=answers.error(None, answers.PARSE_ERROR, str(error)))
        if problem := (
            _unclear(request) or http.disagreement(message, request.headers) or _not_mirrored(message, request.headers)
        ):
            self.asking.refused(Refusal.MISMATCH)
            return Refuse(status=BAD_REQUEST, body=answers.error(message.id, answers.HEADER_MISMATCH, problem))
        if not message.method:
            return await self._answer(request, message)
        if message.id is None:
            return await self._notification(request, message)
        return await self._request(request, message, server)

    async def _request(self, request: Request, message: Message, server: str) -> Reply:
        if message.method == methods.CALL or message.method in methods.ASKED:
            return await self._call(request, message, server)
        if message.method not in methods.PASSED and message.method not in self.passes:
            self.asking.refused(Refusal.METHOD)
            told = answers.error(message.id, answers.METHOD_NOT_FOUND, f"`{message.method}` is not let pass")
            return Refuse(status=NOT_FOUND if message.modern else _OK, body=told)
        try:
            await self._require_session(request)
        except NoSessionHereError as missing:
            return Refuse(status=_UNAVAILABLE if missing.away else _OK, body=answers.refusal(message, str(missing)))
        return Pass()

    async def _call(self, request: Request, message: Message, server: str) -> Reply:
        around = (message.meta, request.metadata, request.headers)
        under_way = self.asking.begun(message.method, *around, server=server, request_id=str(message.id))
        try:
            # Around the timeout, which would be taken for a client that has gone.
            with under_way:
                async with asyncio.timeout(request.patience):
                    passed = await self._allowed(request, message, under_way)
                under_way.over(CallOutcome.ALLOW)
                return passed
        except RefusedError as refused:
            return Refuse(status=_OK, body=refused.answer)
        except NoSessionHereError as missing:
            return Refuse(status=_OK, body=answers.refusal(message, str(missing)))
        except (UnreportedError, NoCallTokenError) as unmade:
            decision = answers.decision_of(unmade.answer)
            return Refuse(status=_OK, body=answers.refusal(message, str(unmade), decision), decision=decision)
        except ToolCallDenied as denied:
            decision = answers.decision_of(denied.answer)
            told = refusals.denied(denied.answer)
            return Refuse(status=_OK, body=answers.refusal(message, told, decision), decision=decision)
        except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, the call does not run
            # Without its text, which can hold arguments.
            _LOG.error("a call is denied, because asking about it failed: %s", type(error).__name__)
            return Refuse(status=_OK, body=answers.refusal(message, refusals.UNDECIDED))

    async def _allowed(self, request: Request, message: Message, under_way: CallUnderWay) -> Pass:
        under_way.tool, arguments = question(message)
        wanted = request.call_token if message.method == methods.CALL else None
        call = ToolCall(
            server=under_way.server,
            tool=under_way.tool,
            arguments=arguments,
            request_id=request.number,
            call_tokens=(wanted,) if wanted else (),
        )
        answer = await self.asking.allowed(request.handle, call, under_way)
        return Pass(decision=answers.decision_of(answer), token=token_of(answer, call))

    async def _notification(self, request: Request, message: Message) -> Reply:
        if message.method not in methods.SAID:
            self.asking.refused(Refusal.METHOD)
            return Refuse(status=_ACCEPTED)
        return await self._in_session(request)

    async def _answer(self, request: Request, message: Message) -> Reply:
        """Let an answer of the client pass that can hold nothing, or where the operator lets the server ask."""
        if message.value.get("result") != {} and not self.passes & methods.SERVER_ASKS:
            raise RefusedRequestError(FORBIDDEN, "an answer to what the server may not ask")
        return await self._in_session(request)

    async def _bare(self, request: Request) -> Reply:
        """Let the stream of a session of MCP, and its end, pass."""
        if request.body:
            raise RefusedRequestError(BAD_REQUEST, f"a {request.method} has no body")
        if not http.is_session(request.headers.get(http.SESSION, "")):
            raise RefusedRequestError(NOT_ALLOWED)
        if request.headers.get(http.VERSION, "") >= http.MODERN:
            raise RefusedRequestError(NOT_ALLOWED)
        return await self._in_session(request)

    async def _in_session(self, request: Request) -> Reply:
        try:
            await self._require_session(request)
        except NoSessionHereError as missing:
            return _refused(_UNAVAILABLE if missing.away else FORBIDDEN, str(missing))
        return Pass()

    async def _require_session(self, request: Request) -> None:
        """Raise `NoSessionHereError` unless the session lives, and the PDP says so while Envoy waits."""
        try:
            async with asyncio.timeout(request.patience):
                await self.asking.require_session(request.handle)
        except TimeoutError:
            self.asking.refused(Refusal.UNDECIDED)
            raise NoSessionHereError(refusals.AWAY, away=True) from None


def _refused(status: int, text: str) -> Refuse:
    return Refuse(status=status, body=answers.error(None, answers.INVALID_REQUEST, text) if text else "")


def _unclear(request: Request) -> str:
    """Name a header by which a server could go, and which may be another one than Envoy shows; empty for none."""
    for name in request.unclear:
        if name == http.NAME or name.startswith(_MIRRORED):
            cure = "send it once, in base64" if request.exact else "use base64, or set `encode_raw_headers` in Envoy"
            return f"the header `{name}` is there twice, or has a character that can stand for another one: {cure}"
    return ""


def _not_mirrored(message: Message, headers: Mapping[str, str]) -> str:
    """Name a header that claims to repeat an argument, and repeats none; empty for none.

    Which argument it must be says the schema of the tool, which this door does not see: the server looks at that.
    """
    claimed = [http.decoded(value) for name, value in headers.items() if name.startswith(_MIRRORED)]
    if claimed and not set(_texts(message.params.get("arguments"))).issuperset(claimed):
        return f"a header `{_MIRRORED}…` repeats no argument of the message"
    return ""


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, bool):
        yield str(value).lower()
    elif isinstance(value, str | int | Decimal):
        yield str(value)
