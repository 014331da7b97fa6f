"""Records as entries for people: the event in a word, what it was about, and every field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pdp.audit.rows import micros_of
from pdp.audit.values import DECISION
from pdp.record.fields import facts_of, resource_of, text_of
from pdp.v1.audit_pb2 import AuditRecord

Record = Mapping[str, Any]

# What the head of an entry shows, and an order for the rest.
_FIRST = ("kind", "time", "outcome", "basis", "detail", "errors", "user", "agent", "caller_id")
_APART = frozenset({"id", "session_id", "policies", "trace_id", "facts"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryTime:
    """When it happened, as times of the API are."""

    seconds: int
    nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One record. `fields` are all the others that are not empty, by name, as texts."""

    time: EntryTime
    event: str
    subject: str
    reason: str
    user: str
    agent: str
    session_id: str
    decision_id: str
    trace_id: str
    bundle_version: str
    policies: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]


def entry_of(found: AuditRecord) -> Entry:
    """Return a record as an entry."""
    record = json.loads(found.record_json)
    seconds, micros = divmod(micros_of(record["time"]), 1_000_000)
    decided = record.get("kind") == DECISION
    return Entry(
        time=EntryTime(seconds=seconds, nanos=micros * 1000),
        event=text_of(record, "outcome") if decided else text_of(record, "kind").removeprefix("session."),
        subject=_call(record) if decided else _deed(record),
        reason=_reason(record) if decided else _why(record),
        user=text_of(record, "user"),
        agent=text_of(record, "agent"),
        session_id=text_of(record, "session_id"),
        decision_id=text_of(record, "id") if decided else "",
        trace_id=text_of(record, "trace_id"),
        bundle_version=text_of(record, "bundle_version") or text_of(facts_of(record), "bundle_version"),
        policies=tuple(map(str, _list(record, "policies") or _list(facts_of(record), "policies"))),
        fields=tuple(_fields(record)),
    )


def _call(record: Record) -> str:
    tool = f"{text_of(record, 'server')}/{text_of(record, 'tool')}"
    name = resource_of(record)
    return f"{tool} on {text_of(record, 'resource_type')}::{name}" if name else tool


def _deed(record: Record) -> str:
    caller = text_of(record, "caller_id")
    return " ".join(filter(None, (text_of(facts_of(record), "action"), f"by {caller}" if caller else "")))


def _reason(record: Record) -> str:
    detail = text_of(record, "detail")
    return text_of(record, "basis") + (f": {detail}" if detail else "")


def _why(record: Record) -> str:
    facts = facts_of(record)
    decided = " ".join(filter(None, (text_of(facts, "outcome"), text_of(facts, "basis"))))
    return decided or text_of(facts, "reason") or text_of(facts, "purpose")


def _fields(record: Record) -> Iterator[tuple[str, str]]:
    rest = sorted(set(record) - set(_FIRST) - _APART)
    yield from ((name, shown) for name in (*_FIRST, *rest) if (shown := _shown(record.get(name))))
    yield from (
        (f"facts.{name}", shown) for name, value in sorted(facts_of(record).items()) if (shown := _shown(value))
    )


def _shown(value: object) -> str:
    if value in (None, "", [], {}):
        return ""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return " ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _list(record: Record, name: str) -> list[Any]:
    value = record.get(name)
    return value if isinstance(value, list) else []
