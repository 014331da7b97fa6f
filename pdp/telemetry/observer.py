"""Make spans, log records and metrics of decisions and events.

- A span is made for every decision, whatever the caller's sampling flag says, as a child of the caller's span.
- Only a PEP's span becomes a parent. Any other caller's span is linked: a caller that may not ask for decisions may
not write into others' traces.
- Its kind is SERVER: it is the PDP's side of a caller's question, and traces show it as that.
- Its name is the same for all tools, because agents write tool names and can write anything.
- A deny is an answer: the span's status stays unset. Attributes without a value are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from threading import Thread
from typing import TYPE_CHECKING, Protocol, Self

from pdp.model import Caller, Decision, TraceParent
from pdp.observer import Event, EventKind
from pdp.telemetry import names
from pdp.telemetry.attributes import SHOWN_LISTS, TEXT_CHARACTERS
from pdp.telemetry.encoder import Item
from pdp.telemetry.parent import carried, is_believed, new_span_id, new_trace_id, read_parent

if TYPE_CHECKING:
    from pdp.telemetry.metrics import CountSessions, LookAtMessages, Metrics, RecordStanding

Sink = Callable[[Item], None]


class Closing(Protocol):
    """A part that sends what waits before it ends."""

    def shut_down(self, timeout: float) -> bool:
        """Send what waits and end; return False when `timeout` seconds were not enough."""
        ...


class Telemetry:
    """The observer that makes spans, log records and metrics. Pass None for a part that is not wanted.

    `spans` and `records` take decisions and events in the order in which they happen; they never wait and never raise.
    `ahead` encode what waits to be sent, a moment each. The groups in `closing` are shut down one after the other, the
    members of a group at the same time.
    """

    def __init__(
        self,
        *,
        spans: Sink | None = None,
        records: Sink | None = None,
        metrics: Metrics | None = None,
        ahead: tuple[Callable[[], None], ...] = (),
        closing: tuple[tuple[Closing, ...], ...] = (),
    ) -> None:
        self._spans = spans
        self._records = records
        self._metrics = metrics
        self._ahead = ahead
        self._closing = closing

    @classmethod
    def off(cls) -> Self:
        """Return telemetry that makes nothing and only passes on the caller's trace id."""
        return cls()

    def trace_ids(self, parent: TraceParent, caller: Caller) -> tuple[str, str]:
        """Return the ids of trace and span for a decision that is about to be made.

        Without spans of our own, a decision still states its caller's trace.
        """
        above = read_parent(parent) if parent.traceparent and is_believed(caller.roles) else None
        if self._spans is None:
            return above.trace_id if above else "", ""
        return above.trace_id if above else new_trace_id(), new_span_id()

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:
        """Count and show a decision; return it with ids of trace and span.

        Ids that it has already stay.
        """
        if not decision.trace_id or (self._spans is not None and not decision.span_id):
            trace_id, span_id = self.trace_ids(parent, decision.caller)
            if trace_id:
                decision = replace(decision, trace_id=trace_id, span_id=span_id)
        shown = _cut(decision) if _is_long(decision) else decision
        if self._metrics is not None:
            self._metrics.decision(shown)
        item = (shown, carried(parent))
        if self._spans is not None:
            self._spans(item)
        if self._records is not None:
            self._records(item)
        return decision

    def encode_ahead(self) -> None:
        """Encode some of what waits to be sent, for a millisecond at most. Never waits and never raises.

        A thread that answers calls does this when it has answered, so that no other keeps the interpreter from it.
        """
        for encode in self._ahead:
            encode()

    def event(self, event: Event) -> None:
        """Count an event; a refused request and a session decision also get a span.

        The span is a child of the fact `traceparent`, or linked with the fact `tracelink`, when there is one.
        """
        if self._metrics is not None:
            self._metrics.event(event)
        if self._spans is not None and event.kind in (EventKind.REQUEST_REFUSED, EventKind.SESSION_DECIDED):
            self._spans((_short(event), _NO_PARENT))

    def refused(self, event: Event) -> None:
        """Count a refusal that is shown only as part of a sum."""
        if self._metrics is not None:
            self._metrics.event(event)

    def record_failed(self) -> None:
        """Count a record that could not be written."""
        if self._metrics is not None:
            self._metrics.count(names.RECORD_FAILURES)

    def head_failed(self) -> None:
        """Count a head of the record that could not be noted in the database."""
        if self._metrics is not None:
            self._metrics.count(names.RECORD_HEAD_FAILURES)

    def watch_sessions(self, count: CountSessions) -> None:
        """Report sessions by state, as `count` returns them at each collection.

        Call it once.
        """
        if self._metrics is not None:
            self._metrics.watch_sessions(count)

    def watch_freezes(self, count: Callable[[], int]) -> None:
        """Report how many freezes there are, as `count` returns it at each collection.

        Call it once.
        """
        if self._metrics is not None:
            self._metrics.watch_freezes(count)

    def watch_bundle(self, look: Callable[[], str]) -> None:
        """Report the version of the bundle in force, as `look` returns it.

        Call it once. Without it, the bundle is the one that this process activated last.
        """
        if self._metrics is not None:
            self._metrics.watch_bundle(look)

    def watch_record(self, look: Callable[[], RecordStanding]) -> None:
        """Report the state of the record, as `look` returns it at each collection.

        Call it once.
        """
        if self._metrics is not None:
            self._metrics.watch_record(look)

    def watch_messages(self, look: LookAtMessages) -> None:
        """Report how receivers of messages are served, as `look` returns it at each collection.

        Call it once, in each process that may send: the others return nothing.
        """
        if self._metrics is not None:
            self._metrics.watch_messages(look)

    def watch_lease(self, look: Callable[[], float]) -> None:
        """Report how many seconds ago the last lease of the machine began, as `look` returns it at each collection.

        Call it once, where there are leases.
        """
        if self._metrics is not None:
            self._metrics.watch_lease(look)

    def fenced(self, by: str, seconds: float) -> None:
        """Count a change that has waited for other servers, for so many seconds; `by` says what ended that."""
        if self._metrics is not None:
            self._metrics.fenced(by, seconds)

    def message_tried(self, receiver: str, error: str) -> None:
        """Count an attempt to send a message; `error` is empty when it was taken."""
        if self._metrics is not None:
            self._metrics.count(names.MESSAGES_SENT, receiver, error)

    def shutdown(self, timeout: float = 5.0) -> bool:
        """Send what waits and end; return False when `timeout` seconds were not enough."""
        groups, self._closing = self._closing, ()
        return shut_down(groups, timeout)


def shut_down(groups: tuple[tuple[Closing, ...], ...], timeout: float) -> bool:
    """End groups one after the other, the members of each at the same time; return False when time was short."""
    end = time.monotonic() + timeout
    in_time = [_all_shut_down(group, max(0.0, end - time.monotonic())) for group in groups]
    return all(in_time)


def _all_shut_down(group: tuple[Closing, ...], timeout: float) -> bool:
    results: list[bool] = []
    threads = [
        Thread(target=lambda one=one: results.append(one.shut_down(timeout)), name="pdp-telemetry-end", daemon=True)
        for one in group
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return all(results)


def _is_long(decision: Decision) -> bool:
    """Say whether a decision holds texts of an agent that are not shown in full."""
    ruling, most = decision.ruling, TEXT_CHARACTERS
    return (
        len(decision.matter.tool) > most
        or len(decision.tool_call_id) > most
        or len(ruling.resource_id) > most
        or bool(ruling.logged_arguments)
    )


def _cut(decision: Decision) -> Decision:
    """Cut an agent's texts to what is shown of them: thousands of decisions can wait."""
    ruling = decision.ruling
    # A resource that is not shown is shown as the digest of its whole id.
    resource = ruling.resource_id[:TEXT_CHARACTERS] if ruling.log_resource else ruling.resource_id
    return replace(
        decision,
        matter=replace(decision.matter, tool=decision.matter.tool[:TEXT_CHARACTERS]),
        tool_call_id=decision.tool_call_id[:TEXT_CHARACTERS],
        ruling=replace(ruling, resource_id=resource, logged_arguments=()),
        recurs=False,
    )


def _short(event: Event) -> Event:
    """Keep only what a span can show of an event, because thousands can wait.

    Facts, among them a header of the refused caller, are cut to what `parent.py` reads.
    """
    return replace(
        event,
        facts={name: fact[:_FACT_CHARACTERS] for name, fact in event.facts.items()},
        lists={name: values for name, values in event.lists.items() if name in SHOWN_LISTS},
        attributes={},
    )


# One more than the longest `traceparent`: a header that was too long is still too long.
_FACT_CHARACTERS = 513
_NO_PARENT = TraceParent()
