"""A call at a door as it is observed: in whose trace it is, how long each part takes, and what becomes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self, TypedDict

from pdp.client import Answer, ToolCallDenied, ToolResultWithheld
from pdp.doors.traces import Placed
from pdp.model import Outcome
from pdp.observer import CallObserver, CallOutcome, DoorCall, DoorObserver, Refusal

# Of texts from outside; telemetry shows no more, and thousands of calls can wait to be sent.
_CHARACTERS: Final = 128
_NOWHERE: Final = Placed()
_UNANSWERED: Final = Answer(outcome=Outcome.DENY, basis="", server="", tool="", request_id="")
# The words for what went wrong with a call that was made.
TOOL_ERROR, NO_RESULT = "tool_error", "no_result"
# And with one that has no result to hand on. A deny is an answer.
_ERRORS: Final[Mapping[CallOutcome, str]] = {
    CallOutcome.WITHHELD: "result_withheld",
    CallOutcome.UNDECIDED: "undecided",
}


class TraceOptions(TypedDict):
    """Where a question belongs, as the client takes it."""

    traceparent: str
    tracestate: str


class NotMadeError(Exception):
    """A door does not make a call, for a reason of its own. `outcome` is what that is to observers."""

    outcome = CallOutcome.DENY


class CallUnderWay:
    """A call from its arrival at a door to its answer. Without an observer nothing is noted.

    As a context manager it tells what became of a call that an error ends. `operation`, `server`, `tool`, `transport`
    and both ids are those of `DoorCall`. `trace` is where the question to the PDP, and what comes of it, belong.
    """

    def __init__(
        self,
        observer: CallObserver | None,
        operation: str,
        *,
        placed: Placed = _NOWHERE,
        server: str = "",
        tool: str = "",
        request_id: str = "",
        tool_call_id: str = "",
        transport: str = "",
    ) -> None:
        self.server = server
        self.tool = tool
        self.trace = placed.parent
        self._observer = observer
        self._operation = operation
        self._placed = placed
        self._request_id = request_id
        self._tool_call_id = tool_call_id
        self._transport = transport
        self._answer: Answer | None = None
        self._question_seconds: float | None = None
        self._sent_at: float | None = None
        self._upstream_seconds: float | None = None
        if observer is not None:
            self._began_at, self._start = time.time(), time.perf_counter()
            self.trace = observer.began(placed.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.failed(error)

    @property
    def traced(self) -> bool:
        """Say whether the call has a span."""
        return self.trace != self._placed.parent

    @property
    def joined(self) -> TraceOptions:
        """Return the options by which a question to the PDP joins the trace."""
        return {"traceparent": self.trace.traceparent, "tracestate": self.trace.tracestate}

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
        _, trace_id, span_id, _ = self.trace.traceparent.split("-") if self.traced else ("", "", "", "")
        observer.over(
            DoorCall(
                operation=self._operation[:_CHARACTERS],
                outcome=outcome,
                began_at=self._began_at,
                seconds=time.perf_counter() - self._start,
                question_seconds=self._question_seconds,
                upstream_seconds=self._upstream_seconds,
                error=error or _ERRORS.get(outcome, ""),
                server=self.server[:_CHARACTERS],
                tool=self.tool[:_CHARACTERS],
                request_id=self._request_id[:_CHARACTERS],
                tool_call_id=self._tool_call_id[:_CHARACTERS],
                transport=self._transport,
                session_id=answer.session_id,
                user=answer.user,
                agent=answer.agent,
                decision_id=answer.decision_id,
                basis=answer.basis,
                bundle_version=answer.bundle_version,
                access_request_id=answer.access_request_id,
                trace_id=trace_id,
                span_id=span_id,
                parent=self._placed.parent,
                linked=self._placed.linked,
            )
        )


# For a call of which nothing is told.
UNOBSERVED: Final = CallUnderWay(None, "")


def refuse(observer: DoorObserver | None, why: Refusal) -> None:
    """Tell an observer, if there is one, that a message is refused."""
    if observer is not None:
        observer.refused(why)


def _outcome_of(error: BaseException) -> CallOutcome:
    if isinstance(error, ToolCallDenied):
        if error.answer.waits:
            return CallOutcome.WAITING
        return CallOutcome.UNDECIDED if error.answer.undecided else CallOutcome.DENY
    if isinstance(error, ToolResultWithheld):
        return CallOutcome.WITHHELD
    if isinstance(error, NotMadeError):
        return error.outcome
    if isinstance(error, asyncio.CancelledError):
        return CallOutcome.CANCELLED
    return CallOutcome.UNDECIDED
