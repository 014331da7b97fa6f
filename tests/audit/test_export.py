"""Exports: lines as they are, tables that no spreadsheet runs, and Parquet with types."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.audit.export import COLUMNS, LISTS, TEXTS, row_of_record, write_csv, write_jsonl, write_parquet
from pdp.audit.values import Filter, Found, Mark
from pdp.foundation.printable import visible
from tests.audit.conftest import Investigated


def found(**fields: Any) -> Found:
    """Return a record with some fields."""
    record = {"kind": "decision", "time": "2026-01-05T10:00:00.000001Z", **fields}
    return Found(mark=Mark(at=0, segment="a", place=0), line=json.dumps(record).encode() + b"\n")


def table(*records: Found) -> list[dict[str, str]]:
    """Return the rows of the CSV of some records."""
    out = io.BytesIO()
    write_csv(records, out)
    return list(csv.DictReader(io.StringIO(out.getvalue().decode("utf-8"), newline="")))


def test_json_lines_are_those_of_the_log(incident: Investigated) -> None:
    """Every line is there, byte for byte, so that its hash still holds."""
    out = io.BytesIO()

    count = write_jsonl(incident.search.all(Filter()), out)

    lines = sorted(
        line for path in incident.folder.glob("*.jsonl") for line in path.read_bytes().splitlines(keepends=True)
    )
    assert len(lines) == count
    assert lines == sorted(out.getvalue().splitlines(keepends=True))


def test_a_table_has_a_row_for_every_record(incident: Investigated) -> None:
    """Each column holds the field of its name, lists as words."""
    rows = table(*incident.search.all(Filter(agent="agent-3")))

    expected = [one for one in incident.records if one.get("agent") == "agent-3"]
    assert expected
    for name in TEXTS:
        assert [str(one.get(name, "")) for one in expected] == [row[name] for row in rows]
    for name in LISTS:
        assert [" ".join(one.get(name, [])) for one in expected] == [row[name] for row in rows]


def test_obligations_are_exported_by_their_ids() -> None:
    """A list of a table holds words; the parameters are in the lines of the record."""
    record = {"time": "t", "obligations": [{"id": "notice", "parameters": {"text": "x"}}, {"id": "ask"}]}

    assert ["notice", "ask"] == row_of_record(record)["obligations"]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "=1+1",
            "+1",
            "-1",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            "\n=1",
            " =1",
            "\u3000=1",
            "\t1",
            "\n1",
            "=cmd|' /C calc'!A0",
        ),
        *("\uff1d1", "\uff0b1", "\uff0d1", "\uff20SUM(A1)", "\ufe661", "\u22121"),
    ],
)
def test_no_cell_is_a_formula(text: str) -> None:
    """What an agent called a tool is shown by a spreadsheet, and never run."""
    (row,) = table(found(tool=text, policies=[text]))

    assert ["'" + visible(text), "'" + visible(text)] == [row["tool"], row["policies"]]


@pytest.mark.parametrize("character", ["\x9b", "\u202e", "\u2066", "\ufeff", "\x1b", "\n", "\u2028", "\ud800"])
def test_no_cell_hides_or_moves_text(character: str) -> None:
    """What an agent wrote neither moves a terminal's cursor nor turns the text beside it."""
    out = io.BytesIO()

    write_csv([found(tool=f"a{character}b")], out)

    header, row = out.getvalue().decode("utf-8").splitlines()
    assert f",a{ascii(character)[1:-1]}b," in row
    assert header.isprintable()
    assert row.isprintable()


@given(st.lists(st.text(), max_size=4))
def test_no_text_breaks_the_table(texts: list[str]) -> None:
    """Whatever stands in a field, it stays in its cell."""
    rows = table(*(found(tool=text) for text in texts))

    assert [visible(text) for text in texts] == [
        row["tool"].removeprefix("'") if text[:1] != "'" else row["tool"] for text, row in zip(texts, rows, strict=True)
    ]


def test_lists_of_an_event_and_arguments_are_json() -> None:
    """What an approval bound, and what an overlay lets into the record, stand whole in their cells."""
    facts = {"grants": ["a", "b,c"], "attributes": {"team": "blue"}, "purpose": "p"}
    event, call = table(found(kind="session.approved", facts=facts), found(arguments={"to": ["x", 1]}))

    assert (facts, "") == (json.loads(event["facts"]), event["arguments"])
    assert ({"to": ["x", 1]}, "") == (json.loads(call["arguments"]), call["facts"])


def test_fields_of_other_types_are_left_out() -> None:
    """A record that somebody wrote by hand spoils no table."""
    (row,) = table(found(tool=7, policies="x", duration_us="fast", session_epoch=True, facts=[], seq=2**70))

    assert {"kind", "time"} == {name for name, value in row.items() if value}


def test_parquet_has_types_and_every_value(incident: Investigated, tmp_path: Path) -> None:
    """A columnar engine reads times as times, lists as lists, numbers as numbers."""
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "out.parquet"
    with path.open("wb") as out:
        count = write_parquet(incident.search.all(Filter(agent="agent-3")), out)

    rows = parquet.read_table(path).to_pylist()

    expected = [one for one in incident.records if one.get("agent") == "agent-3"]
    assert len(expected) == count == len(rows)
    assert list(COLUMNS) == list(rows[0])
    for record, row in zip(expected, rows, strict=True):
        assert datetime.fromisoformat(record["time"]).astimezone(UTC) == row["time"]
        assert [record.get(name, "") for name in TEXTS] == [row[name] for name in TEXTS]
        assert [record.get(name, []) for name in LISTS] == [row[name] for name in LISTS]
        assert (record.get("duration_us"), record["seq"]) == (row["duration_us"], row["seq"])
