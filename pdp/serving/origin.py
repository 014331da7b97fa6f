"""Where a request comes from: the caller, and its place in the caller's trace."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from pdp.identity.authentication import Metadata
from pdp.model import Caller, Role, TraceParent

_TRACE_ID = re.compile(r"[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")

_PARENT_IDS = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?=-|\Z)")

# Whoever calls what is open to everyone, or has not said yet who it is. Has no role.
NOBODY = Caller(id="", kind="public", roles=frozenset(), tenant="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a request comes from."""

    caller: Caller
    parent: TraceParent

    @property
    def trace(self) -> dict[str, str]:
        """Return where an event hangs in the caller's trace, as its facts."""
        ids = parent_ids(self.parent)
        # Only a PEP's trace is believed: whoever else names one may not write into it.
        return {"traceparent" if Role.PEP in self.caller.roles else "tracelink": ids} if ids else {}


def trace_parent(metadata: Metadata) -> TraceParent:
    """Return the trace headers of an RPC. One that stands more than once is ignored: a trace decides nothing."""
    traceparent = _single(metadata, "traceparent")
    return TraceParent(traceparent=traceparent, tracestate=_single(metadata, "tracestate") if traceparent else "")


def trace_id_of(parent: TraceParent) -> str:
    """Return the caller's trace id, or a new one when it has none: to find the log by."""
    match = _TRACE_ID.fullmatch(parent.traceparent)
    return match[1] if match else secrets.token_hex(16)


def parent_ids(parent: TraceParent) -> str:
    """Return a `traceparent` as far as it is made of ids and flags; empty when it is anything else.

    For what is written down: a caller can put any text into a header.
    """
    match = _PARENT_IDS.match(parent.traceparent)
    return match[0] if match else ""


def _single(metadata: Metadata, name: str) -> str:
    values = [value for key, value in metadata if key == name]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else ""
