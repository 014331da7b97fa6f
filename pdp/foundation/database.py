"""Open SQLite files of a program: durable, for their owner alone, and without what was deleted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Final

import apsw

from pdp.errors import StoreUnavailableError, reason_of
from pdp.foundation.files import make_file, make_folder, sync_folder
from pdp.foundation.ownership import require_own
from pdp.foundation.sqlite import ENGINE_ERRORS, committing, require_sound_engine, set_pragmas, unavailable, use_log

_BUSY_SECONDS: Final = 5.0


class Database:
    """One file. Safe for threads and for several processes.

    `name` is what errors call it, and `danger` what others could do who can change it. Raise `StoreUnavailableError`,
    which quotes nothing that is stored, and `ConfigurationError` where others can change the file.
    """

    def __init__(self, path: Path, schema: str, *, name: str, danger: str) -> None:
        require_sound_engine(apsw.sqlite_lib_version())
        self._name, self._path, self._lock = name, path.absolute(), RLock()
        try:
            make_folder(path.parent, sync_folder)
            require_own(path.parent, danger)
            if make_file(path, bytes):
                sync_folder(path.parent)
            require_own(path, danger)
            self._connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
        except OSError as error:
            raise StoreUnavailableError(f"cannot create the {name} `{path}`: {reason_of(error)}") from None
        except ENGINE_ERRORS as error:
            raise unavailable(error, name, self._path) from None
        try:
            self._prepare(schema)
        except BaseException as error:
            self._connection.close(force=True)
            if isinstance(error, ENGINE_ERRORS):
                raise unavailable(error, name, self._path) from None
            raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """Lend the connection."""
        with self._lock:
            try:
                yield self._connection
            except ENGINE_ERRORS as error:
                raise unavailable(error, self._name, self._path) from None

    @contextmanager
    def writing(self) -> Iterator[apsw.Connection]:
        """Lend the connection in a transaction, which is on the disk when the block ends."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            with committing(connection):
                yield connection

    def forget_deleted(self) -> None:
        """Remove what was deleted from the log of the file, too. Raise while another process is reading it."""
        with self.reading() as connection:
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0]
        if busy:
            raise StoreUnavailableError(f"the {self._name} is in use, so its log still has what was deleted: try again")

    def _prepare(self, schema: str) -> None:
        connection = self._connection
        connection.set_busy_timeout(round(_BUSY_SECONDS * 1000))
        use_log(connection, _BUSY_SECONDS)
        # Else a statement whose plan could depend on a parameter is prepared anew whenever its value has changed.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        # Deleted rows are overwritten: SQLite would leave them in free pages.
        set_pragmas(
            connection,
            "synchronous=FULL",
            "foreign_keys=ON",
            "secure_delete=ON",
            "temp_store=MEMORY",
        )
        with self.writing():
            connection.execute(schema)
