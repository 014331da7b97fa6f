"""What all files of SQLite share: a sound engine, transactions, and errors that quote nothing that is stored."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw

from pdp.errors import StoreUnavailableError

# Before this version, several writing connections could corrupt a WAL database (SQLite 3.51.3 release notes).
_SOUND_ENGINE: Final = (3, 51, 3)

# How often a file is tried that another one begins with.
_POLL_SECONDS: Final = 0.01

# What the engine raises, and what its binding raises for text from a damaged file.
ENGINE_ERRORS: Final = (apsw.Error, UnicodeError)


def require_sound_engine(version: str) -> None:
    """Raise `StoreUnavailableError` when this version of SQLite can corrupt a store."""
    if tuple(int(part) for part in version.split(".")) < _SOUND_ENGINE:
        wanted = ".".join(str(part) for part in _SOUND_ENGINE)
        raise StoreUnavailableError(f"SQLite `{version}` can corrupt a store: {wanted} or later is needed")


def set_pragmas(connection: apsw.Connection, *pragmas: str) -> None:
    """Set each pragma, such as `synchronous=FULL`.

    One at a time: of several statements the engine runs none behind the first that returns a row, until that is read.
    """
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}").fetchall()


def use_log(connection: apsw.Connection, busy_seconds: float) -> None:
    """Keep a log beside the file, from which others read during a write, and wait for those who begin with it, too.

    The engine does not wait for them itself. Raise `apsw.BusyError` when `busy_seconds` were not enough.
    """
    give_up_at = time.monotonic() + busy_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
        except apsw.BusyError:
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(_POLL_SECONDS)
        else:
            return


@contextmanager
def committing(connection: apsw.Connection) -> Iterator[None]:
    """Commit a transaction that was begun, or roll it back when the block raises."""
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # After some failures the engine has already rolled back.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def unavailable(
    error: Exception, store: str = "session store", path: Path | None = None, *, remedy: str = ""
) -> StoreUnavailableError:
    """Return the error to raise for an engine error, without its message, which can hold values.

    Only people can mend a file that is damaged or cannot be opened: the error names its `path`, and of a damaged one
    the `remedy`.
    """
    if path is not None and isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return StoreUnavailableError(f"the {store} is damaged: `{path}`" + (f"; {remedy}" if remedy else ""))
    if path is not None and isinstance(error, apsw.CantOpenError):
        return StoreUnavailableError(f"the {store} cannot be opened: `{path}`")
    if isinstance(error, UnicodeError):
        return StoreUnavailableError(f"the {store} does not answer: it holds text that is not UTF-8")
    # Errors of the binding itself, such as the use of a closed connection, have no SQLite code.
    code = apsw.mapping_result_codes.get(getattr(error, "result", -1), "closed")
    return StoreUnavailableError(f"the {store} does not answer: `{code}`")
