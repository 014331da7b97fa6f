"""Ask the server about the questions of a request, and tell it what came of the calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from pdp.client import (
    AlreadyReportedError,
    Answer,
    AsyncClient,
    InvalidRequestError,
    NotFoundError,
    PDPClientError,
    PermissionDeniedError,
    ToolCall,
    UnauthenticatedError,
    WrongStateError,
)
from pdp.doors.authzen.handles import Handles
from pdp.doors.authzen.mapping import Mapped, UnknownTargetError
from pdp.doors.authzen.questions import (
    InvalidQuestionError,
    Question,
    read_question,
    read_questions,
    read_report,
)
from pdp.doors.authzen.verdicts import (
    UNAUTHORIZED,
    UNKNOWN_CALLER,
    NoDecisionError,
    Verdict,
    denied,
    faulty,
    verdict,
)
from pdp.doors.observing import CallUnderWay, refuse
from pdp.doors.traces import placed
from pdp.model import Basis, Outcome
from pdp.observer import DoorObserver, Refusal
from pdp.serving.web import BAD_REQUEST, FORBIDDEN
from pdp.telemetry.doornames import EXECUTE_TOOL

_LOG = logging.getLogger(__name__)

_CONFLICT = 409
# What the server says of a report, as the caller is told.
_UNREPORTED: Final[Mapping[type[PDPClientError], tuple[int, str]]] = {
    UnauthenticatedError: (UNAUTHORIZED, UNKNOWN_CALLER),
    PermissionDeniedError: (FORBIDDEN, "this caller may not report on this call"),
    AlreadyReportedError: (_CONFLICT, "the call was reported otherwise"),
    WrongStateError: (_CONFLICT, "the session of the call is over, or the call is too long ago"),
    InvalidRequestError: (BAD_REQUEST, "the report names no call of this caller, or a label that cannot be added"),
    NotFoundError: (BAD_REQUEST, "the report names no call of this caller"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The body of a request, the sessions that it brings, and its headers.

    `until` is the time of the event loop until which there must be decisions. `accepted` is called when the server has
    made one, and so knows the caller.
    """

    body: Mapping[str, Any] = field(repr=False)
    handles: Handles
    headers: Mapping[str, str] = field(repr=False)
    until: float
    accepted: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluations:
    """Asks one server. `endpoint` is where callers ask for access, and `observer` is told of calls."""

    client: AsyncClient
    mapped: Mapped
    endpoint: str
    observer: DoorObserver | None = None

    async def one(self, asked: Asked) -> Mapping[str, Any]:
        """Answer one question. Raise `InvalidQuestionError` and `NoDecisionError`."""
        return (await self._decided(read_question(asked.body), asked)).sent

    async def several(self, asked: Asked) -> Mapping[str, Any]:
        """Answer questions in order, until one of them ends the rest. Raise as `one`."""
        questions = read_questions(asked.body)
        if isinstance(questions, Question):
            return (await self._decided(questions, asked)).sent
        sent: list[Mapping[str, Any]] = []
        for question in questions.each:
            # One after the other: what one call changes, such as a budget, counts for the next, and a question that is
            # not reached changes nothing.
            found = await self._decided_among(question, asked)
            sent.append(found.sent)
            if found.decision is questions.last:
                break
        return {"evaluations": sent}

    async def report(self, asked: Asked) -> None:
        """Report what came of an allowed call. Raise `InvalidQuestionError` and `NoDecisionError`."""
        token, succeeded, labels = read_report(asked.body)
        # Nothing of it is sent but the token, which the server knows: it says nothing about a call.
        reported = Answer(outcome=Outcome.DENY, basis="", server="", tool="", request_id="", outcome_token=token)
        try:
            await self.client.report_outcome(reported, succeeded=succeeded, labels=labels)
        except PDPClientError as error:
            if type(error) in _UNREPORTED:
                raise NoDecisionError(*_UNREPORTED[type(error)]) from None
            _LOG.warning("what came of a call cannot be reported: %s", error)
            raise NoDecisionError(text="the report could not be made: do not use the result") from None

    async def _decided_among(self, question: Question | InvalidQuestionError, asked: Asked) -> Verdict:
        """Answer one of several questions: only what is wrong with this one is a deny of this one."""
        try:
            if isinstance(question, InvalidQuestionError):
                raise question
            return await self._decided(question, asked)
        except InvalidQuestionError as error:
            refuse(self.observer, Refusal.MALFORMED)
            return faulty(BAD_REQUEST, str(error))
        except NoDecisionError as error:
            if error.status != BAD_REQUEST:
                raise
            return faulty(BAD_REQUEST, str(error))

    async def _decided(self, question: Question, asked: Asked) -> Verdict:
        handle = asked.handles.of(question.subject)
        try:
            call = self.mapped.call(question, handle)
        except UnknownTargetError:
            call = None
        under_way = CallUnderWay(
            self.observer,
            EXECUTE_TOOL,
            placed=placed(asked.headers),
            server="" if call is None else call.server,
            tool="" if call is None else call.tool,
            tool_call_id=question.tool_call_id,
            transport="tcp",
        )
        with under_way:
            async with asyncio.timeout_at(asked.until):
                found = await self._verdict(question, call, under_way, asked.accepted)
            under_way.over(found.outcome)
        return found

    async def _verdict(
        self, question: Question, call: ToolCall | None, under_way: CallUnderWay, accepted: Callable[[], None]
    ) -> Verdict:
        if call is None:
            return denied(Basis.UNKNOWN_TOOL.value)
        if not call.session_handle:
            return denied("session_required")
        with under_way.asking():
            answer = await self.client.ask(call, known_obligations=question.knows, **under_way.joined)
        under_way.decided(answer)
        try:
            found = verdict(question, answer, endpoint=self.endpoint)
        except NoDecisionError:
            _LOG.warning("there is no decision about a call: %s", answer.error)
            raise
        accepted()
        if answer.outcome_token and not found.decision:
            # The server has allowed a call that will not be made.
            with suppress(PDPClientError):
                await self.client.report_outcome(answer, succeeded=False)
        return found
