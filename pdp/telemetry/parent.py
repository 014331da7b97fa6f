"""Read a request's position in its caller's trace, and make the next one: W3C Trace Context, strictly."""

from __future__ import annotations

import re
from functools import lru_cache
from random import getrandbits
from typing import NamedTuple

from opentelemetry.trace import TraceState

from pdp.model import Role, TraceParent

# W3C Trace Context: version, trace id, parent id, flags, and what later versions may add.
_TRACEPARENT = re.compile(r"((?!ff)[0-9a-f]{2})-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_TRACEPARENT_CHARACTERS = 512
_TRACESTATE_KEY = r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_TRACESTATE_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_TRACESTATE_MEMBER = rf"{_TRACESTATE_KEY}={_TRACESTATE_VALUE}"
_TRACESTATE = re.compile(rf"{_TRACESTATE_MEMBER}(?:[ \t]*,[ \t]*{_TRACESTATE_MEMBER}){{0,31}}")
_TRACESTATE_CHARACTERS = 512
_SAMPLED = "01"


class Parent(NamedTuple):
    """A caller's span, as 32 and 16 hexadecimal digits; `trace_state` is empty when there is none."""

    trace_id: str
    span_id: str
    trace_state: str = ""


def read_parent(parent: TraceParent) -> Parent | None:
    """Return the caller's span, or None when it is absent or malformed.

    Its sampling flag is ignored.
    """
    text = parent.traceparent
    if not text or len(text) > _TRACEPARENT_CHARACTERS:
        return None
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    version, trace_id, span_id, more = match.groups()
    if version == "00" and more:
        return None
    # By position, since it is made twice for each decision.
    return Parent(trace_id, span_id, _trace_state(parent.tracestate))


def below(parent: TraceParent) -> TraceParent:
    """Return the place below a new span, which is itself below a well-formed parent, or else begins a new trace."""
    if not parent.traceparent:
        return TraceParent(traceparent=f"00-{new_trace_id()}-{new_span_id()}-{_SAMPLED}")
    _, trace_id, _, flags = parent.traceparent.split("-")
    return TraceParent(traceparent=f"00-{trace_id}-{new_span_id()}-{flags}", tracestate=parent.tracestate)


def new_trace_id() -> str:
    """Return a new trace id, as the SDK makes them: random, and not all zeros."""
    return f"{getrandbits(128) or 1:032x}"


def new_span_id() -> str:
    """Return a new span id."""
    return f"{getrandbits(64) or 1:016x}"


def carried(parent: TraceParent) -> TraceParent:
    """Return the headers without those that are too long, because thousands can wait."""
    if len(parent.traceparent) <= _TRACEPARENT_CHARACTERS and len(parent.tracestate) <= _TRACESTATE_CHARACTERS:
        return parent
    if len(parent.traceparent) > _TRACEPARENT_CHARACTERS:
        return TraceParent()
    return TraceParent(traceparent=parent.traceparent)


def is_believed(roles: frozenset[Role]) -> bool:
    """Say whether a caller's span can be the parent of ours; else it is only linked.

    The traces of other callers are not ours to join.
    """
    return Role.PEP in roles


def _trace_state(text: str) -> str:
    # Checked here first, because the SDK logs a malformed header in the process's log.
    if not text or len(text) > _TRACESTATE_CHARACTERS or not _TRACESTATE.fullmatch(text):
        return ""
    return _normal_trace_state(text)


@lru_cache(256)
def _normal_trace_state(text: str) -> str:
    return TraceState.from_header([text]).to_header()
