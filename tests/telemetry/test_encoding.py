"""Our encoder writes the bytes that the SDK's encoder writes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from pdp.foundation.jsontext import keyed_digest
from pdp.model import Basis, CacheResult, Caller, Decision, Obligation, Outcome, Role, TraceParent
from pdp.telemetry import encoder, wire
from pdp.telemetry.attributes import decision_attributes
from pdp.telemetry.encoder import (
    Item,
    RecordEncoder,
    SpanEncoder,
    decision_record,
    span_of,
    times,
)
from pdp.telemetry.limits import AttributeLimits
from pdp.telemetry.sdk import readable_span
from pdp.testing.decisions import a_decision

# Each example costs the SDK some milliseconds.
FEW = settings(max_examples=40, deadline=None)

KEY = b"k" * 32
NOW = 1_800_000_000_300_000_000
NO_PARENT = TraceParent()
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"

# Lone surrogates have no UTF-8 form; what telemetry shows never holds one.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
names = texts.filter(bool)
numbers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False)
plain = st.none() | st.booleans() | texts | numbers | floats | st.binary(max_size=40)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4))
attributes = st.dictionaries(names, values, max_size=8)
trace_ids = st.integers(1, 2**128 - 1).map(lambda number: f"{number:032x}")
span_ids = st.integers(1, 2**64 - 1).map(lambda number: f"{number:016x}")
instants = st.integers(0, 2**63 - 1)
counts = st.integers(0, 2**31)
states = st.sampled_from(["", "vendor=1", "vendor=a b,tenant@system=1"])
spans = st.builds(
    wire.Span,
    name=names,
    trace_id=trace_ids,
    span_id=span_ids,
    start=instants,
    end=instants,
    attributes=attributes,
    parent_id=st.just("") | span_ids,
    trace_state=states,
    links=st.lists(st.tuples(trace_ids, span_ids), max_size=3).map(tuple),
    failed=st.booleans(),
)
records = st.builds(
    wire.LogRecord,
    event=texts,
    at=instants,
    observed_at=instants,
    severity=st.sampled_from([one.value for one in SeverityNumber]),
    severity_text=texts,
    body=texts,
    attributes=attributes,
    trace_id=trace_ids,
    span_id=span_ids,
)
sources = st.tuples(attributes.filter(bool), names, texts)

words = st.sampled_from(["", "alice", "größe", "日本", "a" * 64, "x" * 128])
wild = st.text(max_size=300)
ids = st.lists(st.sampled_from(["github/open", "guardrails/a", "b"]), max_size=3).map(tuple)
decisions = st.builds(
    a_decision,
    id=words,
    outcome=st.sampled_from(Outcome),
    basis=st.sampled_from(Basis),
    policies=ids,
    obligations=st.lists(st.builds(Obligation, words, st.just("{}")), max_size=2).map(tuple),
    errors=ids,
    resource_type=words,
    resource_id=wild,
    log_resource=st.booleans(),
    ancestor_id=words,
    ancestor_basis=st.none() | st.sampled_from(Basis),
    detail=words,
    session_id=words,
    session_epoch=st.integers(0, 2**40),
    ancestor_ids=ids,
    user=words,
    agent=words,
    tenant=words,
    environment=words,
    opened_by=words,
    caller=st.builds(
        Caller, id=words, kind=st.just("token"), roles=st.frozensets(st.sampled_from(Role)), tenant=st.just("default")
    ),
    server=wild,
    tool=wild,
    definition_digest=words,
    catalogue_digest=words,
    bundle_version=words,
    cache_result=st.sampled_from(CacheResult),
    recurs=st.booleans(),
    decided_at=st.floats(1_000, 4e9),
    duration_us=st.floats(0, 1e7),
    phases=st.just(()) | st.tuples(*(st.tuples(st.just(one), st.floats(0, 1e7)) for one in ("gate", "policy"))),
    labels_added=st.just(()) | st.lists(words, max_size=3).map(tuple),
    debits=st.just(()) | st.lists(st.tuples(words, st.integers(0, 9)), max_size=3).map(tuple),
    policies_lifted=ids,
    access_request_id=words,
    request_id=wild,
    tool_call_id=wild,
    trace_id=trace_ids,
    span_id=span_ids,
)
parents = st.builds(
    TraceParent,
    traceparent=st.sampled_from(["", "nonsense", f"00-{TRACE}-{PARENT}-00", f"00-{TRACE}-{PARENT}-01"]),
    tracestate=states,
)
limits = st.builds(
    AttributeLimits,
    attributes=st.sampled_from([0, 1, 7, 128]),
    characters=st.sampled_from([None, 0, 3]),
    links=st.sampled_from([0, 1, 128]),
)


def _scope(name: str, version: str) -> InstrumentationScope:
    return InstrumentationScope(name, version)


def _sdk_spans(*found: ReadableSpan) -> bytes:
    return encode_spans(found).SerializeToString()


def _sdk_record(record: wire.LogRecord, resource: Resource, scope: InstrumentationScope) -> ReadableLogRecord:
    written = LogRecord(
        timestamp=record.at,
        observed_timestamp=record.observed_at,
        context=set_span_in_context(
            NonRecordingSpan(
                SpanContext(
                    int(record.trace_id, 16), int(record.span_id, 16), is_remote=False, trace_flags=TraceFlags(1)
                )
            )
        ),
        severity_text=record.severity_text,
        severity_number=SeverityNumber(record.severity),
        body=record.body,
        attributes=record.attributes,
        event_name=record.event,
    )
    return ReadableLogRecord(written, resource, scope)


@FEW
@given(st.lists(spans, min_size=1, max_size=4), sources)
def test_spans_have_the_bytes_of_the_sdk(found: list[wire.Span], source: tuple[dict[str, Any], str, str]) -> None:
    """Any spans with attributes of all kinds, parents, links and states, from any resource and scope."""
    shown, name, version = source
    resource, scope = Resource(shown), _scope(name, version)

    ours = wire.source(resource.attributes, name, version).request([wire.frame(wire.span(one)) for one in found])

    assert _sdk_spans(*(readable_span(one, resource, scope) for one in found)) == ours


@FEW
@given(st.lists(records, min_size=1, max_size=4), sources)
def test_log_records_have_the_bytes_of_the_sdk(
    found: list[wire.LogRecord], source: tuple[dict[str, Any], str, str]
) -> None:
    """Any log records with attributes of all kinds, from any resource and scope."""
    shown, name, version = source
    resource, scope = Resource(shown), _scope(name, version)

    ours = wire.source(resource.attributes, name, version).request([wire.frame(wire.log_record(one)) for one in found])

    assert encode_logs([_sdk_record(one, resource, scope) for one in found]).SerializeToString() == ours


@FEW
@given(st.lists(st.tuples(decisions, parents), min_size=1, max_size=6), limits)
def test_remembering_changes_no_span(items: list[Item], limit: AttributeLimits) -> None:
    """Whatever an encoder has seen before, a decision's span has the bytes that follow from its attributes."""
    encode = SpanEncoder(KEY, limit)

    assert [wire.span(span_of(item, KEY, limit)) for item in items * 2] == [encode(item) for item in items * 2]


@FEW
@given(st.lists(st.tuples(decisions, parents), min_size=1, max_size=6), limits)
def test_remembering_changes_no_log_record(items: list[tuple[Decision, TraceParent]], limit: AttributeLimits) -> None:
    """The same for log records."""
    encode = RecordEncoder(KEY, limit, now=lambda: NOW)

    expected = [wire.log_record(decision_record(decision, KEY, limit, NOW)) for decision, _ in items * 2]

    assert expected == [encode(item) for item in items * 2]


@pytest.mark.parametrize(
    ("found", "digests"),
    [
        ({"cache_result": CacheResult.HIT, "recurs": True}, 1),
        ({"cache_result": CacheResult.HIT}, 3),
        ({"cache_result": CacheResult.MISS}, 3),
    ],
    ids=str,
)
def test_what_decisions_that_recur_share_is_encoded_once(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], digests: int
) -> None:
    """It is found by the objects that they share; any other decision's are its own, and are not kept."""
    encode, made, first = RecordEncoder(KEY, AttributeLimits(), now=lambda: NOW), list[str](), a_decision(**found)

    def noting(key: bytes, text: str) -> str:
        made.append(text)
        return keyed_digest(key, text)

    monkeypatch.setattr(encoder, "keyed_digest", noting)

    for number in range(3):
        encode((replace(first, id=f"dec_{number}"), NO_PARENT))

    assert digests == len(made)
    assert (digests == 1) == bool(encode._parts._forms)


@pytest.mark.parametrize("encoder_of", [SpanEncoder, RecordEncoder])
def test_texts_that_are_not_encoded_are_weighed_too(encoder_of: Any) -> None:
    """What is remembered keeps them alive, and an agent chooses them."""
    encode = encoder_of(KEY, AttributeLimits())
    texts = {"resource_id": "r" * 600_000, "logged_arguments": (("a", "t" * 600_000),)}
    for _ in range(2):
        encode((a_decision(recurs=True, log_resource=False, **texts), NO_PARENT))

    assert 1 == len(encode._parts._forms)


class _Ids(IdGenerator):
    """Gives the ids of a decision to the span that the SDK makes."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    def generate_trace_id(self) -> int:
        """Return the decision's trace id."""
        return int(self._decision.trace_id, 16)

    def generate_span_id(self) -> int:
        """Return the decision's span id."""
        return int(self._decision.span_id, 16)

    def is_trace_id_random(self) -> bool:
        """Say what the SDK's own generator says."""
        return True


def _made_by_the_sdk(decision: Decision, parent: TraceParent, limit: AttributeLimits, resource: Resource) -> bytes:
    """Make the span of a decision with the SDK's tracer, as an application would, and encode it with the SDK."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(
        sampler=ALWAYS_ON,
        resource=resource,
        shutdown_on_exit=False,
        id_generator=_Ids(decision),
        span_limits=SpanLimits(
            max_span_attributes=limit.attributes,
            max_span_attribute_length=SpanLimits.UNSET if limit.characters is None else limit.characters,
            max_links=limit.links,
        ),
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    context, links = set_span_in_context(NonRecordingSpan(SpanContext(0, 0, is_remote=False))), []
    if TRACE in parent.traceparent:
        state = TraceState.from_header([parent.tracestate])
        above = SpanContext(
            int(TRACE, 16), int(PARENT, 16), is_remote=True, trace_flags=TraceFlags(1), trace_state=state
        )
        if Role.PEP in decision.caller.roles:
            context = set_span_in_context(NonRecordingSpan(above))
        else:
            links = [Link(above)]
    start, end = times(decision)
    span = provider.get_tracer("pdp", "1").start_span(
        "pdp.authorize",
        context,
        kind=SpanKind.SERVER,
        attributes=decision_attributes(decision, KEY),
        links=links,
        start_time=start,
    )
    span.end(end)
    return _sdk_spans(*exporter.get_finished_spans())


@FEW
@given(decisions, parents, limits)
def test_a_decision_looks_as_if_the_sdk_had_made_its_span(
    decision: Decision, parent: TraceParent, limit: AttributeLimits
) -> None:
    """Ids, times, kind, status, flags, place, links and limits are as the SDK's own tracer makes them."""
    resource = Resource({"service.name": "pdp"})
    source = wire.source(resource.attributes, "pdp", "1")

    if TRACE in parent.traceparent and Role.PEP in decision.caller.roles:
        decision = replace(decision, trace_id=TRACE)

    ours = source.request([wire.frame(SpanEncoder(KEY, limit)((decision, parent)))])

    assert _made_by_the_sdk(decision, parent, limit, resource) == ours


@FEW
@given(st.dictionaries(names, texts | numbers | st.lists(texts, max_size=3).map(tuple), max_size=12), limits)
def test_limits_are_those_of_the_sdk(found: dict[str, Any], limit: AttributeLimits) -> None:
    """What is left of attributes, and how many are not, is what the SDK leaves."""
    kept = BoundedAttributes(limit.attributes, found, max_value_len=limit.characters)

    shown, dropped = limit.applied(found)

    assert (dict(kept), kept.dropped) == (dict(shown), dropped)
