"""Create and open the SQLite file of a session store, and translate its errors."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import apsw

from pdp.errors import StoreUnavailableError, reason_of
from pdp.foundation.files import draft_of, make_folder, sync_folder
from pdp.foundation.sqlite import ENGINE_ERRORS, committing, require_sound_engine, unavailable
from pdp.sessions.changesignal import ChangeSignal, forget_acknowledged
from pdp.sessions.movingrows import read_mark
from pdp.sessions.sqlitetables import OUTBOX_SCHEMA

_STEP_BYTES: Final = 1024 * 1024

# A file of the first schema; `_UPGRADES` brings a new or an existing file to the current one.
# `changes` tells other connections which sessions to read again, and those who follow sessions what has happened; a cut
# has no id there. `forgotten_revision` is the latest revision whose
# changes were removed: a connection that has seen less must read everything again.
_SCHEMA: Final = """
CREATE TABLE meta (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  schema_version INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  forgotten_revision INTEGER NOT NULL,
  high_water_at REAL NOT NULL,
  bundle_version TEXT NOT NULL,
  bundle_activated_at REAL NOT NULL,
  bundle_activated_by TEXT NOT NULL
) STRICT;

CREATE TABLE sessions (
  id TEXT NOT NULL UNIQUE,
  handle_digest BLOB NOT NULL UNIQUE,
  state TEXT NOT NULL,
  tenant TEXT NOT NULL,
  user TEXT NOT NULL,
  agent TEXT NOT NULL,
  opened_by TEXT NOT NULL,
  requested_at REAL NOT NULL,
  epoch INTEGER NOT NULL,
  parent_id TEXT NOT NULL,
  depth INTEGER NOT NULL,
  session_json TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_by_age ON sessions (requested_at, id);
CREATE INDEX sessions_by_user ON sessions (user, requested_at, id);
CREATE INDEX sessions_by_agent ON sessions (agent, requested_at, id);
CREATE INDEX sessions_by_state ON sessions (state, requested_at, id);
CREATE INDEX sessions_by_parent ON sessions (parent_id);

CREATE TABLE scopes (id TEXT PRIMARY KEY, tools_json TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE changes (
  position INTEGER PRIMARY KEY,
  revision INTEGER NOT NULL,
  kind TEXT NOT NULL,
  id TEXT NOT NULL
) STRICT;

CREATE TABLE bundles (
  version TEXT PRIMARY KEY,
  content BLOB NOT NULL,
  activated_at REAL NOT NULL,
  activated_by TEXT NOT NULL,
  revision INTEGER NOT NULL
) STRICT;
"""

# Each step brings a file from one schema version to the next. A released step is never edited.
_UPGRADES: Final = (
    """
    ALTER TABLE meta ADD COLUMN bundle_reason TEXT NOT NULL DEFAULT '';
    ALTER TABLE meta ADD COLUMN bundle_chosen INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE meta ADD COLUMN bundle_number INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE meta ADD COLUMN bundle_signed_by TEXT NOT NULL DEFAULT '';
    ALTER TABLE meta ADD COLUMN highest_number INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE bundles ADD COLUMN reason TEXT NOT NULL DEFAULT '';
    ALTER TABLE bundles ADD COLUMN chosen INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE bundles ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE bundles ADD COLUMN signed_by TEXT NOT NULL DEFAULT '';
    CREATE TABLE past_bundles (version TEXT PRIMARY KEY, revision INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX past_bundles_by_age ON past_bundles (revision);
    INSERT INTO past_bundles SELECT version, revision FROM bundles;
    """,
    # Finds scopes that no session uses any longer.
    """
    ALTER TABLE sessions ADD COLUMN scope_id TEXT NOT NULL DEFAULT '';
    UPDATE sessions SET scope_id = coalesce(session_json ->> '$.scope', '') WHERE json_valid(session_json);
    CREATE INDEX sessions_by_scope ON sessions (scope_id);
    """,
    # Counts the live sessions of a caller; and stores cuts, which take effect before each session is changed.
    """
    ALTER TABLE sessions ADD COLUMN ends_at REAL NOT NULL DEFAULT 0;
    UPDATE sessions SET ends_at = coalesce(session_json ->> '$.deadline.wall_at', 0) WHERE json_valid(session_json);
    CREATE INDEX sessions_live ON sessions (opened_by, ends_at) WHERE state IN ('requested', 'active');
    CREATE TABLE cuts (
      tenant TEXT NOT NULL,
      user TEXT NOT NULL,
      agent TEXT NOT NULL,
      at REAL NOT NULL,
      by TEXT NOT NULL,
      reason TEXT NOT NULL,
      PRIMARY KEY (tenant, user, agent)
    ) STRICT, WITHOUT ROWID;
    """,
    # The labels that widen, as the approver saw them. Unknown for a session that could have got one later or from
    # above.
    """
    UPDATE sessions SET session_json = json_set(session_json, '$.widening_labels', session_json -> '$.labels')
    WHERE json_valid(session_json) AND epoch <= 2 AND parent_id = '';
    """,
    # Nothing to change, but earlier programs cannot read the sessions of this one: they hold the origins of labels.
    "",
    # What the active bundle counts, and since when.
    "ALTER TABLE meta ADD COLUMN bundle_counted TEXT NOT NULL DEFAULT '[]';",
    # Events for receivers outside. Of sessions that are stored already, no expiry is told.
    f"""
    {OUTBOX_SCHEMA}
    ALTER TABLE meta ADD COLUMN missed_events INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE sessions ADD COLUMN expiry_noted INTEGER NOT NULL DEFAULT 1;
    CREATE INDEX sessions_unexpired ON sessions (ends_at)
    WHERE expiry_noted = 0 AND state IN ('requested', 'active');
    """,
    # The same user or agent can be in many tenants, and a list is always of one.
    """
    DROP INDEX sessions_by_user;
    DROP INDEX sessions_by_agent;
    CREATE INDEX sessions_of_user ON sessions (tenant, user, requested_at, id);
    CREATE INDEX sessions_of_agent ON sessions (tenant, agent, requested_at, id);
    """,
    # What stops the calls of a tenant; one with an empty name stops all tenants.
    """
    CREATE TABLE freezes (
      tenant TEXT PRIMARY KEY,
      id TEXT NOT NULL,
      set_at REAL NOT NULL,
      set_by TEXT NOT NULL,
      reason TEXT NOT NULL,
      confirmed_at REAL NOT NULL,
      confirmed_by TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    # Tells a change whose answer was lost from one that was not made.
    """
    CREATE TABLE writes (
      position INTEGER PRIMARY KEY,
      key BLOB NOT NULL UNIQUE,
      digest BLOB NOT NULL,
      ids TEXT NOT NULL,
      at REAL NOT NULL
    ) STRICT;
    CREATE INDEX writes_by_age ON writes (at);
    """,
)
SCHEMA_VERSION: Final = 1 + len(_UPGRADES)


class Database:
    """The file of one store. All errors are `StoreUnavailableError` and quote nothing that is stored."""

    def __init__(self, path: Path, *, busy_seconds: float) -> None:
        require_sound_engine(apsw.sqlite_lib_version())
        # An absolute path stays valid when the process changes its folder, and is never `:memory:`.
        self.path = path.absolute()
        self._busy_milliseconds = round(busy_seconds * 1000)
        try:
            self._create()
            self._identity = identity_of(self.path)
        except OSError as error:
            raise StoreUnavailableError(f"cannot create the session store `{path}`: {reason_of(error)}") from None

    def connect(self) -> apsw.Connection:
        """Open a connection that waits for locks, and syncs before a commit returns."""
        connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close(force=True)
            raise
        return connection

    def signal(self) -> ChangeSignal:
        """Open the file through which the processes that share the store announce writes."""
        path = signal_path(self.path)
        try:
            return ChangeSignal(path)
        except BlockingIOError:
            raise StoreUnavailableError(f"the session store is being restored: `{self.path}`; try again") from None
        except OSError as error:
            raise StoreUnavailableError(f"cannot use `{path}`, beside the session store: {reason_of(error)}") from None

    def require_acknowledged(self, connection: apsw.Connection, acknowledged: int) -> None:
        """Raise when the store is behind `acknowledged`, the revision that was read before."""
        missing = acknowledged - connection.execute("SELECT revision FROM meta").get
        if missing > 0:
            raise StoreUnavailableError(
                f"the session store lacks the last {missing} changes that it acknowledged: `{self.path}`; its log is "
                "damaged, or an older file has replaced it: restore a backup with `pdp store restore`, or keep this "
                "file with `pdp store restore PATH`, which revokes what is live in it".replace("PATH", str(self.path))
            )

    def require_same_file(self) -> None:
        """Raise when the path no longer leads to the opened file: its data would stay old."""
        try:
            same = identity_of(self.path) == self._identity
        except OSError:
            same = False
        if not same:
            raise StoreUnavailableError(f"the session store was moved, removed or replaced: `{self.path}`")

    def _prepare(self, connection: apsw.Connection) -> None:
        connection.set_busy_timeout(self._busy_milliseconds)
        try:
            version: int | None = connection.execute("SELECT schema_version FROM meta").get
        except (apsw.SQLError, apsw.NotADBError):
            version = None
        if version is None:
            raise StoreUnavailableError(not_a_store(connection, self.path))
        require_known_schema(version)
        # Files that we created are in this mode already; a file restored from a dump may not be.
        if connection.execute("PRAGMA journal_mode=WAL").get != "wal":
            raise StoreUnavailableError(
                f"the file system of the session store does not support shared memory: `{self.path}`"
            )
        connection.execute("PRAGMA synchronous=FULL")
        # The file grows in steps, and each step is allocated before it is written.
        step = array("i", [_STEP_BYTES])
        connection.file_control("main", apsw.SQLITE_FCNTL_CHUNK_SIZE, step.buffer_info()[0])
        _upgrade(connection, version)
        # Large sorts must not spill sessions into files outside our folder.
        connection.execute("PRAGMA temp_store=MEMORY")

    def _create(self) -> None:
        # The file gets its name only when it is complete, so processes that start together need no lock. Only SQLite
        # ever opens and closes it: closing a file drops the process's locks on it.
        folder = self.path.parent
        make_folder(folder, sync_folder)
        if self.path.exists():
            return
        with draft_of(self.path) as draft:
            connection = apsw.Connection(str(draft), flags=apsw.SQLITE_OPEN_READWRITE)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(_SCHEMA)
            connection.execute("INSERT INTO meta VALUES (1, 1, 0, 0, 0.0, '', 0.0, '')")
            _upgrade(connection, 1)
            connection.close()
            forget_acknowledged(signal_path(self.path))
            with suppress(FileExistsError):
                os.link(draft, self.path)
        sync_folder(folder)


def signal_path(path: Path) -> Path:
    """Return the path of the file beside a store through which processes announce writes."""
    return path.with_name(f"{path.name}-signal")


def require_known_schema(version: int, known: int = SCHEMA_VERSION) -> None:
    """Raise `StoreUnavailableError` when a newer program has written the store: one that knows more than `known`."""
    if version > known:
        raise StoreUnavailableError(
            f"the session store has schema `{version}`, but this program knows only `{known}`: upgrade the program"
        )


def not_a_store(connection: apsw.Connection, path: Path) -> str:
    """Say why no server starts on a file without the table that each store has."""
    try:
        mark = read_mark(connection)
    except (apsw.SQLError, apsw.NotADBError):
        mark = None
    return mark.refusal(str(path)) if mark else f"not a session store: `{path}`"


def _upgrade(connection: apsw.Connection, version: int) -> None:
    if version == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    with committing(connection):
        # Another process can have upgraded it first.
        version = connection.execute("SELECT schema_version FROM meta").get
        require_known_schema(version)
        for statements in _UPGRADES[version - 1 :]:
            connection.execute(statements)
        connection.execute("UPDATE meta SET schema_version = ?", (SCHEMA_VERSION,))


@contextmanager
def answering(path: Path | None = None) -> Iterator[None]:
    """Turn the engine's errors into `StoreUnavailableError`, which names the file at a `path` that is damaged."""
    try:
        yield
    except ENGINE_ERRORS as error:
        raise store_unavailable(error, path) from None


def store_unavailable(error: Exception, path: Path | None) -> StoreUnavailableError:
    """Return the error to raise for an error of the engine about the file of a store."""
    return unavailable(error, path=path, remedy="see `pdp store check`, and restore a backup")


def identity_of(path: Path) -> tuple[int, int]:
    """Return the device and the number of a file. Raise `OSError`."""
    status = path.stat()
    return status.st_dev, status.st_ino
