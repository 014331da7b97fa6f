"""Read sessions quickly; each read sees every write that any process has acknowledged.

Writers announce their commits (`changesignal.py`), so a read without a new announcement answers from memory.
Otherwise, and at least every `trust_seconds`, the database is asked: on a connection that only reads, SQLite's
`PRAGMA data_version` shows commits by all other connections, in this process and in others (it does not change on the
connection that wrote). Then the sessions that `changes` lists since the last revision seen are dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock

import apsw

from pdp.errors import UnavailableError, UnknownRevisionError
from pdp.foundation.repeating import Repeater
from pdp.foundation.sqlite import ENGINE_ERRORS
from pdp.foundation.threads import MOMENT_SECONDS
from pdp.model import Head
from pdp.sessions.changesignal import ChangeSignal
from pdp.sessions.database import Database, store_unavailable
from pdp.sessions.scopes import ScopePool
from pdp.sessions.sqlrows import Chain
from pdp.sessions.values import NOT_ITS_OWN
from pdp.sessions.watching import Key, Reading, Watching

# The shortest pause between two looks.
_SHORTEST = 0.01


class Watcher(Watching):
    """What one process reads and remembers of a file. Safe for threads.

    For `trust_seconds` after a read of the database, memory answers while nothing was announced. This limits how long
    a removed file, or a write by a foreign program, goes unnoticed. `monotonic` returns seconds.
    """

    _connection: apsw.Connection

    def __init__(
        self,
        database: Database,
        scopes: ScopePool,
        signal: ChangeSignal,
        *,
        sessions_kept: int,
        trust_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        connection = database.connect()
        connection.execute("PRAGMA query_only=ON")
        super().__init__(connection, scopes, sessions_kept=sessions_kept)
        # Held by a read, also while it asks the file: that never waits for another process.
        self._lock = Lock()
        self._signal = signal
        self._trust_seconds = trust_seconds
        self._monotonic = monotonic
        self._announced = b""
        self._trusted_until = 0.0
        self._database = database
        self._cursor = connection.cursor()
        # No commit has this number, so the first read loads everything.
        self._data_version = -1
        # While memory is asked alone, by callers who cannot wait for a look.
        self._looking = Repeater("store-look", self.look_again, every=max(trust_seconds / 2, _SHORTEST), at_once=False)
        self._looks = self._alone = False
        # How long such a caller waits for a read: after one has waited in vain, none does until the read is over.
        self._moment_seconds = MOMENT_SECONDS

    def close(self) -> None:
        """Close the connection and forget all sessions."""
        self._looking.stop()
        with self._lock:
            # None starts any more.
            self._looks = True
            self._recent.clear()
            self._connection.close()

    def _read(
        self,
        key: Key,
        least: Head | None = None,
        *,
        labels: bool = False,  # noqa: ARG002 - none is ever missing
        decides: bool = False,  # noqa: ARG002 - the file has all that was acknowledged
    ) -> Reading:
        with self._lock:
            found = self._remembered(key, least)
            if found is not None:
                return found
            chain = self._look(key)
            if least is not None and not self._has(least):
                raise UnknownRevisionError(NOT_ITS_OWN)
            return Reading(chain, self._moment)

    def _known(self, key: Key, least: Head | None) -> Reading | None:
        if not self._lock.acquire(timeout=self._moment_seconds):
            self._moment_seconds = 0.0
            return None
        try:
            self._moment_seconds = MOMENT_SECONDS
            self._alone = True
            if not self._looks:
                self._looks = True
                self._looking.start()
            return self._remembered(key, least)
        finally:
            self._lock.release()

    def look_again(self) -> None:
        """Ask the database before memory is too old, if memory was asked alone since the last time. Never raises."""
        if self._alone:
            self._alone = False
            with suppress(UnavailableError), self._lock:
                self._look(None)

    def _look(self, key: Key) -> Chain:
        """Ask the database, and trust memory from then on."""
        # INVARIANT: the announcement is read before the data, so that the next read notices a later write.
        announced, read_at = self._signal.read(), self._monotonic()
        chain = self._read_database(key)
        self._announced = announced
        self._trusted_until = read_at + self._trust_seconds if self._signal.shared() else 0.0
        return chain

    def _remembered(self, key: Key, least: Head | None) -> Reading | None:
        """Return what memory may answer: nothing was announced since it was brought up to the file, not long ago."""
        as_new = self._signal.read() == self._announced and self._monotonic() < self._trusted_until
        # What was committed a moment ago may not be announced yet.
        if not as_new or not (least is None or self._has(least)):
            return None
        chain = self._recent.chain(key)
        return None if chain is None else Reading(chain, self._moment)

    def _read_database(self, key: Key) -> Chain:
        try:
            self._database.require_same_file()
            # `get` reads to the end: an open statement would hold an old snapshot.
            data_version: int = self._cursor.execute("PRAGMA data_version").get
            if data_version == self._data_version:
                chain = self._recent.chain(key)
                if chain is not None:
                    return chain
            with snapshot(self._connection):
                self._take(self._learned(self._moment))
                chain = self._recent.chain(key)
                if chain is None:
                    chain = self._load(key, self._moment, self._recent.by_id)
                    self._keep(chain)
            # INVARIANT: the number was read before the snapshot. A commit between the two is already in the snapshot,
            # and is read once more next time; it is never missed.
            self._data_version = data_version
        except ENGINE_ERRORS as error:
            raise store_unavailable(error, self._database.path) from None
        return chain


@contextmanager
def snapshot(connection: apsw.Connection) -> Iterator[None]:
    """Have all that is read in the `with` block be of one moment."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
