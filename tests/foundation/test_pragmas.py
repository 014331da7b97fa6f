"""The settings of an SQLite file take effect, all of them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw

from pdp.foundation.sqlite import set_pragmas


def test_each_pragma_is_set(tmp_path: Path) -> None:
    """Also those behind one that returns a row, as `journal_mode` does."""
    with closing(apsw.Connection(str(tmp_path / "file"))) as connection:
        set_pragmas(connection, "journal_mode=WAL", "synchronous=OFF", "cache_size=-4711")

        assert ["wal", 0, -4711] == [
            connection.execute(f"PRAGMA {name}").get for name in ("journal_mode", "synchronous", "cache_size")
        ]
