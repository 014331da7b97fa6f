"""The index's file: created, opened, and created anew when it is not an index, is damaged, or of another version."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from pdp.audit.rows import SCHEMA, SCHEMA_VERSION
from pdp.foundation.files import open_private
from pdp.foundation.sqlite import set_pragmas

_BUSY_MILLISECONDS = 10_000
_CACHE_KIBIBYTES = 24 * 1024


def open_index(file: Path) -> apsw.Connection:
    """Open the index for reading and writing; create it anew when it cannot be used.

    Raise `apsw.Error` and `OSError`.
    """
    try:
        return _connected(file)
    except (apsw.NotADBError, apsw.CorruptError, _OtherVersionError):
        remove_index(file)
        return _connected(file)


def remove_index(file: Path) -> None:
    """Remove the index, which the next question creates anew."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)


class _OtherVersionError(Exception):
    """The index was made by another version: build it anew."""


def _connected(file: Path) -> apsw.Connection:
    # The file says who did what and when: only its owner may read it.
    os.close(open_private(file))
    connection = apsw.Connection(str(file.absolute()))
    try:
        connection.set_busy_timeout(_BUSY_MILLISECONDS)
        set_pragmas(connection, "journal_mode=WAL", "synchronous=NORMAL", f"cache_size=-{_CACHE_KIBIBYTES}")
        if connection.execute("PRAGMA user_version").get != SCHEMA_VERSION:
            _create(connection)
    except BaseException:
        connection.close(force=True)
        raise
    return connection


def _create(connection: apsw.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    # Another process may have created it first.
    if connection.execute("PRAGMA user_version").get != SCHEMA_VERSION:
        if connection.execute("SELECT count(*) FROM sqlite_schema").get:
            raise _OtherVersionError
        connection.execute(f"{SCHEMA} PRAGMA user_version={SCHEMA_VERSION}")
    connection.execute("COMMIT")
