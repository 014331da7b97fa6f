"""The origin of a request: the caller, and the request's position in the caller's trace."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from dataclasses import dataclass

from pdp.identity.authentication import Metadata
from pdp.model import Caller, Role, TraceParent
from pdp.quickvalues import quickly_made

_TRACE_ID = re.compile(r"[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")

_PARENT_IDS = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?=-|\Z)")

# The caller of a public RPC, or one that has not been identified yet. It has no role.
ANONYMOUS = Caller(id="", kind="public", roles=frozenset(), tenant="")
_NO_TRACE = TraceParent()


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The caller of a request and its trace headers."""

    caller: Caller
    parent: TraceParent

    @property
    def trace(self) -> dict[str, str]:
        """Return the position of an event in the caller's trace, as facts."""
        ids = parent_ids(self.parent)
        # Only a PEP's trace is trusted: another caller that names one may not write into it.
        return {"traceparent" if Role.PEP in self.caller.roles else "tracelink": ids} if ids else {}


def trace_parent(metadata: Metadata) -> TraceParent:
    """Return the trace headers of an RPC. A header that occurs twice is ignored: a trace decides nothing."""
    found = dict(metadata)
    if len(found) < len(metadata):
        times = Counter(name for name, _ in metadata)
        found = {name: value for name, value in metadata if times[name] == 1}
    traceparent, tracestate = found.get("traceparent", ""), found.get("tracestate", "")
    if not isinstance(traceparent, str) or not isinstance(tracestate, str) or not traceparent:
        return _NO_TRACE
    return TraceParent(traceparent=traceparent, tracestate=tracestate)


def trace_id_of(parent: TraceParent) -> str:
    """Return the caller's trace id, or a new one without a trace: for finding the log line."""
    match = _TRACE_ID.fullmatch(parent.traceparent)
    return match[1] if match else secrets.token_hex(16)


def parent_ids(parent: TraceParent) -> str:
    """Return a `traceparent` that consists of ids and flags; empty for anything else.

    For what is written to the record: a caller can put any text into a header.
    """
    match = _PARENT_IDS.match(parent.traceparent)
    return match[0] if match else ""
