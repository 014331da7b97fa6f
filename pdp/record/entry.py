"""Write a decision or an event as the fields of a record (`envelope.py` defines the form).

Only the fields named here are written: of the arguments those that the bundle allows, of the attributes that a gateway
vouched for and of the terms of a session those that the settings name, and no handles. Terms are treated as attributes
are, since they name people too: the targets of a session are addresses and accounts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as _text
from typing import Any, NamedTuple

from pdp.clock import utc_text
from pdp.foundation.jsontext import digest, keyed_digest
from pdp.foundation.quickcaches import WeighedCache
from pdp.limits import MOST_POLICIES
from pdp.model import Caller, Counted, Debited, Decision, Matter, Obligation, Ruling
from pdp.observer import Event
from pdp.record.envelope import VERSION, body, json_text

_TEXT_CHARACTERS = 512
# About 2 KiB each, but they hold text from agents.
_MOST_FORMS, MOST_FORM_BYTES, _FORM_BYTES = 2048, 8 * 1024 * 1024, 1024


class _Form(NamedTuple):
    """The common parts of the records of equal calls: the texts between the parts that differ.

    `matter`, `ruling` and `caller` are kept because the form is found by their identity, and by the stated digest.
    """

    matter: Matter
    ruling: Ruling
    caller: Caller
    to_duration: str
    to_id: str
    to_request_id: str
    to_span_id: str
    to_time: str
    to_tool_call_id: str
    to_trace_id: str
    to_end: str


class Entries:
    """Writes bodies of records. Digests of values that must not be guessed are keyed with `key`. Safe for threads.

    `attributes` and `terms` name those whose values are shown; for any other a digest is written.
    Every decision waits for its record. The common parts of equal calls are written once and kept: what a remembered
    decision is about and its ruling are the same objects each time.
    """

    def __init__(
        self, key: bytes, attributes: frozenset[str] = frozenset(), terms: frozenset[str] = frozenset()
    ) -> None:
        self._key = key
        self._attributes = attributes
        self._terms = terms
        self._forms: WeighedCache[tuple[int, int, int, str], _Form] = WeighedCache(_MOST_FORMS, MOST_FORM_BYTES)
        self._second = (0, "1970-01-01T00:00:00")

    def decision(self, decision: Decision) -> bytes:
        """Return the body of a decision's record."""
        form = self._form(decision)
        return (
            f"{form.to_duration}{decision.duration_us:.1f}{form.to_id}{_text(decision.id)}{form.to_request_id}"
            f"{_text(decision.request_id)}{form.to_span_id}{_text(decision.span_id)}{form.to_time}"
            f"{self._time(decision.decided_at)}{form.to_tool_call_id}{_text(decision.tool_call_id)}"
            f"{form.to_trace_id}{_text(decision.trace_id)}{form.to_end}"
        ).encode("ascii")

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
                "facts": {
                    **event.facts,
                    **event.lists,
                    **self._values("attribute", event.attributes, self._attributes),
                    **self._values("term", event.terms, self._terms),
                },
            }
        )

    def _values(self, what: str, values: Mapping[str, object], shown: frozenset[str]) -> dict[str, object]:
        """Return named values as facts: those that may be shown, and keyed digests of the others."""
        digests = {
            name: keyed_digest(self._key, json_text(value)) for name, value in values.items() if name not in shown
        }
        found = {f"{what}s": {name: values[name] for name in values if name in shown}, f"{what}_digests": digests}
        return {name: those for name, those in found.items() if those}

    def _form(self, decision: Decision) -> _Form:
        matter, ruling, caller = decision.matter, decision.ruling, decision.caller
        written_once = decision.labels_added or decision.debits or decision.access_request_id
        if written_once or not decision.recurs:
            return _form_of(decision, self._key)
        key = (id(matter), id(ruling), id(caller), decision.definition_digest)
        form = self._forms.get(key)
        if form is None:
            form = _form_of(decision, self._key)
            # Matter and ruling are kept with their form, and hold much of the same text.
            self._forms.keep(key, form, _FORM_BYTES + 2 * sum(map(len, form[3:])))
        return form

    def _time(self, at: float) -> str:
        microseconds = round(at * 1_000_000)
        second, text = self._second
        if microseconds // 1_000_000 != second:
            second, text = microseconds // 1_000_000, utc_text(at)[:19]
            self._second = (second, text)
        return f"{text}.{microseconds - second * 1_000_000:06d}Z"


def _form_of(decision: Decision, key: bytes) -> _Form:
    matter, ruling, caller = decision.matter, decision.ruling, decision.caller
    if ruling.log_resource or not ruling.resource_id:
        resource = f'"resource_id":{_text(ruling.resource_id)}'
    else:
        resource = f'"resource_digest":{_text(keyed_digest(key, ruling.resource_id))}'
    ancestor_basis = ruling.ancestor_basis.value if ruling.ancestor_basis else ""
    counts, done = _counted("", ruling.counted)
    above = "".join(_counted("ancestor_", ruling.ancestor_counted))
    targets = links = ""
    if ruling.targets is not None:
        targets = f'"targets":{_texts(ruling.targets.provenance)},'
        links = f'"links":{_texts(ruling.targets.links)},' if ruling.targets.links else ""
    return _Form(
        matter=matter,
        ruling=ruling,
        caller=caller,
        to_duration=(
            f'{{{_access(decision.access_request_id)}"agent":{_text(matter.agent)},"ancestor_basis":"{ancestor_basis}",'
            f'{above}"ancestor_id":{_text(ruling.ancestor_id)},"ancestors":{_texts(matter.ancestor_ids)},'
            f"{_arguments(ruling.logged_arguments)}"
            f'"arguments_digest":{_text(keyed_digest(key, matter.arguments_digest))},"basis":"{ruling.basis.value}",'
            f'"bundle_version":{_text(matter.bundle_version)},"cache":"{decision.cache_result.value}",'
            f'"caller_id":{_text(caller.id)},"caller_kind":{_text(caller.kind)},'
            f'"catalogue_digest":{_text(matter.catalogue_digest)},{counts}{_debits(decision.debits)}'
            f'"definition_digest":{_text(decision.definition_digest)},"detail":{_text(ruling.detail)},{done}"duration_us":'
        ),
        to_id=f',"environment":{_text(matter.environment)},{_bounded("errors", ruling.errors)},"id":',
        to_request_id=(
            f',"kind":"decision",{_labels(decision.labels_added)}{links}"obligations":{_obligations(ruling.obligations)},'
            f'"opened_by":{_text(matter.opened_by)},'
            f'"outcome":"{ruling.outcome.value}",{_bounded("policies", ruling.policies)},'
            f'{_lifted(ruling.policies_lifted)}"request_id":'
        ),
        to_span_id=(
            f',{resource},"resource_type":{_text(ruling.resource_type)},'
            f'"server":{_text(matter.server[:_TEXT_CHARACTERS])},"session_epoch":{matter.session_epoch},'
            f'"session_id":{_text(matter.session_id)},"span_id":'
        ),
        to_time=f',{targets}"tenant":{_text(matter.tenant)},"time":"',
        to_tool_call_id=f'","tool":{_text(matter.tool[:_TEXT_CHARACTERS])},"tool_call_id":',
        to_trace_id=',"trace_id":',
        to_end=f',"user":{_text(matter.user)},"v":{VERSION}',
    )


def _arguments(logged: tuple[tuple[str, str], ...]) -> str:
    # The values are JSON already, of printable ASCII.
    return f'"arguments":{{{",".join(f"{_text(name)}:{text}" for name, text in logged)}}},' if logged else ""


def _labels(added: tuple[str, ...]) -> str:
    return f'"labels_added":{_texts(added)},' if added else ""


def _access(request_id: str) -> str:
    return f'"access_request_id":{_text(request_id)},' if request_id else ""


def _lifted(policies: tuple[str, ...]) -> str:
    return f'"policies_lifted":{_texts(policies)},' if policies else ""


def _debits(taken: Debited) -> str:
    return f'"debits":{json_text(dict(taken))},' if taken else ""


def _counted(whose: str, seen: Counted | None) -> tuple[str, str]:
    """Return the counts that policies saw, and the names that they saw as done, as fields; of very many only some."""
    if seen is None:
        return "", ""
    first, more = dict(seen.counts[:MOST_POLICIES]), len(seen.counts) - MOST_POLICIES
    left_out = f'"{whose}counts_left_out":{more},' if more > 0 else ""
    counts = f'"{whose}counts":{json_text(first)},{left_out}' if first else ""
    return counts, f"{_bounded(f'{whose}done', seen.done)}," if seen.done else ""


def _obligations(asked: tuple[Obligation, ...]) -> str:
    return "[" + ",".join(json_text(obligation_fields(one)) for one in asked) + "]" if asked else "[]"


def obligation_fields(one: Obligation) -> dict[str, Any]:
    """Return an obligation as a record holds it: of long parameters, which the bundle holds, a digest."""
    if len(one.parameters_json) > _TEXT_CHARACTERS:
        return {"id": one.id, "parameters_digest": digest(one.parameters_json.encode("utf-8"))}
    return {"id": one.id, "parameters": json.loads(one.parameters_json)}


def _bounded(name: str, ids: tuple[str, ...]) -> str:
    more = len(ids) - MOST_POLICIES
    return f'"{name}":{_texts(ids[:MOST_POLICIES])}' + (f',"{name}_left_out":{more}' if more > 0 else "")


def _texts(values: tuple[str, ...]) -> str:
    return "[" + ",".join(map(_text, values)) + "]"
