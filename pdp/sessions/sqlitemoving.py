"""A session store in SQLite files as the source or the target of a move."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

import apsw

from pdp.errors import StoreUnavailableError, reason_of
from pdp.foundation.files import draft_of, make_folder, sync_folder
from pdp.foundation.sqlite import committing, set_pragmas
from pdp.sessions.care import inspect, require_sound
from pdp.sessions.changesignal import forget_acknowledged, last_acknowledged, unused
from pdp.sessions.database import Database, answering, signal_path
from pdp.sessions.moving import META, MOVING, Content, Half, Mark, Row, StoreState, Table
from pdp.sessions.movingrows import BATCH, fill, forget_mark, put_aside, put_back, read_mark
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.sqlitehistory import SQLiteSessionHistory

_BUSY_SECONDS: Final = 10.0


class SQLiteSide:
    """The store in two files, as `StoreSide`. It must have all changes up to `known_revision`."""

    def __init__(self, sessions: Path, history: Path, *, known_revision: int = 0) -> None:
        self._sessions, self._history = sessions.absolute(), history.absolute()
        self._known_revision = known_revision

    @property
    def name(self) -> str:
        """Return the path of its sessions."""
        return str(self._sessions)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep servers away during the `with` block."""
        with ExitStack() as held:
            try:
                make_folder(self._sessions.parent, sync_folder)
                held.enter_context(unused(signal_path(self._sessions)))
            except BlockingIOError:
                raise StoreUnavailableError(f"a server uses the session store: `{self.name}`; stop it first") from None
            except OSError as error:
                raise StoreUnavailableError(f"cannot use the folder of `{self.name}`: {reason_of(error)}") from None
            yield

    def state(self) -> StoreState:
        """Return whether servers can start on it."""
        if not self._sessions.exists():
            return StoreState()
        with answering(), closing(_open(self._sessions)) as connection:
            names = _names(connection)
            return StoreState(META in names, read_mark(connection) if MOVING in names else None)

    @contextmanager
    def reading(self) -> Iterator[Content]:
        """Give what it holds, while servers may go on."""
        with ExitStack() as opened, answering():
            there = {half: path for half, path in self._files().items() if path.exists()}
            connections = {half: opened.enter_context(closing(_open(path))) for half, path in there.items()}
            for connection in connections.values():
                connection.execute("BEGIN")
            yield _Files(connections)

    @contextmanager
    def leaving(self, mark: Mark) -> Iterator[Content]:
        """Give what it holds, and set it aside at the end of the `with` block."""
        require_sound(inspect(self._sessions), self._sessions)
        # The files of an earlier program become as they are now.
        SQLiteSessionHistory(self._history).close()
        database = Database(self._sessions, busy_seconds=_BUSY_SECONDS)
        with answering(), closing(database.connect()) as sessions, closing(_open(self._history)) as history:
            acknowledged = last_acknowledged(signal_path(self._sessions))
            database.require_acknowledged(sessions, max(acknowledged, self._known_revision))
            history.execute("BEGIN")
            sessions.execute("BEGIN IMMEDIATE")
            with committing(sessions):
                yield _Files({Half.SESSIONS: sessions, Half.HISTORY: history})
                put_aside(sessions, mark)

    def outwait(self) -> None:
        """Return at once: no server has the files open."""

    def receive(self, content: Content, mark: Mark, copied: Callable[[str], None]) -> None:
        """Write new files with the content, in place of those that are there."""
        try:
            with draft_of(self._sessions) as sessions, draft_of(self._history) as history:
                drafts = {Half.SESSIONS: sessions, Half.HISTORY: history}
                _write(drafts, content, mark, copied)
                # What was in the other files was moved away, or came only in part.
                forget_acknowledged(signal_path(self._sessions))
                for half in (Half.HISTORY, Half.SESSIONS):
                    _replace(self._files()[half], drafts[half])
        except OSError as error:
            raise StoreUnavailableError(f"cannot write `{self.name}`: {reason_of(error)}") from None

    def activate(self) -> None:
        """Let servers start on what was received."""
        with self._changing() as connection:
            put_back(connection)

    def forget_move(self) -> None:
        """Remove the note of the move that has brought the sessions here."""
        with self._changing() as connection:
            forget_mark(connection)

    @contextmanager
    def _changing(self) -> Iterator[apsw.Connection]:
        with answering(), closing(_open(self._sessions)) as connection:
            set_pragmas(connection, "journal_mode=WAL", "synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            with committing(connection):
                yield connection

    def _files(self) -> Mapping[Half, Path]:
        return {Half.SESSIONS: self._sessions, Half.HISTORY: self._history}


class _Files:
    """The content of files that are open."""

    def __init__(self, connections: Mapping[Half, apsw.Connection]) -> None:
        self._connections = connections

    def tables(self) -> tuple[Table, ...]:
        """Return all tables."""
        return tuple(
            Table(half, name, tuple(row[1] for row in connection.execute(f"PRAGMA table_info({name})")))
            for half, connection in self._connections.items()
            for name in _names(connection)
            if name != MOVING
        )

    def count(self, table: Table) -> int:
        """Return the number of rows of a table."""
        return int(self._connections[table.half].execute(f"SELECT count(*) FROM {table.name}").get)  # noqa: S608 - a name of our own tables

    def rows(self, table: Table) -> Iterator[list[Row]]:
        """Yield the rows of a table, some at a time."""
        names = ", ".join(f'"{one}"' for one in table.columns)
        rows = self._connections[table.half].execute(f"SELECT {names} FROM {table.name}")  # noqa: S608 - the same
        while some := list(islice(rows, BATCH)):
            yield some


def _write(drafts: Mapping[Half, Path], content: Content, mark: Mark, copied: Callable[[str], None]) -> None:
    for path in drafts.values():
        path.unlink()
    SQLiteSessionStore(drafts[Half.SESSIONS]).close()
    SQLiteSessionHistory(drafts[Half.HISTORY]).close()
    with ExitStack() as opened, answering():
        connections = {half: opened.enter_context(closing(_open(path))) for half, path in drafts.items()}
        for connection in connections.values():
            connection.execute("BEGIN IMMEDIATE")
        fill(connections.__getitem__, _Files(connections).tables(), content, copied)
        put_aside(connections[Half.SESSIONS], mark)
        for connection in connections.values():
            connection.execute("COMMIT")
            # A single file that is on the disk, without a log beside it.
            set_pragmas(connection, "synchronous=FULL", "journal_mode=DELETE")


def _replace(path: Path, draft: Path) -> None:
    for suffix in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    draft.replace(path)
    sync_folder(path.parent)


def _open(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(round(_BUSY_SECONDS * 1000))
    return connection


def _names(connection: apsw.Connection) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return sorted(name for (name,) in rows)
