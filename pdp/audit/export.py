"""Write records for other tools: JSON lines as they are, CSV for spreadsheets, Parquet for columnar engines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import IO, Any, Final
from unicodedata import normalize

from pdp.audit.rows import encodable
from pdp.audit.values import Found
from pdp.foundation.printable import visible

# One row for every record; a column that its kind does not have is empty. Lists hold texts.
TEXTS: Final = (
    "kind",
    "id",
    "session_id",
    "user",
    "agent",
    "caller_id",
    "caller_kind",
    "tenant",
    "environment",
    "opened_by",
    "server",
    "tool",
    "outcome",
    "basis",
    "detail",
    "resource_type",
    "resource_id",
    "resource_digest",
    "arguments_digest",
    "definition_digest",
    "catalogue_digest",
    "bundle_version",
    "cache",
    "ancestor_id",
    "ancestor_basis",
    "request_id",
    "tool_call_id",
    "trace_id",
    "span_id",
    "chain",
    "prev",
)
# These are written as JSON.
OBJECTS: Final = ("arguments", "facts")
LISTS: Final = ("policies", "errors", "obligations", "ancestors")
COLUMNS: Final = ("time", *TEXTS, *LISTS, "session_epoch", "seq", "duration_us", *OBJECTS)

# A spreadsheet runs a cell that begins like this as a formula; some spreadsheets also after blanks.
_FORMULA: Final = frozenset("=+-@\N{MINUS SIGN}")
_BLANKS: Final = ("\t", "\r", "\n")
_ROW_GROUP = 50_000
_LARGEST = 1 << 63


def write_jsonl(records: Iterable[Found], out: IO[bytes]) -> int:
    """Write the lines as they are in the log; return how many."""
    count = 0
    for count, found in enumerate(records, start=1):  # noqa: B007 - counts what it writes
        out.write(found.line)
    return count


def write_csv(records: Iterable[Found], out: IO[bytes]) -> int:
    """Write a table with one line per record; return how many.

    A text that a spreadsheet would run as a formula gets an apostrophe before it. Characters that hide or move
    other text are escaped as in Python: JSON lines and Parquet have the exact text.
    """
    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    count = 0
    for count, found in enumerate(records, start=1):  # noqa: B007 - counts what it writes
        row = row_of_record(found.record())
        writer.writerow([_cell(row[column]) for column in COLUMNS])
    text.detach()
    return count


def write_parquet(records: Iterable[Found], out: IO[bytes]) -> int:
    """Write a Parquet file; return how many records it holds.

    Raise `ImportError` when the library for it is not installed.
    """
    import pyarrow as pa  # noqa: PLC0415 - an extra
    from pyarrow import parquet  # noqa: PLC0415 - an extra

    text, texts = pa.string(), pa.list_(pa.string())
    schema = pa.schema(
        [
            ("time", pa.timestamp("us", tz="UTC")),
            *((name, text) for name in TEXTS),
            *((name, texts) for name in LISTS),
            ("session_epoch", pa.int64()),
            ("seq", pa.int64()),
            ("duration_us", pa.float64()),
            *((name, text) for name in OBJECTS),
        ]
    )
    count = 0
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for rows in _batches(row_of_record(found.record()) for found in records):
            for row in rows:
                row["time"] = datetime.fromisoformat(row["time"])
                row |= {name: encodable(row[name]) for name in TEXTS}
                row |= {name: [encodable(one) for one in row[name]] for name in LISTS}
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


WRITERS: Final[Mapping[str, Callable[[Iterable[Found], IO[bytes]], int]]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "parquet": write_parquet,
}


def row_of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as one row of `COLUMNS`; values of another type are left out."""
    row: dict[str, Any] = {"time": record["time"]}
    row |= {name: value if isinstance(value := record.get(name), str) else "" for name in TEXTS}
    for name in LISTS:
        value = record.get(name)
        row[name] = [str(_id_of(one)) for one in value] if isinstance(value, list) else []
    row["session_epoch"] = _number(record.get("session_epoch"), int)
    row["seq"] = _number(record.get("seq"), int)
    row["duration_us"] = _number(record.get("duration_us"), (int, float))
    for name in OBJECTS:
        value = record.get(name)
        row[name] = json.dumps(value, sort_keys=True) if isinstance(value, dict) else ""
    return row


def _id_of(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return the id of an object such as an obligation; any other value is itself."""
    return value.get("id", "") if isinstance(value, dict) else value


def _number(value: Any, kinds: Any) -> Any:  # noqa: ANN401 - a number, or nothing
    fits = isinstance(value, kinds) and not isinstance(value, bool) and abs(value) < _LARGEST
    return value if fits else None


def _cell(value: Any) -> str:  # noqa: ANN401 - whatever a row holds
    if value is None:
        return ""
    text = " ".join(value) if isinstance(value, list) else str(value)
    return f"'{visible(text)}" if _is_formula(text) else visible(text)


def _is_formula(text: str) -> bool:
    # NFKC: spreadsheets treat a full-width or small sign like the plain one.
    return text.startswith(_BLANKS) or normalize("NFKC", text.lstrip()[:1]) in _FORMULA


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, _ROW_GROUP)):
        yield batch
