"""Write a decision or an event as one line of JSON.

Keys are sorted and everything outside printable ASCII is escaped, so that a line is a line whatever an agent wrote.
Only what is named here is written: no arguments, no handles, no attributes.
"""

from __future__ import annotations

import json
import time
from typing import Any

from pdp.jsontext import keyed_digest
from pdp.model import Decision
from pdp.observer import Event

VERSION = 1

_TEXT_CHARACTERS = 512
# Nothing here refers to itself; sorted keys make equal entries equal lines.
_JSON = json.JSONEncoder(separators=(",", ":"), sort_keys=True, check_circular=False, allow_nan=False)


def decision_line(decision: Decision, key: bytes) -> bytes:
    """Return the line for a decision. Digests of what must not be guessed are keyed with `key`."""
    ruling = decision.ruling
    entry = {
        "v": VERSION,
        "kind": "decision",
        "id": decision.id,
        "time": _time(decision.decided_at),
        "outcome": ruling.outcome.value,
        "basis": ruling.basis.value,
        "policies": ruling.policies,
        "errors": ruling.errors,
        "detail": ruling.detail,
        "ancestor_id": ruling.ancestor_id,
        "ancestor_basis": ruling.ancestor_basis.value if ruling.ancestor_basis else "",
        "obligations": [],
        "session_id": decision.session_id,
        "session_epoch": decision.session_epoch,
        "ancestors": decision.ancestor_ids,
        "user": decision.user,
        "agent": decision.agent,
        "tenant": decision.tenant,
        "environment": decision.environment,
        "opened_by": decision.opened_by,
        "caller_id": decision.caller.id,
        "caller_kind": decision.caller.kind,
        "server": decision.server[:_TEXT_CHARACTERS],
        "tool": decision.tool[:_TEXT_CHARACTERS],
        "definition_digest": decision.definition_digest,
        "arguments_digest": keyed_digest(key, decision.arguments_digest),
        "resource_type": ruling.resource_type,
        "bundle_version": decision.bundle_version,
        "cache": decision.cache_result.value,
        "duration_us": round(decision.duration_us, 1),
        "request_id": decision.request_id,
        "tool_call_id": decision.tool_call_id,
        "trace_id": decision.trace_id,
        "span_id": decision.span_id,
    }
    if ruling.log_resource or not ruling.resource_id:
        entry["resource_id"] = ruling.resource_id
    else:
        entry["resource_digest"] = keyed_digest(key, ruling.resource_id)
    return _line(entry)


def event_line(event: Event) -> bytes:
    """Return the line for an event."""
    return _line(
        {
            "v": VERSION,
            "kind": event.kind,
            "time": _time(event.at),
            "caller_id": event.caller_id,
            "session_id": event.session_id,
            "user": event.user,
            "agent": event.agent,
            "tenant": event.tenant,
            "facts": {name: fact[:_TEXT_CHARACTERS] for name, fact in event.facts.items()},
        }
    )


def _line(entry: dict[str, Any]) -> bytes:
    return _JSON.encode(entry).encode("ascii") + b"\n"


def _time(at: float) -> str:
    """Write unix seconds by RFC 3339, in UTC with microseconds."""
    seconds, microseconds = divmod(round(at * 1_000_000), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{microseconds:06d}Z"
