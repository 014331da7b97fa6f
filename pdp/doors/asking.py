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
    FrozenError,
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
from pdp.doors.calltokens import token_of, token_of_admitted
from pdp.doors.observing import CallUnderWay, NotMadeError, refuse
from pdp.doors.traces import Carrier, placed
from pdp.observer import CallOutcome, DoorObserver, Refusal
from pdp.serving.web import HANDLE

_LOG = logging.getLogger(__name__)

# Without a comma: gateways join two headers of one name with it.
_HANDLE = re.compile(r"[A-Za-z0-9_-]{1,512}")


class NoSessionHereError(NotMadeError):
    """A request belongs to no session that lives. The message is for the agent. `away` says that the PDP is."""

    def __init__(self, text: str, *, away: bool = False) -> None:
        super().__init__(text)
        self.away = away
        self.outcome = CallOutcome.UNDECIDED if away else CallOutcome.DENY


class UnreportedError(NotMadeError):
    """The server has allowed a call about whose result it must be told, which this door never sees."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(refusals.unreported(answer))
        self.answer = answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Asks one server. `observer` is told of calls, and of messages that are refused."""

    client: AsyncClient
    observer: DoorObserver | None = None

    def session(self, handle: str) -> AsyncClientSession:
        """Return the session of a handle. Raise `NoSessionHereError` for what is no handle."""
        if not _HANDLE.fullmatch(handle):
            raise NoSessionHereError(refusals.without_session("gateway", HANDLE))
        return self.client.attach(handle)

    def begun(
        self, operation: str, *carriers: Carrier, server: str, tool: str = "", request_id: str = ""
    ) -> CallUnderWay:
        """Return a call that has arrived, and that one of the carriers places in a trace."""
        return CallUnderWay(
            self.observer,
            operation,
            placed=placed(*carriers),
            server=server,
            tool=tool,
            request_id=request_id,
            transport="tcp",
        )

    def refused(self, why: Refusal) -> None:
        """Tell the observer that a message is refused."""
        refuse(self.observer, why)

    async def allowed(self, handle: str, call: ToolCall, under_way: CallUnderWay) -> Answer:
        """Return the answer that allows a call whose result this door will not see.

        Raise `ToolCallDenied`, `UnreportedError`, `NoCallTokenError` and `NoSessionHereError` when the call must not be
        made. Obligations are about results or about people, and so unknown here.
        """
        session = self.session(handle)
        with under_way.asking():
            answer = await session.ask(call, known_obligations=(), **under_way.joined)
        under_way.decided(answer)
        _note(answer)
        duties_of(answer, knows=())
        if answer.outcome_token:
            # The server has allowed a call that will not be made.
            with suppress(PDPClientError):
                await session.report_outcome(answer, succeeded=False)
            raise UnreportedError(answer)
        token_of(answer, call)
        return answer

    async def admitted(self, handle: str, call: ToolCall, under_way: CallUnderWay) -> AsyncAdmittedCall:
        """Return an allowed call whose result this door will see, and then report and hand on.

        Raise `ToolCallDenied`, `NoCallTokenError` and `NoSessionHereError` when the call must not be made. Notices are
        shown to nobody.
        """
        session = self.session(handle)
        try:
            with under_way.asking():
                admitted = await session.admit(call, **under_way.joined)
        except ToolCallDenied as denied:
            _note(denied.answer)
            raise
        under_way.decided(admitted.answer)
        await token_of_admitted(admitted, call)
        return admitted

    async def require_session(self, handle: str) -> None:
        """Raise `NoSessionHereError` unless a session lives, for a message that passes without a decision."""
        try:
            await self.tools(handle)
        except NoSessionHereError as missing:
            self.refused(Refusal.UNDECIDED if missing.away else Refusal.SESSION)
            raise

    async def tools(self, handle: str) -> tuple[ListedTool, ...]:
        """Return every tool as a session sees it. Raise `NoSessionHereError` unless it lives and is not frozen."""
        try:
            return await self.session(handle).list_tools()
        except (WrongStateError, NotFoundError):
            raise NoSessionHereError(refusals.SESSION_OVER) from None
        except FrozenError:
            raise NoSessionHereError(refusals.FROZEN) from None
        except PDPClientError as error:
            _LOG.warning("a session cannot be looked at: %s", error)
            raise NoSessionHereError(refusals.AWAY, away=True) from None


def _note(answer: Answer) -> None:
    if answer.undecided:
        _LOG.warning("there is no decision about a call: %s", answer.error)
