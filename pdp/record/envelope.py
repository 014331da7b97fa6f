"""The form of a record: its fields in canonical JSON, then its position in the chain.

    {"agent":"coder", … ,"v":1,"chain":"0f3a9c51d2e7","seq":17,"prev":"<64 hex digits>"}

The fields are sorted by name, without spaces, and everything outside printable ASCII is escaped, so that a record is
one line whatever an agent wrote. `chain`, `seq` and `prev` come last, in this order, because they are known only when
the line is written. `prev` is the SHA-256 of the previous line without its newline, zeros for the first of a chain.
"""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import Any, NamedTuple

from pdp.clock import utc_text

VERSION = 1
NOTHING_BEFORE = "0" * 64

# The kinds of records that the log writes about itself, beside decisions and events.
CHECKPOINT = "checkpoint"
OPENED = "segment.opened"
# The field of a checkpoint for the revision of the session store.
STORE_REVISION = "store_revision"

_PLACE = re.compile(rb',"chain":"([0-9a-f]{12})","seq":([1-9][0-9]{0,18}),"prev":"([0-9a-f]{64})"\}\Z')
_PLACE_CHARACTERS = 160
# The values hold no cycles; sorted keys make equal entries equal lines.
_JSON = json.JSONEncoder(separators=(",", ":"), sort_keys=True, check_circular=False, allow_nan=False)


class Place(NamedTuple):
    """The position of a record: its chain, its number in the chain (from 1), and the hash of the previous record."""

    chain: str
    seq: int
    prev: str


def json_text(value: object) -> str:
    """Write a JSON value in the form of the record: sorted, without spaces, in printable ASCII."""
    return _JSON.encode(value)


def body(fields: dict[str, Any]) -> bytes:
    """Write the fields of a record, without the closing brace, so that its position can follow."""
    return _JSON.encode(fields)[:-1].encode("ascii")


def placed(body: bytes, place: Place) -> bytes:
    """Add the position to a body: a whole line without its newline."""
    return b'%b,"chain":"%b","seq":%d,"prev":"%b"}' % (body, place.chain.encode(), place.seq, place.prev.encode())


def place_of(line: bytes) -> Place | None:
    """Return the position at the end of a line without its newline; None when there is none."""
    match = _PLACE.search(line[-_PLACE_CHARACTERS:])
    return Place(match[1].decode(), int(match[2]), match[3].decode()) if match else None


def body_of(line: bytes) -> bytes:
    """Return a line as it was before it was placed; as it is when it has no position."""
    start = max(len(line) - _PLACE_CHARACTERS, 0)
    match = _PLACE.search(line, start)
    return line[: match.start()] if match else line


def hash_of(line: bytes) -> str:
    """Return the hash of a line without its newline, as in the next record's `prev`."""
    return sha256(line).hexdigest()


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None when it is not a whole JSON object. Unknown fields are kept."""
    try:
        record = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _refuse(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


def canonical(record: dict[str, Any]) -> bytes:
    """Write a parsed record as its line, without its newline. Raise `KeyError` when it has no position."""
    fields = {name: value for name, value in record.items() if name not in Place._fields}
    return placed(body(fields), Place(record["chain"], record["seq"], record["prev"]))


def own_body(kind: str, at: float, **fields: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Write a record of the log about itself; `at` is unix seconds."""
    return body({"kind": kind, "time": utc_text(at), "v": VERSION, **fields})
