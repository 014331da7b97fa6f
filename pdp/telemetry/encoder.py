"""Encode decisions as spans and log records, remembering the parts that repeat.

The attributes of sessions, tools and rulings repeat, so each is encoded once. The rest is joined from prepared pieces.
The bytes are the same as `wire.span` and `wire.log_record` return for `attributes.py`, and the same as those of the
SDK's encoder: tests compare all three. Use each encoder from one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from sys import getsizeof
from typing import NamedTuple

from pdp.foundation.jsontext import keyed_digest
from pdp.foundation.quickcaches import SmallCache, WeighedCache
from pdp.model import Basis, Caller, Decision, Matter, Ruling, TraceParent
from pdp.observer import Event, EventKind
from pdp.telemetry import names, wire
from pdp.telemetry.attributes import (
    Attributes,
    bounded,
    decision_attributes,
    phase_name,
    record_attributes,
    record_part,
    refusal_attributes,
    ruling_part,
    session_decision_attributes,
    session_part,
    tool_part,
)
from pdp.telemetry.limits import AttributeLimits
from pdp.telemetry.parent import Parent, is_believed, new_span_id, new_trace_id, read_parent

Item = tuple[Decision | Event, TraceParent]

_REMEMBERED = 4096
# About 2 KiB each, but they hold text from agents.
_MOST_FORMS, _MOST_FORM_BYTES, _FORM_BYTES = 2048, 2 * 1024 * 1024, 1024
_TEXTS = (
    names.DECISION_ID,
    names.RESOURCE_ID,
    names.RESOURCE_DIGEST,
    names.TOOL_CALL_ID,
    names.REQUEST_ID,
    names.ACCESS_REQUEST,
    names.ARGUMENTS_DIGEST,
)
INFO, WARN = (9, "INFO"), (13, "WARN")
# An operator should act on these; any other deny is an answer.
_WARNED = frozenset({Basis.POLICY_ERROR, Basis.RECORD_UNAVAILABLE})

# OpenTelemetry's conventions for RPC servers call these errors; the caller causes the other statuses.
_SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


# The events that have a span: its name, and the attributes that it has.
_EVENT_SPANS: Mapping[str, tuple[str, Callable[[Event], Attributes]]] = {
    EventKind.REQUEST_REFUSED: (names.SPAN_REFUSED, refusal_attributes),
    EventKind.SESSION_DECIDED: (names.SPAN_SESSION, session_decision_attributes),
}


def span_of(item: Item, digest_key: bytes, limits: AttributeLimits) -> wire.Span:
    """Return the span of a decision, of a session decision, or of a refused request."""
    decided, parent = item
    if isinstance(decided, Event):
        return event_span(decided, limits)
    return decision_span(decided, parent, digest_key, limits)


def decision_span(decision: Decision, parent: TraceParent, digest_key: bytes, limits: AttributeLimits) -> wire.Span:
    """Return the span of a decision whose trace and span ids are set."""
    above, links = _place(read_parent(parent), believed=is_believed(decision.caller.roles))
    shown, dropped = limits.applied(decision_attributes(decision, digest_key))
    start, end = times(decision)
    return wire.Span(
        name=names.SPAN_DECISION,
        trace_id=decision.trace_id,
        span_id=decision.span_id,
        start=start,
        end=end,
        attributes=shown,
        dropped_attributes=dropped,
        parent_id=above.span_id if above else "",
        trace_state=above.trace_state if above else "",
        links=links[: limits.links],
        dropped_links=len(links[limits.links :]),
    )


def event_span(event: Event, limits: AttributeLimits) -> wire.Span:
    """Return the span of a refused request or of a session decision."""
    name, attributes = _EVENT_SPANS[event.kind]
    believed = event.facts.get("traceparent", "")
    above = read_parent(TraceParent(traceparent=believed))
    linked = read_parent(TraceParent(traceparent=event.facts.get("tracelink", "")))
    links = ((linked.trace_id, linked.span_id),) if linked and not above else ()
    shown, dropped = limits.applied(attributes(event))
    at = nanoseconds(event.at)
    return wire.Span(
        name=name,
        trace_id=above.trace_id if above else new_trace_id(),
        span_id=new_span_id(),
        start=at,
        end=at,
        attributes=shown,
        dropped_attributes=dropped,
        parent_id=above.span_id if above else "",
        links=links[: limits.links],
        dropped_links=len(links[limits.links :]),
        failed=event.facts.get("status") in _SERVER_FAULTS,
    )


def decision_record(decision: Decision, digest_key: bytes, limits: AttributeLimits, observed_at: int) -> wire.LogRecord:
    """Return the log record of a decision."""
    shown, dropped = limits.applied(record_attributes(decision, digest_key))
    severity, severity_text = _severity(decision)
    return wire.LogRecord(
        event=names.EVENT_DECISION,
        at=nanoseconds(decision.decided_at),
        observed_at=observed_at,
        severity=severity,
        severity_text=severity_text,
        body=_body(decision),
        attributes=shown,
        dropped_attributes=dropped,
        trace_id=decision.trace_id,
        span_id=decision.span_id,
    )


class SpanEncoder:
    """Encodes decisions, session decisions and refused requests as spans."""

    def __init__(self, digest_key: bytes, limits: AttributeLimits) -> None:
        self._digest_key = digest_key
        self._limits = limits
        self._parts = _Parts(wire.SPAN_ATTRIBUTE, digest_key)
        self._name = wire.named(names.SPAN_DECISION)
        self._tails = {child: wire.span_tail(0, (), 0, failed=False, child=child) for child in (False, True)}

    def __call__(self, item: Item) -> bytes:
        """Return an encoded span."""
        decided, parent = item
        if isinstance(decided, Event):
            return wire.span(event_span(decided, self._limits))
        above = read_parent(parent) if parent.traceparent else None
        if self._limits.bites or (above is not None and not is_believed(decided.caller.roles)):
            return wire.span(decision_span(decided, parent, self._digest_key, self._limits))
        start, end = times(decided)
        form = self._parts.form(decided)
        return b"".join(
            (
                b"\x0a\x10",
                bytes.fromhex(decided.trace_id),
                b"\x12\x08",
                bytes.fromhex(decided.span_id),
                b"" if above is None else wire.below(above.trace_state, above.span_id),
                self._name,
                wire.interval(start, end),
                form.shared,
                *self._parts.of_call(decided, form),
                self._tails[above is not None],
            )
        )


class RecordEncoder:
    """Encodes decisions as log records."""

    def __init__(self, digest_key: bytes, limits: AttributeLimits, now: Callable[[], int] = time.time_ns) -> None:
        self._digest_key = digest_key
        self._limits = limits
        self._now = now
        self._parts = _Parts(wire.LOG_ATTRIBUTE, digest_key, recorded=True)
        self._event = wire.happened(names.EVENT_DECISION)

    def __call__(self, item: Item) -> bytes:
        """Return an encoded log record; empty for an item that is not a decision."""
        decision, _ = item
        if isinstance(decision, Event):
            return b""
        if self._limits.bites:
            return wire.log_record(decision_record(decision, self._digest_key, self._limits, self._now()))
        form = self._parts.form(decision)
        return b"".join(
            (
                wire.instant(nanoseconds(decision.decided_at)),
                form.said,
                form.shared,
                *self._parts.of_call(decision, form),
                form.recorded,
                wire.log_tail(0, decision.trace_id, decision.span_id, self._now(), self._event),
            )
        )


class _Form(NamedTuple):
    """What the spans, or the log records, of decisions about equal calls share, encoded.

    `shared` comes before the decision's own id, and `resource` after it. Only log records have `said`, which is their
    severity and text, and `recorded`, their last attributes. `matter`, `ruling` and `caller` are kept because the form
    is found by their identity.
    """

    matter: Matter
    ruling: Ruling
    caller: Caller
    shared: bytes
    resource: bytes
    said: bytes = b""
    recorded: bytes = b""


class _Parts:
    """Encoded attributes of decisions, each after one tag; repeating parts are remembered.

    What a decision that recurs is about and its ruling are the same objects each time: these find a form at once. With
    `recorded` it holds what only log records have.
    """

    def __init__(self, tag: bytes, digest_key: bytes, *, recorded: bool = False) -> None:
        self._tag = tag
        self._digest_key = digest_key
        self._recorded = recorded
        self._forms: WeighedCache[tuple[object, ...], _Form] = WeighedCache(_MOST_FORMS, _MOST_FORM_BYTES)
        self._known: SmallCache[tuple[object, ...], bytes] = SmallCache(_REMEMBERED)
        self._number_heads: dict[str, bytes] = {}
        self._texts = {name: _text_writer(tag, name) for name in _TEXTS}

    def form(self, decision: Decision) -> _Form:
        """Return what decisions about equal calls share."""
        matter, ruling, caller = decision.matter, decision.ruling, decision.caller
        key = (id(matter), id(ruling), id(caller), decision.definition_digest)
        form = self._forms.get(key)
        if form is None:
            form = self._form_of(decision)
            # Others are found by objects that no later decision has, and would only take the place of those that are.
            if decision.recurs:
                self._forms.keep(key, form, _weight(form))
        return form

    def of_call(self, decision: Decision, form: _Form) -> list[bytes]:
        """Return the encoded `call_part`."""
        texts = self._texts
        parts = [
            texts[names.DECISION_ID](decision.id),
            form.resource,
            texts[names.TOOL_CALL_ID](bounded(decision.tool_call_id)),
            texts[names.REQUEST_ID](bounded(decision.request_id)),
        ]
        if decision.labels_added:
            parts.append(wire.attributes(self._tag, {names.LABELS_ADDED: decision.labels_added}))
        if decision.debits:
            taken = tuple([name for name, _ in decision.debits])
            parts.append(wire.attributes(self._tag, {names.DEBITS: taken}))
        if decision.ruling.policies_lifted:
            parts.append(wire.attributes(self._tag, {names.POLICIES_LIFTED: decision.ruling.policies_lifted}))
        if decision.access_request_id:
            parts.append(texts[names.ACCESS_REQUEST](decision.access_request_id))
        for phase, microseconds in decision.phases:
            head = self._number_heads.get(phase)
            if head is None:
                head = self._number_heads[phase] = wire.number_attribute(self._tag, phase_name(phase))
            parts += (head, wire.double(microseconds))
        return parts

    def _form_of(self, decision: Decision) -> _Form:
        matter, ruling = decision.matter, decision.ruling
        shared = self._shared(decision)
        if ruling.log_resource or not ruling.resource_id:
            resource = self._texts[names.RESOURCE_ID](bounded(ruling.resource_id))
        else:
            resource = self._digest(names.RESOURCE_DIGEST, ruling.resource_id)
        if not self._recorded:
            return _Form(matter, ruling, decision.caller, shared, resource)
        key = ("record", matter.opened_by, decision.definition_digest, ruling.detail)
        more = self._known.get(key) or self._learn(key, record_part(decision))
        recorded = more + self._digest(names.ARGUMENTS_DIGEST, matter.arguments_digest)
        said = wire.said(*_severity(decision), _body(decision))
        return _Form(matter, ruling, decision.caller, shared, resource, said, recorded)

    def _shared(self, decision: Decision) -> bytes:
        """Return the encoded `session_part`, `tool_part` and `ruling_part`."""
        matter, ruling = decision.matter, decision.ruling
        # INVARIANT: a key holds everything that its part is made of, and begins with the part's name.
        session = (
            "session",
            matter.session_id,
            matter.session_epoch,
            matter.user,
            matter.agent,
            matter.ancestor_ids,
            matter.tenant,
            matter.environment,
            decision.caller.id,
        )
        tool = ("tool", matter.tool, matter.server, matter.bundle_version)
        found = (
            "ruling",
            ruling.outcome,
            ruling.basis,
            ruling.policies,
            ruling.obligations,
            ruling.errors,
            ruling.resource_type,
            ruling.ancestor_id,
            ruling.ancestor_basis,
            decision.cache_result,
        )
        known = self._known
        return b"".join(
            (
                known.get(session) or self._learn(session, session_part(decision)),
                known.get(tool) or self._learn(tool, tool_part(decision)),
                known.get(found) or self._learn(found, ruling_part(decision)),
            )
        )

    def _digest(self, name: str, text: str) -> bytes:
        """Return an attribute with the digest of a text, which cannot be guessed; nothing without a key."""
        return self._texts[name](keyed_digest(self._digest_key, text)) if self._digest_key else b""

    def _learn(self, key: tuple[object, ...], part: Attributes) -> bytes:
        return self._known.keep(key, wire.attributes(self._tag, part))


def _weight(form: _Form) -> int:
    """Return about how many bytes a form takes."""
    # Matter and ruling are kept with their form, and hold much of the same text; these it has cut, or not at all.
    uncut = (form.ruling.resource_id, *(text for _, text in form.ruling.logged_arguments))
    return _FORM_BYTES + 2 * sum(map(len, form[3:])) + sum(map(getsizeof, uncut))


def _text_writer(tag: bytes, name: str) -> Callable[[str], bytes]:
    """Return what encodes a text as the attribute with a name, and an empty text as nothing."""
    heads: dict[int, bytes] = {}

    def write(value: str) -> bytes:
        if not value:
            return b""
        raw = value.encode("utf-8", "replace")
        head = heads.get(len(raw))
        if head is None:
            head = heads[len(raw)] = wire.text_attribute(tag, name, len(raw))
        return head + raw

    return write


def times(decision: Decision) -> tuple[int, int]:
    """Return when the span of a decision begins and ends, in nanoseconds."""
    end = nanoseconds(decision.decided_at)
    # A clock that is close to zero must not cause a failure.
    return max(0, end - int(decision.duration_us * 1000)), end


def nanoseconds(at: float) -> int:
    """Return unix seconds as nanoseconds; today's floats are exact to microseconds."""
    return round(at * 1_000_000) * 1000


def _place(found: Parent | None, *, believed: bool) -> tuple[Parent | None, tuple[tuple[str, str], ...]]:
    if found is None or believed:
        return found, ()
    return None, ((found.trace_id, found.span_id),)


def _severity(decision: Decision) -> tuple[int, str]:
    return WARN if decision.ruling.basis in _WARNED else INFO


def _body(decision: Decision) -> str:
    matter, ruling = decision.matter, decision.ruling
    return f"{ruling.outcome.value} {bounded(matter.server)}/{bounded(matter.tool)}: {ruling.basis.value}"
