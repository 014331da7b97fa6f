"""Ask the PDP about a request of a gateway, in the session of the handle that the request brings."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from dataclasses import dataclass

from pdp.client import (
    Answer,
    AsyncClient,
    AsyncClientSession,
    ListedTool,
    NotFoundError,
    PDPClientError,
    ToolCall,
    ToolCallDenied,
    WrongStateError,
)
from pdp.client.aio.admitted import AsyncAdmittedCall
from pdp.client.fulfilling import duties_of
from pdp.doors import refusals
from pdp.doors.web import HANDLE

_LOG = logging.getLogger(__name__)

# Without a comma: gateways join two headers of one name with it.
_HANDLE = re.compile(r"[A-Za-z0-9_-]{1,512}")


class NoSessionHereError(Exception):
    """A request belongs to no session that lives. The message is for the agent."""


class UnreportedError(Exception):
    """The server has allowed a call about whose result it must be told, which this door never sees."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(refusals.unreported(answer))
        self.answer = answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Asks one server."""

    client: AsyncClient

    def session(self, handle: str) -> AsyncClientSession:
        """Return the session of a handle. Raise `NoSessionHereError` for what is no handle."""
        if not _HANDLE.fullmatch(handle):
            raise NoSessionHereError(refusals.without_session("gateway", HANDLE))
        return self.client.attach(handle)

    async def allowed(self, handle: str, call: ToolCall, *, traceparent: str, tracestate: str) -> Answer:
        """Return the answer that allows a call whose result this door will not see.

        Raise `ToolCallDenied`, `UnreportedError` and `NoSessionHereError` when the call must not be made. Obligations
        are about results or about people, and so unknown here.
        """
        session = self.session(handle)
        answer = await session.ask(call, known_obligations=(), traceparent=traceparent, tracestate=tracestate)
        _note(answer)
        duties_of(answer, knows=())
        if answer.outcome_token:
            # The server has allowed a call that will not be made.
            with suppress(PDPClientError):
                await session.report_outcome(answer, succeeded=False)
            raise UnreportedError(answer)
        return answer

    async def admitted(self, handle: str, call: ToolCall, *, traceparent: str, tracestate: str) -> AsyncAdmittedCall:
        """Return an allowed call whose result this door will see, and then report and hand on.

        Raise `ToolCallDenied` and `NoSessionHereError` when the call must not be made. Notices are shown to nobody.
        """
        try:
            return await self.session(handle).admit(call, traceparent=traceparent, tracestate=tracestate)
        except ToolCallDenied as denied:
            _note(denied.answer)
            raise

    async def require_session(self, handle: str) -> None:
        """Raise `NoSessionHereError` unless a session lives, for what passes without a decision."""
        await self.tools(handle)

    async def tools(self, handle: str) -> tuple[ListedTool, ...]:
        """Return every tool as a session sees it. Raise `NoSessionHereError` unless it lives."""
        try:
            return await self.session(handle).list_tools()
        except (WrongStateError, NotFoundError):
            raise NoSessionHereError(refusals.SESSION_OVER) from None
        except PDPClientError as error:
            _LOG.warning("a session cannot be looked at: %s", error)
            raise NoSessionHereError(refusals.AWAY) from None


def _note(answer: Answer) -> None:
    if answer.undecided:
        _LOG.warning("there is no decision about a call: %s", answer.error)
