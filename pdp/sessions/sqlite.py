"""Keep sessions in an SQLite file that any number of processes on one machine share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final, TypeVar

import apsw

from pdp.errors import OverloadedError, StoreUnavailableError
from pdp.foundation.sqlite import committing
from pdp.sessions.database import Database, answering
from pdp.sessions.foresight import Foresight
from pdp.sessions.room import Room
from pdp.sessions.scopes import ScopePool
from pdp.sessions.sqlstore import SQLSessionStore
from pdp.sessions.succession import BUNDLES_KEPT
from pdp.sessions.turns import MOST_WAITING, Turns
from pdp.sessions.watcher import Watcher, snapshot
from pdp.sessions.writes import Write

T = TypeVar("T")

# How often what ends authority waits again where others write for long: an activation can change many sessions.
_WAITS: Final = 3


class SQLiteSessionStore(SQLSessionStore):
    """A `SessionStore` in one file. Safe for threads; open it after forking, not before.

    `busy_seconds` is how long to wait for other writers, first of this process and then of others, before
    `OverloadedError`, and what ends authority waits four times as long; within a process writers take turns.
    `sessions_kept` limits the sessions in memory, `changes_kept` the changes that other processes can follow one by
    one, `bundles_kept` the last active bundles that keep their content. `reserve_bytes` of the disk are kept for what
    ends authority, see `room.py`. With `tells` it has events for receivers outside. A store that lacks changes up to
    `known_revision`, which is known from elsewhere, is refused. When the file is removed, or a foreign program writes
    it, reads that can answer from memory (`SessionReader`, `active_bundle`) notice after `trust_seconds` of
    `monotonic`, all others at once.
    """

    _connection: apsw.Connection

    def __init__(
        self,
        path: str | Path,
        *,
        busy_seconds: float = 5.0,
        sessions_kept: int = 100_000,
        changes_kept: int = 10_000,
        bundles_kept: int = BUNDLES_KEPT,
        reserve_bytes: int = 0,
        tells: bool = False,
        known_revision: int = 0,
        trust_seconds: float = 0.1,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._turns = Turns(most=MOST_WAITING, seconds=busy_seconds)
        self._room = Room(Path(path).absolute(), reserve_bytes)
        self._room.prepare_start()
        scopes = ScopePool()
        with ExitStack() as opened, answering(Path(path).absolute()):
            self._database = Database(Path(path), busy_seconds=busy_seconds)
            connection = opened.enter_context(closing(self._database.connect()))
            self._signal = opened.enter_context(closing(self._database.signal()))
            self._database.require_acknowledged(connection, max(self._signal.acknowledged(), known_revision))
            watcher = Watcher(
                self._database,
                scopes,
                self._signal,
                sessions_kept=sessions_kept,
                trust_seconds=trust_seconds,
                monotonic=monotonic,
            )
            opened.enter_context(closing(watcher))
            # Now that both are open, check that they have opened the same file.
            self._database.require_same_file()
            opened.pop_all()
        self._room.prepare_log()
        self._room.keep()
        super().__init__(
            connection,
            watcher,
            Foresight(self._connect_to_foresee, scopes, entities="session_json ->> '$.entities_json'"),
            scopes,
            changes_kept=changes_kept,
            bundles_kept=bundles_kept,
            tells=tells,
            ended_at="session_json ->> '$.ended_at'",
            by_expiry="INDEXED BY sessions_unexpired",
        )

    def touch(self, *, wall_at: float) -> None:
        """Raise the high-water mark, and prove that the store can be written."""
        super().touch(wall_at=wall_at)
        self._room.keep()

    def written(self, write: Write, *, wall_at: float) -> tuple[str, ...] | None:
        """Return the ids of the sessions of a change that is remembered; None when it is not."""
        # What asks for an ending again is one.
        return _waiting(lambda: super(SQLiteSessionStore, self).written(write, wall_at=wall_at))

    def acknowledged(self) -> int:
        """Return the revision of the last acknowledged change."""
        return self._signal.acknowledged()

    def outwait(self, found: Sequence[str] = ()) -> None:
        """Return when all see what was read: at once, since every process looks before it answers."""

    def close(self) -> None:
        """Close the file; afterwards the store does not answer."""
        with self._turns.turn(last=True):
            self._connection.close()
        self._watcher.close()
        self._signal.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        # Lists and counts use the writing connection: they are rare, and must not delay decisions.
        with self._turns.turn(), answering(self._database.path):
            self._database.require_same_file()
            yield

    @contextmanager
    def _transaction(self, *, opens: bool = False) -> Iterator[None]:
        with self._reading():
            if opens:
                self._room.require()
            self._begin()
            self._revision = 0
            with committing(self._connection):
                yield
            self._announce()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._begin()
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")

    def _snapshot(self) -> AbstractContextManager[None]:
        return snapshot(self._connection)

    def _foreseeing(self) -> AbstractContextManager[None]:
        return answering(self._database.path)

    @contextmanager
    def _connect_to_foresee(self) -> Iterator[apsw.Connection]:
        with closing(self._database.connect()) as connection:
            connection.execute("PRAGMA query_only=ON")
            yield connection

    def _begin(self) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            raise OverloadedError(
                "the session store is busy with other programs; nothing was written, try again"
            ) from None

    def _ending(self, write: Callable[[], T]) -> T:
        """Write what ends or narrows authority, or changes the rules. On a full disk, use the reserve."""
        try:
            return _waiting(write)
        except StoreUnavailableError:
            gained = self._room.give_up()
            if not gained and not self._outbox.tells:
                raise
        if gained:
            try:
                return write()
            except StoreUnavailableError:
                if not self._outbox.tells:
                    raise
        # What ends is over, although nothing can be told of it.
        with self._outbox.sparing():
            return write()

    def _announce(self) -> None:
        # INVARIANT: no write is acknowledged before every reader, in every process, can see it.
        try:
            self._signal.announce(self._revision)
        except OSError:
            raise StoreUnavailableError("the session store cannot tell other processes of a write") from None


def _waiting(write: Callable[[], T]) -> T:
    for _ in range(_WAITS):
        try:
            return write()
        except OverloadedError:
            # Nothing was written.
            continue
    return write()
