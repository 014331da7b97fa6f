"""Remember the highest version of each secret, in a file elsewhere than the store, which cannot go back unnoticed."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from pdp.broker.words import OTHERS_USED
from pdp.foundation.database import Database

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS marks (
  connection_id TEXT PRIMARY KEY, version INTEGER NOT NULL, digest TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""
_RAISE: Final = """
INSERT INTO marks VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET version = excluded.version, digest = excluded.digest
WHERE excluded.version > version
"""


class Mark(NamedTuple):
    """The highest version that a connection's secret had, and the digest of its sealed form; version 0 without one."""

    version: int
    digest: str


class Marks:
    """The highest versions. They outlive their connections, so that a version never comes twice."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA, name="file of versions", danger=OTHERS_USED)

    def of(self, connection_id: str) -> Mark:
        """Return the mark of a connection."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT version, digest FROM marks WHERE connection_id = ?", (connection_id,)).get
        return Mark(*row) if row else Mark(0, "")

    def note(self, connection_id: str, mark: Mark) -> None:
        """Note a version, unless a higher one is noted."""
        with self._database.writing() as connection:
            connection.execute(_RAISE, (connection_id, *mark))

    def close(self) -> None:
        """Close the file."""
        self._database.close()
