"""The traces of others that a call is part of, so that its decision joins them. They never affect a decision."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pdp.model import TraceParent

Carrier: TypeAlias = Mapping[str, Any]

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where a call is in traces: the span above it, and another one that it is part of. Either can be empty."""

    parent: TraceParent = field(default_factory=TraceParent)
    linked: TraceParent = field(default_factory=TraceParent)


_NOWHERE = Placed()


def placed(*carriers: Carrier) -> Placed:
    """Return the place of a call: below the span that the first of these names which names one.

    They are given from the innermost to the outermost: the `_meta` of a message of MCP, the headers around it. What is
    malformed counts as absent. The next one that names another span is linked.
    """
    read = [_read(one.get("traceparent"), one.get("tracestate")) for one in carriers]
    found = [one for one in read if one.traceparent]
    if not found:
        return _NOWHERE
    others = [one for one in found if one.traceparent != found[0].traceparent]
    return Placed(parent=found[0], linked=others[0]) if others else Placed(parent=found[0])


def _read(traceparent: object, tracestate: object) -> TraceParent:
    if not isinstance(traceparent, str) or not _TRACEPARENT.fullmatch(traceparent):
        return TraceParent()
    state = tracestate if isinstance(tracestate, str) and _TRACESTATE.fullmatch(tracestate) else ""
    return TraceParent(traceparent=traceparent, tracestate=state)
