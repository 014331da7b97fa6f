"""Write a decision or an event as one line of JSON.

Keys are sorted and everything outside printable ASCII is escaped, so that a line is a line whatever an agent wrote.
Only what is named here is written: no arguments, no handles, no attributes.
"""

from __future__ import annotations

import json
import time
from json.encoder import encode_basestring_ascii as _text
from typing import Any

from pdp.jsontext import keyed_digest
from pdp.model import Decision
from pdp.observer import Event

VERSION = 1

_TEXT_CHARACTERS = 512
# Nothing here refers to itself; sorted keys make equal entries equal lines.
_JSON = json.JSONEncoder(separators=(",", ":"), sort_keys=True, check_circular=False, allow_nan=False)


def decision_line(decision: Decision, key: bytes) -> bytes:
    """Return the line for a decision. Digests of what must not be guessed are keyed with `key`.

    Every decision waits for its line, so it is written by hand: an encoder takes twice as long.
    """
    ruling, caller = decision.ruling, decision.caller
    if ruling.log_resource or not ruling.resource_id:
        resource = f'"resource_id":{_text(ruling.resource_id)}'
    else:
        resource = f'"resource_digest":{_text(keyed_digest(key, ruling.resource_id))}'
    ancestor_basis = ruling.ancestor_basis.value if ruling.ancestor_basis else ""
    return (
        f'{{"agent":{_text(decision.agent)},"ancestor_basis":"{ancestor_basis}",'
        f'"ancestor_id":{_text(ruling.ancestor_id)},"ancestors":{_texts(decision.ancestor_ids)},'
        f'"arguments_digest":{_text(keyed_digest(key, decision.arguments_digest))},"basis":"{ruling.basis.value}",'
        f'"bundle_version":{_text(decision.bundle_version)},"cache":"{decision.cache_result.value}",'
        f'"caller_id":{_text(caller.id)},"caller_kind":{_text(caller.kind)},'
        f'"definition_digest":{_text(decision.definition_digest)},"detail":{_text(ruling.detail)},'
        f'"duration_us":{round(decision.duration_us, 1)},"environment":{_text(decision.environment)},'
        f'"errors":{_texts(ruling.errors)},"id":{_text(decision.id)},"kind":"decision","obligations":[],'
        f'"opened_by":{_text(decision.opened_by)},"outcome":"{ruling.outcome.value}",'
        f'"policies":{_texts(ruling.policies)},"request_id":{_text(decision.request_id)},{resource},'
        f'"resource_type":{_text(ruling.resource_type)},"server":{_text(decision.server[:_TEXT_CHARACTERS])},'
        f'"session_epoch":{decision.session_epoch},"session_id":{_text(decision.session_id)},'
        f'"span_id":{_text(decision.span_id)},"tenant":{_text(decision.tenant)},'
        f'"time":"{_time(decision.decided_at)}","tool":{_text(decision.tool[:_TEXT_CHARACTERS])},'
        f'"tool_call_id":{_text(decision.tool_call_id)},"trace_id":{_text(decision.trace_id)},'
        f'"user":{_text(decision.user)},"v":{VERSION}}}\n'
    ).encode("ascii")


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


def _texts(values: tuple[str, ...]) -> str:
    return "[" + ",".join(map(_text, values)) + "]"


def _line(entry: dict[str, Any]) -> bytes:
    return _JSON.encode(entry).encode("ascii") + b"\n"


def _time(at: float) -> str:
    """Write unix seconds by RFC 3339, in UTC with microseconds."""
    seconds, microseconds = divmod(round(at * 1_000_000), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{microseconds:06d}Z"
