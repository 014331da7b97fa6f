"""Write a decision or an event as the fields of a record (`envelope.py` has the form).

Only what is named here is written: no arguments but those that the bundle allows, no handles, no attributes.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii as _text

from pdp.clock import utc_text
from pdp.jsontext import keyed_digest
from pdp.model import Decision
from pdp.observer import Event
from pdp.record.envelope import VERSION, body

_TEXT_CHARACTERS = 512


class Entries:
    """Writes bodies of records. Digests of what must not be guessed are keyed with `key`."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def decision(self, decision: Decision) -> bytes:
        """Return the body of a decision's record."""
        return _decision_body(decision, self._key)

    def event(self, event: Event) -> bytes:
        """Return the body of an event's record."""
        return body(
            {
                "v": VERSION,
                "kind": event.kind,
                "time": utc_text(event.at),
                "caller_id": event.caller_id,
                "session_id": event.session_id,
                "user": event.user,
                "agent": event.agent,
                "tenant": event.tenant,
                "facts": {name: fact[:_TEXT_CHARACTERS] for name, fact in event.facts.items()},
            }
        )


def _decision_body(decision: Decision, key: bytes) -> bytes:
    """Return the body for a decision, written by hand because every decision waits for it."""
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
        f'"time":"{utc_text(decision.decided_at)}","tool":{_text(decision.tool[:_TEXT_CHARACTERS])},'
        f'"tool_call_id":{_text(decision.tool_call_id)},"trace_id":{_text(decision.trace_id)},'
        f'"user":{_text(decision.user)},"v":{VERSION}'
    ).encode("ascii")


def _texts(values: tuple[str, ...]) -> str:
    return "[" + ",".join(map(_text, values)) + "]"
