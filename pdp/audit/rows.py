"""A record's row in the index: the columns that questions are asked about. The rest stays in the log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from enum import IntEnum
from hashlib import sha256
from typing import Any, Final, NamedTuple
from zlib import crc32

from pdp.audit.values import DECISION, logged_values
from pdp.observer import EventKind
from pdp.record.fields import facts_of, resource_of, text_of

# A change of a table, or of how a row is made, needs a new version: an index of another version is built anew.
SCHEMA_VERSION: Final = 3

# Texts that repeat are numbers in `records`: that halves the file. An empty text is NULL.
SCHEMA: Final = """
CREATE TABLE segments (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  inode INTEGER NOT NULL,
  modified INTEGER NOT NULL,
  consumed INTEGER NOT NULL,
  mark INTEGER NOT NULL,
  broken INTEGER NOT NULL
) STRICT;
CREATE TABLE names (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE records (
  id INTEGER PRIMARY KEY,
  segment INTEGER NOT NULL,
  place INTEGER NOT NULL,
  size INTEGER NOT NULL,
  checksum INTEGER NOT NULL,
  at INTEGER NOT NULL,
  deed INTEGER NOT NULL,
  ref TEXT,
  until INTEGER,
  allowed INTEGER,
  kind INTEGER,
  session INTEGER,
  parent INTEGER,
  user INTEGER,
  agent INTEGER,
  caller INTEGER,
  tenant INTEGER,
  server INTEGER,
  tool INTEGER,
  resource_type INTEGER,
  resource INTEGER,
  bundle INTEGER,
  basis INTEGER
) STRICT;
CREATE TABLE arguments (record INTEGER NOT NULL, name INTEGER NOT NULL, value BLOB NOT NULL) STRICT;
"""

# Created after the rows: on a million records that is twice as fast.
INDEXES: Final = """
CREATE INDEX IF NOT EXISTS records_by_time ON records (at);
CREATE INDEX IF NOT EXISTS records_by_ref ON records (ref) WHERE ref IS NOT NULL;
CREATE INDEX IF NOT EXISTS records_by_session ON records (session, at);
CREATE INDEX IF NOT EXISTS records_by_user ON records (user, at);
CREATE INDEX IF NOT EXISTS records_by_agent ON records (agent, at);
CREATE INDEX IF NOT EXISTS records_by_caller ON records (caller, at);
CREATE INDEX IF NOT EXISTS records_by_tool ON records (server, tool, session, allowed, at);
CREATE INDEX IF NOT EXISTS records_by_resource ON records (resource, session, allowed, at);
CREATE INDEX IF NOT EXISTS records_by_bundle ON records (bundle, session, allowed, at);
CREATE INDEX IF NOT EXISTS records_by_deed ON records (session, deed, at, until, parent) WHERE deed > 0;
CREATE INDEX IF NOT EXISTS arguments_by_value ON arguments (name, value, record);
CREATE INDEX IF NOT EXISTS records_by_parent ON records (parent, session) WHERE parent IS NOT NULL;
"""

INSERT: Final = f"INSERT INTO records VALUES ({','.join('?' * 23)})"

NAMED: Final = (
    "kind",
    "session",
    "parent",
    "user",
    "agent",
    "caller",
    "tenant",
    "server",
    "tool",
    "resource_type",
    "resource",
    "bundle",
    "basis",
)


class Deed(IntEnum):
    """What an event does to a session. ENDED and all after it end the session."""

    NONE = 0
    REQUESTED = 1
    APPROVED = 2
    # Approved by the parent's approval, without a person.
    DELEGATED = 3
    NARROWED = 4
    RECAPTURED = 5
    ENDED = 6
    DENIED = 7
    EXPIRED = 8
    REVOKED = 9


_DECODER = json.JSONDecoder()
_DEEDS: Mapping[str, Deed] = {
    EventKind.SESSION_REQUESTED: Deed.REQUESTED,
    EventKind.SESSION_APPROVED: Deed.APPROVED,
    EventKind.SESSION_NARROWED: Deed.NARROWED,
    EventKind.SESSION_RECAPTURED: Deed.RECAPTURED,
    EventKind.SESSION_ENDED: Deed.ENDED,
    EventKind.SESSION_DENIED: Deed.DENIED,
    EventKind.SESSION_EXPIRED: Deed.EXPIRED,
    EventKind.SESSION_REVOKED: Deed.REVOKED,
}


class Row(NamedTuple):
    """The indexed fields of a line: its columns from `size` to `allowed`, its texts in the order of `NAMED`.

    `arguments` are the logged ones, by name and with digests of their values.
    """

    own: tuple[int | str | None, ...]
    texts: tuple[str, ...]
    arguments: tuple[tuple[str, bytes], ...]


def value_digest(text: str) -> bytes:
    """Return 16 bytes of an argument's SHA-256, indexed because its value can be long."""
    return sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def row_of(line: bytes) -> Row | None:
    """Return the row of a line; None if it is no record, as when a full disk cut it."""
    found = _record_of(line)
    if found is None:
        return None
    record, at = found
    kind = text_of(record, "kind")
    deed, parent, until = _session_event(kind, record)
    own = (
        len(line),
        crc32(line),
        at,
        deed,
        encodable(text_of(record, "id") or text_of(facts_of(record), "decision_id")) or None,
        until,
        int(record.get("outcome") == "allow") if kind == DECISION else None,
    )
    texts = (
        kind,
        text_of(record, "session_id"),
        parent,
        text_of(record, "user"),
        text_of(record, "agent"),
        text_of(record, "caller_id"),
        text_of(record, "tenant"),
        text_of(record, "server"),
        text_of(record, "tool"),
        text_of(record, "resource_type"),
        resource_of(record),
        text_of(record, "bundle_version"),
        text_of(record, "basis"),
    )
    logged = logged_values(record) if "arguments" in record else ()
    arguments = {(encodable(name), value_digest(text)) for name, text in logged}
    return Row(own, tuple(map(encodable, texts)), tuple(arguments))


def time_of(line: bytes) -> int | None:
    """Return the time of a line in microseconds since 1970; None if it is no record."""
    found = _record_of(line)
    return found[1] if found else None


def micros_of(text: str) -> int:
    """Return a time of the record in microseconds since 1970. Raise `ValueError` for another text."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return round(moment.timestamp() * 1_000_000)


def encodable(text: str) -> str:
    """Return a text as UTF-8 can hold it: with a `?` for half of a character, which an agent can have written."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _record_of(line: bytes) -> tuple[dict[str, Any], int] | None:
    try:
        record = _DECODER.decode(line.decode("utf-8"))
        return record, micros_of(record["time"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _session_event(kind: str, record: Mapping[str, Any]) -> tuple[Deed, str, int | None]:
    deed = _DEEDS.get(kind, Deed.NONE)
    facts = record.get("facts")
    if deed is Deed.NONE or not isinstance(facts, dict):
        return deed, "", None
    parent = text_of(facts, "parent_id")
    if deed is Deed.APPROVED and parent and text_of(facts, "by") == parent:
        deed = Deed.DELEGATED
    try:
        until = micros_of(facts["expires_at"])
    except (KeyError, ValueError, TypeError):
        # A record from a version that did not record ends.
        until = None
    return deed, parent, until
