"""The door of agentgateway: one question about a request or a result, one answer."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pdp.client import ToolCall, ToolCallDenied
from pdp.client.aio.admitted import AsyncAdmittedCall
from pdp.doors import refusals
from pdp.doors.agentgateway.exchanges import Exchange, Exchanges
from pdp.doors.agentgateway.extmcp_pb2 import Error, RequestAnswer, RequestQuestion, ResponseAnswer, ResponseQuestion
from pdp.doors.agentgateway.questions import EXCHANGE, Asked, Returned
from pdp.doors.agentgateway.replies import Pass, RefusedQuestionError, known_of
from pdp.doors.agentgateway.targets import Targets, UnknownTargetError
from pdp.doors.asking import Asking, NoSessionHereError, UnreportedError
from pdp.doors.calltokens import NoCallTokenError, token_of
from pdp.doors.grpcport import Method, serving
from pdp.doors.mcp import answers, methods
from pdp.doors.mcp.answers import decision_of
from pdp.doors.mcp.credentials import Credentials
from pdp.doors.mcp.messages import MOST_BYTES, InvalidMessageError, Message
from pdp.doors.mcp.questions import RefusedError, question
from pdp.doors.mcp.results import error_of, handed_on, problem_of
from pdp.doors.mcp.tools import page, shown
from pdp.doors.observing import UNOBSERVED, CallUnderWay
from pdp.observer import CallOutcome, Refusal

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

_SERVICE: Final = "agentgateway.dev.ext_mcp.ExtMcp"
# What is around a message of the largest size.
_AROUND: Final = 1024 * 1024
# The gateway waits for 10 seconds, unless it is told otherwise, and does not say so.
_PATIENCE: Final = 8.0
# Says in the record whose text the arguments were: the gateway writes them anew, for us and for the server.
_TEXT_OF_GATEWAY: Final = "agentgateway-"
_TOKENS: Final = Credentials(call_tokens=True)
_UNASKED: Final = "The result is withheld: nobody was asked about this request. Do not retry; tell the user."
_FAILED: Final = "This door could not handle it, so it goes no further. Try again later, or tell the user."


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentgatewayDoor:
    """Answers agentgateway's questions about requests of MCP and their results.

    `passes` are the methods that the operator lets pass besides. With `unseen_errors` the operator accepts that errors
    of calls whose results are redacted, bounded or reported reach the agent unseen.
    """

    asking: Asking
    targets: Targets
    exchanges: Exchanges
    passes: frozenset[str] = frozenset()
    unseen_errors: bool = False

    def serving(self, address: str, credentials: Any = None) -> AbstractAsyncContextManager[str]:  # noqa: ANN401 - gRPC has no types
        """Answer at an address while the block runs, as `pdp.doors.grpcport.serving` does."""
        asked = {
            "CheckRequest": Method(question=RequestQuestion, answer=self.check_request),
            "CheckResponse": Method(question=ResponseQuestion, answer=self.check_response),
        }
        return serving(_SERVICE, asked, address, most_bytes=MOST_BYTES + _AROUND, credentials=credentials)

    async def check_request(
        self, asked: RequestQuestion, metadata: Mapping[str, str], patience: float | None = None
    ) -> RequestAnswer:
        """Return what the gateway is to do with a request. Never raises."""
        try:
            return (await _refusing(self._request(asked, metadata, patience))).of_request()
        except RefusedQuestionError as refused:
            if refused.why is not None:
                self.asking.refused(refused.why)
            return RequestAnswer(error=refused.error)

    async def check_response(
        self, asked: ResponseQuestion, _: Mapping[str, str], patience: float | None = None
    ) -> ResponseAnswer:
        """Return what the gateway is to do with a result. Never raises."""
        try:
            return (await _refusing(self._result(asked, patience))).of_result()
        except RefusedQuestionError as refused:
            return ResponseAnswer(error=refused.error)

    # Requests.

    async def _request(self, wire: RequestQuestion, metadata: Mapping[str, str], patience: float | None) -> Pass:
        asked = Asked.read(wire)
        servers = self.targets.servers_of(asked.services)
        if asked.method == methods.CALL or asked.method in methods.ASKED:
            if len(servers) != 1 or asked.message is None:
                raise InvalidMessageError("a request that is asked about has one target, and parameters")
            around = (asked.message.meta, metadata, asked.shown)
            # Around the timeout, which would be taken for a client that has gone.
            with self.asking.begun(asked.method, *around, server=servers[0]) as under_way:
                async with _within(patience):
                    return await self._call(asked, asked.message, under_way)
        if asked.method not in methods.PASSED and asked.method not in self.passes:
            raise RefusedQuestionError(f"`{asked.method}` is not let pass", why=Refusal.METHOD)
        async with _within(patience):
            await self.asking.require_session(asked.handle)
        known = {}
        if asked.method == methods.LIST and asked.exchange:
            known[EXCHANGE] = self._kept(asked)
        return Pass(changed=asked.sent_on(), headers=asked.headers, known=known)

    async def _call(self, asked: Asked, message: Message, under_way: CallUnderWay) -> Pass:
        under_way.tool, arguments = question(message)
        wanted = self.targets.call_token(asked.services[0]) if asked.method == methods.CALL else None
        call = ToolCall(
            server=under_way.server,
            tool=under_way.tool,
            arguments=arguments,
            request_id=f"{_TEXT_OF_GATEWAY}{secrets.token_hex(16)}",
            call_tokens=(wanted,) if wanted else (),
        )
        admitted = None
        if self.unseen_errors and asked.exchange:
            admitted = await self.asking.admitted(asked.handle, call, under_way)
            answer = admitted.answer
        else:
            answer = await self.asking.allowed(asked.handle, call, under_way)
        known = known_of(decision_of(answer))
        if asked.exchange:
            known[EXCHANGE] = self._kept(asked, admitted, under_way)
            under_way.sent()
        else:
            under_way.over(CallOutcome.ALLOW)
        return Pass(changed=asked.sent_on(token_of(answer, call)), headers=asked.headers, known=known)

    def _kept(self, asked: Asked, call: AsyncAdmittedCall | None = None, under_way: CallUnderWay = UNOBSERVED) -> str:
        stated = {"_meta": {"stated": True}} if asked.message is not None and asked.message.meta else {}
        request = Message(text="", value={"params": stated}, method=asked.method, id=1)
        return self.exchanges.put(
            Exchange(
                method=asked.method,
                services=asked.services,
                handle=asked.handle,
                request=request,
                call=call,
                under_way=under_way,
            )
        )

    # Results.

    async def _result(self, wire: ResponseQuestion, patience: float | None) -> Pass:
        returned = Returned.read(wire)
        exchange = self.exchanges.take(returned.exchange)
        if exchange is not None:
            exchange.under_way.came_back()
        try:
            said = Message.answer(wire.mcp_response)
            if exchange is not None and (exchange.method, exchange.services) != (returned.method, returned.services):
                raise RefusedQuestionError("the result belongs to another request", code=Error.UNKNOWN)
            async with _within(patience):
                return await self._handed_on(returned, exchange, said)
        except BaseException:
            # Nothing is shown of it. What was reported already stays.
            if exchange is not None:
                exchange.under_way.over(CallOutcome.WITHHELD)
                if exchange.call is not None:
                    self.exchanges.report(exchange.call.failed())
            raise

    async def _handed_on(self, returned: Returned, exchange: Exchange | None, said: Message) -> Pass:
        if returned.method == methods.LIST:
            return Pass(changed=await self._listed(returned, exchange, said))
        if returned.method in methods.PASSED or returned.method in self.passes:
            if problem := self._problem(said):
                raise RefusedQuestionError(problem)
            return Pass()
        if exchange is None:
            raise RefusedQuestionError(_UNASKED)
        if exchange.call is not None:
            told = await handed_on(exchange.request, exchange.call, said, self._problem, exchange.under_way)
            return _shown(said, told)
        if problem := self._problem(said):
            exchange.under_way.over(CallOutcome.WITHHELD)
            return _shown(said, answers.refusal(exchange.request, f"The result is withheld: {problem}."))
        exchange.under_way.over(CallOutcome.ALLOW, error_of(said))
        return Pass()

    async def _listed(self, returned: Returned, exchange: Exchange | None, said: Message) -> bytes:
        page(said)
        tools = await self.asking.tools(returned.handle if exchange is None else exchange.handle)
        names = self.targets.listed(tools, returned.services)
        filtered = shown(said, names, modern="ttlMs" in said.value["result"])
        return (filtered.part("result") or "").encode("utf-8")

    def _problem(self, said: Message) -> str:
        if self.targets.audiences and _TOKENS.shown_by(said):
            return "what the server says holds a call token"
        return problem_of(said, self.passes)


def _shown(said: Message, told: str) -> Pass:
    """Return what the gateway hands on for a whole answer."""
    if told == said.text:
        return Pass()
    answer = Message.read(told.encode("utf-8"))
    result = answer.part("result")
    if result is None:
        error = answer.value["error"]
        raise RefusedQuestionError(error["message"], decision=error.get("data", {}).get(answers.DECISION))
    return Pass(changed=result.encode("utf-8"))


def _within(patience: float | None) -> asyncio.Timeout:
    return asyncio.timeout(_PATIENCE if patience is None else patience)


async def _refusing(work: Awaitable[T]) -> T:
    """Return what work comes to. Raise `RefusedQuestionError` for everything else, or when it takes too long."""
    try:
        return await work
    except RefusedQuestionError:
        raise
    except InvalidMessageError as error:
        told = f"The message cannot be read: {error}."
        raise RefusedQuestionError(told, code=Error.INVALID, why=Refusal.MALFORMED) from None
    except RefusedError as refused:
        raise RefusedQuestionError(json.loads(refused.answer)["error"]["message"], code=Error.INVALID) from None
    except UnknownTargetError as unknown:
        _LOG.error("a request is denied: %s", unknown)
        raise RefusedQuestionError(f"Denied: {unknown}. Do not retry; tell the user.", why=Refusal.PLACE) from None
    except NoSessionHereError as missing:
        code = Error.UNKNOWN if missing.away else Error.PERMISSION_DENIED
        raise RefusedQuestionError(str(missing), code=code) from None
    except (UnreportedError, NoCallTokenError) as unmade:
        raise RefusedQuestionError(str(unmade), decision=decision_of(unmade.answer)) from None
    except ToolCallDenied as denied:
        answer = denied.answer
        code = Error.UNKNOWN if answer.undecided else Error.PERMISSION_DENIED
        text = refusals.denied(answer, call=answer.tool)
        raise RefusedQuestionError(text, code=code, decision=decision_of(answer)) from None
    except TimeoutError:
        _LOG.warning("there is no answer within the time that the gateway waits")
        raise RefusedQuestionError(refusals.AWAY, code=Error.UNKNOWN) from None
    except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, nothing is sent or handed on
        # Without its text, which can hold arguments.
        _LOG.error("a question could not be answered: %s", type(error).__name__)
        raise RefusedQuestionError(_FAILED, code=Error.UNKNOWN) from None
