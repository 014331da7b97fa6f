"""A call at a door as it is observed: in whose trace it is, how long each part takes, and what becomes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from random import getrandbits
from typing import Final

from pdp.client import Answer, ToolCallDenied, ToolResultWithheld
from pdp.doors.session import NoSessionError
from pdp.doors.traces import Placed, carried_on
from pdp.model import Outcome
from pdp.observer import CallOutcome, DoorCall, DoorObserver, Refusal

# Of texts from outside; telemetry shows no more, and thousands of calls can wait to be sent.
_CHARACTERS: Final = 128
_NOWHERE: Final = Placed()
_UNANSWERED: Final = Answer(outcome=Outcome.DENY, basis="", server="", tool="", request_id="")
# The word for what went wrong. A deny is an answer.
_ERRORS: Final[Mapping[CallOutcome, str]] = {
    CallOutcome.WITHHELD: "result_withheld",
    CallOutcome.UNDECIDED: "undecided",
}


class CallUnderWay:
    """A call from its arrival at a door to its answer. Without an observer nothing is noted.

    `operation`, `server`, `transport` and `request_id` are those of `DoorCall`. `trace` is where the question to the
    PDP, and what comes of it, belong.
    """

    def __init__(
        self,
        observer: DoorObserver | None,
        operation: str,
        *,
        placed: Placed = _NOWHERE,
        server: str = "",
        request_id: str = "",
        transport: str = "",
    ) -> None:
        self.tool = ""
        self.trace = placed.parent
        self._observer = observer
        self._operation = operation
        self._placed = placed
        self._server = server
        self._request_id = request_id
        self._transport = transport
        self._answer: Answer | None = None
        self._span_id = ""
        self._question_seconds: float | None = None
        self._sent_at: float | None = None
        self._upstream_seconds: float | None = None
        if observer is not None:
            self._began_at, self._start = time.time(), time.perf_counter()
            if observer.traced:
                self._span_id = f"{getrandbits(64) or 1:016x}"
                self.trace = carried_on(placed.parent, f"{getrandbits(128) or 1:032x}", self._span_id)
            observer.began()

    @property
    def traced(self) -> bool:
        """Say whether the call has a span."""
        return bool(self._span_id)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Measure how long the PDP, or the person whom it asks, takes to answer."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._question_seconds = time.perf_counter() - start

    def decided(self, answer: Answer) -> None:
        """Note what the PDP has answered."""
        self._answer = answer

    def sent(self) -> None:
        """Note that the tool has been called."""
        self._sent_at = time.perf_counter()

    def came_back(self) -> None:
        """Note that the tool has answered."""
        if self._sent_at is not None and self._upstream_seconds is None:
            self._upstream_seconds = time.perf_counter() - self._sent_at

    def failed(self, error: BaseException) -> None:
        """Tell what became of a call that an error keeps from being made, or from being answered."""
        if isinstance(error, ToolCallDenied | ToolResultWithheld):
            self.decided(error.answer)
        self.over(_outcome_of(error))

    def over(self, outcome: CallOutcome, error: str = "") -> None:
        """Tell what became of the call. Only the first word counts."""
        observer, self._observer = self._observer, None
        if observer is None:
            return
        self.came_back()
        answer = self._answer or _UNANSWERED
        observer.over(
            DoorCall(
                operation=self._operation[:_CHARACTERS],
                outcome=outcome,
                began_at=self._began_at,
                seconds=time.perf_counter() - self._start,
                question_seconds=self._question_seconds,
                upstream_seconds=self._upstream_seconds,
                error=error or _ERRORS.get(outcome, ""),
                server=self._server[:_CHARACTERS],
                tool=self.tool[:_CHARACTERS],
                request_id=self._request_id[:_CHARACTERS],
                transport=self._transport,
                session_id=answer.session_id,
                user=answer.user,
                agent=answer.agent,
                decision_id=answer.decision_id,
                basis=answer.basis,
                bundle_version=answer.bundle_version,
                access_request_id=answer.access_request_id,
                trace_id=self.trace.traceparent[3:35] if self._span_id else "",
                span_id=self._span_id,
                parent=self._placed.parent,
                linked=self._placed.linked,
            )
        )


def refuse(observer: DoorObserver | None, why: Refusal) -> None:
    """Tell an observer, if there is one, that a message is refused."""
    if observer is not None:
        observer.refused(why)


def _outcome_of_deny(answer: Answer) -> CallOutcome:
    if answer.waits:
        return CallOutcome.WAITING
    return CallOutcome.UNDECIDED if answer.undecided else CallOutcome.DENY


def _outcome_of(error: BaseException) -> CallOutcome:
    if isinstance(error, ToolCallDenied):
        return _outcome_of_deny(error.answer)
    if isinstance(error, ToolResultWithheld):
        return CallOutcome.WITHHELD
    if isinstance(error, NoSessionError):
        # While a person has not answered, it names the tools that were asked for.
        waiting = CallOutcome.WAITING if error.tools else CallOutcome.DENY
        return CallOutcome.UNDECIDED if error.away else waiting
    if isinstance(error, asyncio.CancelledError):
        return CallOutcome.CANCELLED
    return CallOutcome.UNDECIDED
