"""The settings of an SQLite file take effect, all of them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw

from pdp.foundation.database import Database
from pdp.foundation.sqlite import set_pragmas


def test_each_pragma_is_set(tmp_path: Path) -> None:
    """Also those behind one that returns a row, as `journal_mode` does."""
    with closing(apsw.Connection(str(tmp_path / "file"))) as connection:
        set_pragmas(connection, "journal_mode=WAL", "synchronous=OFF", "cache_size=-4711")

        assert ["wal", 0, -4711] == [
            connection.execute(f"PRAGMA {name}").get for name in ("journal_mode", "synchronous", "cache_size")
        ]


def test_a_statement_is_prepared_once(tmp_path: Path) -> None:
    """And not anew for each value of a parameter that a plan could depend on."""
    schema = "CREATE TABLE one (id TEXT PRIMARY KEY) STRICT; CREATE TABLE two (id TEXT PRIMARY KEY) STRICT"
    database = Database(tmp_path / "file", schema, name="file", danger="")
    prepared: list[int] = []
    with closing(database), database.reading() as connection:

        def noted(operation: int, *_: str | None) -> int:
            prepared.append(operation)
            return apsw.SQLITE_OK

        connection.authorizer = noted
        for value in ("first", "second"):
            prepared.clear()
            joined = "SELECT one.id FROM one LEFT JOIN two ON two.id = one.id WHERE one.id = ?"
            connection.execute(joined, (value,)).fetchall()

    assert prepared == []
