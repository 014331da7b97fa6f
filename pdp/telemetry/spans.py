"""Say what a span shows: its attributes, its place in the caller's trace."""

from __future__ import annotations

import re

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

from pdp.jsontext import keyed_digest
from pdp.model import Decision, TraceParent
from pdp.observer import Event
from pdp.telemetry import names

Attributes = dict[str, str | int | float | tuple[str, ...]]

_TEXT_CHARACTERS = 128
_POLICIES = 64

# W3C Trace Context: version, trace id, parent id, flags, and what later versions may add.
_TRACEPARENT = re.compile(r"((?!ff)[0-9a-f]{2})-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACEPARENT_CHARACTERS = 512
_TRACESTATE_KEY = r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_TRACESTATE_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_TRACESTATE_MEMBER = rf"{_TRACESTATE_KEY}={_TRACESTATE_VALUE}"
_TRACESTATE = re.compile(rf"{_TRACESTATE_MEMBER}(?:[ \t]*,[ \t]*{_TRACESTATE_MEMBER}){{0,31}}")
_TRACESTATE_CHARACTERS = 512
_KNOWN_FLAGS = 0b11


def decision_attributes(decision: Decision, digest_key: bytes) -> Attributes:
    """Return what the span of a decision shows: ids and our own words, never arguments or attribute values."""
    ruling = decision.ruling
    resource_digest = keyed_digest(digest_key, ruling.resource_id) if digest_key and not ruling.log_resource else ""
    found: Attributes = {
        names.SESSION_ID: decision.session_id,
        names.USER: decision.user,
        names.AGENT: decision.agent,
        names.TOOL: bounded(decision.tool),
        names.TOOL_CALL_ID: bounded(decision.tool_call_id),
        names.DECISION_ID: decision.id,
        names.OUTCOME: ruling.outcome.value,
        names.BASIS: ruling.basis.value,
        names.POLICIES: ruling.policies[:_POLICIES],
        names.ERRORS: ruling.errors[:_POLICIES],
        names.SERVER: bounded(decision.server),
        names.RESOURCE_TYPE: ruling.resource_type,
        names.RESOURCE_ID: bounded(ruling.resource_id) if ruling.log_resource else "",
        names.RESOURCE_DIGEST: resource_digest if ruling.resource_id else "",
        names.BUNDLE_VERSION: decision.bundle_version,
        names.SESSION_EPOCH: decision.session_epoch,
        names.ANCESTORS: decision.ancestor_ids,
        names.ANCESTOR_ID: ruling.ancestor_id,
        names.ANCESTOR_BASIS: ruling.ancestor_basis.value if ruling.ancestor_basis else "",
        names.TENANT: decision.tenant,
        names.ENVIRONMENT: decision.environment,
        names.CALLER_ID: decision.caller.id,
        names.CACHE: decision.cache_result.value,
        names.REQUEST_ID: bounded(decision.request_id),
    }
    attributes = {name: value for name, value in found.items() if value}
    for phase, microseconds in decision.phases:
        attributes[f"{names.PHASE_PREFIX}{phase}{names.PHASE_SUFFIX}"] = microseconds
    return attributes


def refusal_attributes(event: Event) -> Attributes:
    """Return what the span of a refused request shows."""
    found: Attributes = {
        names.RPC_SYSTEM: "grpc",
        names.RPC_METHOD: bounded(event.facts.get("rpc", "")),
        names.RPC_STATUS: bounded(event.facts.get("status", "")),
        names.REQUEST_FIELD: bounded(event.facts.get("field", "")),
        names.CALLER_ID: event.caller_id,
        names.SESSION_ID: event.session_id,
        names.USER: event.user,
        names.AGENT: event.agent,
        names.TENANT: event.tenant,
    }
    return {name: value for name, value in found.items() if value}


def trace_id_of(parent: TraceParent) -> str:
    """Return the caller's trace id, or an empty text when it is not stated or malformed."""
    match = _match(parent.traceparent)
    return match[2] if match else ""


def start_context(parent: TraceParent) -> Context:
    """Return the context to start a span in: the caller's span, or nothing when it is not stated or malformed."""
    match = _match(parent.traceparent)
    if match is None:
        return Context()
    state = None
    # Checked here first, because the SDK writes what it does not like into the process's log.
    if len(parent.tracestate) <= _TRACESTATE_CHARACTERS and _TRACESTATE.fullmatch(parent.tracestate):
        state = TraceState.from_header([parent.tracestate])
    # With the flag always set, a provider that asks the parent whether to sample records the decision too.
    flags = TraceFlags(int(match[4], 16) & _KNOWN_FLAGS | TraceFlags.SAMPLED)
    caller = SpanContext(int(match[2], 16), int(match[3], 16), is_remote=True, trace_flags=flags, trace_state=state)
    return set_span_in_context(NonRecordingSpan(caller), Context())


def bounded(text: str) -> str:
    """Cut a text that somebody else wrote, and drop control, bidi and other invisible characters."""
    text = text[:_TEXT_CHARACTERS]
    return text if text.isprintable() else "".join(filter(str.isprintable, text))


def _match(traceparent: str) -> re.Match[str] | None:
    if not traceparent or len(traceparent) > _TRACEPARENT_CHARACTERS:
        return None
    match = _TRACEPARENT.fullmatch(traceparent)
    if match and match[1] == "00" and match[5]:
        return None
    return match
