"""Inspect the file of a session store without changing it, and copy it while servers use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import apsw

from pdp.errors import StoreUnavailableError
from pdp.foundation.files import draft_of, sync_folder
from pdp.foundation.sqlite import unavailable
from pdp.model import SessionState
from pdp.sessions.database import SCHEMA_VERSION, not_a_store, require_known_schema
from pdp.sessions.rows import row_of, scope_from, session_of

_MOST_DAMAGE: Final = 20
_HISTORY: Final = "session history"
_BUSY_MILLISECONDS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """The content of a session store's file.

    `damage` lists what is wrong with it, at most twenty problems, and quotes nothing that is stored. `sessions` counts
    sessions by their stored state. `high_water_at` is the time of the last write, unix seconds. Of a file with a newer
    schema than this program knows, only the schema is read.
    """

    schema_version: int
    damage: tuple[str, ...] = ()
    sessions: Mapping[SessionState, int] = field(default_factory=dict)
    revision: int = 0
    high_water_at: float = 0.0
    bundle_version: str = ""
    highest_number: int = 0
    known_schema: int = SCHEMA_VERSION

    @property
    def newer(self) -> bool:
        """Say whether a newer program has written the file."""
        return self.schema_version > self.known_schema

    @property
    def older(self) -> bool:
        """Say whether the next server to open the file will upgrade it."""
        return self.schema_version < self.known_schema


def inspect(path: Path) -> StoreReport:
    """Read the whole file of a store and report its content. Servers can use it meanwhile.

    Raise `StoreUnavailableError` when it cannot be read, or is not a store.
    """
    with _reading(path) as connection:
        version = _schema_of(connection, path)
        if version > SCHEMA_VERSION:
            return StoreReport(schema_version=version)
        # Use one snapshot for all queries.
        connection.execute("BEGIN")
        try:
            damage = tuple(islice(_damage(connection), _MOST_DAMAGE))
        except apsw.CorruptError:
            damage = ("the file is too damaged to be read",)
        if damage:
            return StoreReport(schema_version=version, damage=damage)
        revision, high_water_at, bundle_version = connection.execute(_META).get
        return StoreReport(
            schema_version=version,
            sessions=_count(connection),
            revision=revision,
            high_water_at=high_water_at,
            bundle_version=bundle_version,
            # The first schema had no bundle numbers.
            highest_number=connection.execute("SELECT highest_number FROM meta").get if version > 1 else 0,
        )


def inspect_history(path: Path) -> tuple[str, ...]:
    """Return what is wrong with the file of a session history, at most twenty problems. Servers can use it meanwhile.

    Raise `StoreUnavailableError` when it cannot be read.
    """
    if not path.is_file():
        raise StoreUnavailableError(f"the {_HISTORY} is not a file: `{path}`")
    with _connected(path, _HISTORY) as connection:
        try:
            found = [str(text) for (text,) in connection.execute(f"PRAGMA quick_check({_MOST_DAMAGE})")]
        except apsw.CorruptError:
            found = ["the file is too damaged to be read"]
    return () if found == ["ok"] else tuple(f"{_HISTORY}: {' '.join(text.split())}" for text in found)


def backup(path: Path, target: Path) -> StoreReport:
    """Copy a store at one moment to a new file that only its owner can read. Report its content.

    Servers go on reading and writing. Raise `StoreUnavailableError` when there is no sound store to copy, and
    `FileExistsError` or another `OSError` when the copy cannot be written.
    """
    if target.exists() or target.is_symlink():
        raise FileExistsError(None, "the file exists, and a backup never overwrites a file", str(target))
    with draft_of(target) as draft:
        copy(path, draft)
        report = inspect(draft)
        require_sound(report, path)
        # It gets its name only when it is complete; by a link, because a rename would overwrite.
        target.hardlink_to(draft)
    sync_folder(target.parent)
    return report


def copy(path: Path, draft: Path) -> None:
    """Copy a store at one moment into an empty file. Raise `StoreUnavailableError`."""
    with _reading(path) as connection:
        require_known_schema(_schema_of(connection, path))
        copied = apsw.Connection(str(draft), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            with copied.backup("main", connection, "main") as pages:
                # In one step: a copy in several starts again whenever a server writes.
                pages.step(-1)
            # A single file, without a log beside it.
            copied.execute("PRAGMA journal_mode=DELETE").fetchall()
        finally:
            copied.close(force=True)


def require_sound(report: StoreReport, path: Path) -> None:
    """Raise `StoreUnavailableError` when a store is damaged, or newer than this program."""
    require_known_schema(report.schema_version)
    if report.damage:
        raise StoreUnavailableError(
            f"the session store is damaged: `{path}`: {report.damage[0]}; see `pdp store check`"
        )


@contextmanager
def _reading(path: Path) -> Iterator[apsw.Connection]:
    if not path.is_file():
        raise StoreUnavailableError(f"there is no session store: `{path}`")
    with _connected(path, "session store", "restore a backup") as connection:
        yield connection


@contextmanager
def _connected(path: Path, name: str, remedy: str = "") -> Iterator[apsw.Connection]:
    try:
        connection = apsw.Connection(str(path.absolute()), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(_BUSY_MILLISECONDS)
            yield connection
        finally:
            connection.close(force=True)
    except apsw.Error as error:
        raise unavailable(error, name, path, remedy=remedy) from None


def _schema_of(connection: apsw.Connection, path: Path) -> int:
    try:
        version: int | None = connection.execute("SELECT schema_version FROM meta").get
    except (apsw.SQLError, apsw.NotADBError):
        version = None
    if version is None:
        raise StoreUnavailableError(not_a_store(connection, path))
    return version


def _damage(connection: apsw.Connection) -> Iterator[str]:
    found = [str(text) for (text,) in connection.execute(f"PRAGMA integrity_check({_MOST_DAMAGE})")]
    if found != ["ok"]:
        # Do not read sessions from damaged pages.
        yield from (" ".join(text.split()) for text in found)
        return
    yield from _unreadable_sessions(connection)


def _unreadable_sessions(connection: apsw.Connection) -> Iterator[str]:
    scopes = dict(connection.execute("SELECT id, tools_json FROM scopes"))
    known = {session_id for (session_id,) in connection.execute("SELECT id FROM sessions")}
    for text, session_id, *columns in connection.execute(_SESSIONS):
        try:
            session = session_of(str(text), lambda scope_id: scope_from(scope_id, scopes.get(scope_id, "")))
        except StoreUnavailableError as error:
            yield f"session `{session_id}`: {error}"
            continue
        # An older program can have written the text, with fewer fields and columns.
        written = [value for name, value in row_of(session).items() if name not in _LATER]
        if written != [session_id, *columns]:
            yield f"session `{session_id}`: its columns differ from its content"
        missing = sorted(set(session.ancestor_ids) - known)
        if missing:
            yield f"session `{session_id}`: its ancestor `{missing[0]}` is missing"


def _count(connection: apsw.Connection) -> dict[SessionState, int]:
    rows: Iterable[tuple[str, int]] = connection.execute("SELECT state, count(*) FROM sessions GROUP BY state")
    counts = dict(rows)
    return {state: counts.get(state.value, 0) for state in SessionState}


# The text, and columns that older programs do not have.
_LATER: Final = ("session_json", "scope_id", "ends_at")
_SESSIONS: Final = """
SELECT session_json, id, handle_digest, state, tenant, user, agent, opened_by, requested_at, epoch, parent_id, depth
FROM sessions ORDER BY requested_at, id
"""
_META: Final = "SELECT revision, high_water_at, bundle_version FROM meta"
