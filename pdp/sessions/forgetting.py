"""Forget one person in the files of the stores, while no server runs.

A session that is over gives nobody anything, so removing it takes no promise back: a handle that is no longer stored
gets the answer of one that never existed. What sessions did is in the record.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import apsw

from pdp.errors import StoreUnavailableError, WrongStateError
from pdp.foundation.places import Place, gone, staying
from pdp.foundation.sqlite import ENGINE_ERRORS, set_pragmas, unavailable
from pdp.sessions.changesignal import unused
from pdp.sessions.database import SCHEMA_VERSION, signal_path

_BUSY_MILLISECONDS: Final = 5000
_LATER: Final = "until these sessions go: `sessions.keep_ended_seconds` after their end"

_LIVE: Final = """
SELECT count(*) FROM sessions WHERE tenant = :tenant AND user = :user
  AND state IN ('requested', 'active') AND ends_at > :now
"""
_SESSIONS: Final = """
DELETE FROM sessions WHERE tenant = :tenant AND user = :user
  AND NOT EXISTS (SELECT 1 FROM sessions AS child WHERE child.parent_id = sessions.id) RETURNING id
"""
_DROP_SCOPES: Final = "DELETE FROM scopes WHERE NOT EXISTS (SELECT 1 FROM sessions WHERE scope_id = scopes.id)"
_OUTBOX: Final = """
DELETE FROM outbox WHERE content ->> '$.tenant' = :tenant AND :user IN (content ->> '$.user', content ->> '$.by')
RETURNING id
"""
_ACCESS: Final = "DELETE FROM access WHERE tenant = :tenant AND user = :user RETURNING session_id"
# Rows whose JSON holds the id as a whole value.
_NAMED: Final = "SELECT count(*) FROM {table} WHERE tenant = :tenant AND instr({column}, :quoted)"
_ENDING: Final = """
SELECT (SELECT count(*) FROM cuts WHERE tenant = :tenant AND :user IN (user, by))
  + (SELECT count(*) FROM freezes WHERE tenant = :tenant AND :user IN (set_by, confirmed_by))
"""


def forget(sessions: Path, history: Path, *, tenant: str, user: str, now_at: float, apply: bool) -> tuple[Place, ...]:
    """Remove what two files have of a person, or without `apply` say what would be removed.

    Raise `WrongStateError` while a session of the person is live, and `StoreUnavailableError` when a server uses the
    store and something is to be removed, or when its files cannot be used.
    """
    who = {"tenant": tenant, "user": user, "quoted": json.dumps(user), "now": now_at}
    with ExitStack() as opened:
        if apply:
            try:
                opened.enter_context(unused(signal_path(sessions)))
            except BlockingIOError:
                raise StoreUnavailableError(
                    f"a server uses the session store: `{sessions}`; stop it, then forget"
                ) from None
        places, ids = _in_sessions(sessions, who, apply=apply)
        return (*places, *(_in_history(history, who, ids, apply=apply) if history.exists() else ()))


def _in_sessions(path: Path, who: dict[str, Any], *, apply: bool) -> tuple[tuple[Place, ...], list[str]]:
    with _changing(path, apply=apply) as connection:
        if connection.execute("SELECT schema_version FROM meta").get != SCHEMA_VERSION:
            raise StoreUnavailableError(f"the session store `{path}` is of another version; start a server once")
        if live := connection.execute(_LIVE, who).get:
            raise WrongStateError(
                f"{live} sessions of `{who['user']}` are live: end them with `pdp session revoke --user {who['user']}`"
            )
        ids = _all_of(connection, _SESSIONS, who)
        connection.execute(_DROP_SCOPES)
        events = len(_all_of(connection, _OUTBOX, who))
        left = _counted(connection, _NAMED.format(table="sessions", column="session_json"), who)
        ending = _counted(connection, _ENDING, who)
        bundles = _counted(connection, "SELECT count(*) FROM bundles", {})
    name = path.name
    places = (
        gone(f"{name}: sessions", len(ids), apply=apply),
        gone(f"{name}: outbox", events, apply=apply),
        staying(f"{name}: sessions of others, or with one below", left, _LATER),
        staying(f"{name}: cuts, freezes", ending, "until the sessions are written, or the freeze is lifted"),
        staying(f"{name}: bundles", bundles, "until a directory without the person has pushed these bundles out"),
    )
    return places, ids


def _in_history(path: Path, who: dict[str, Any], ids: list[str], *, apply: bool) -> tuple[Place, ...]:
    with _changing(path, apply=apply) as connection:
        requests = len(_all_of(connection, _ACCESS, who))
        events = len(_all_of(connection, _OUTBOX, who))
        used = 0
        for table in ("budgets", "counts"):
            for one in ids:
                connection.execute(f"DELETE FROM {table} WHERE session_id = ?", (one,))  # noqa: S608 - words of our own
                used += connection.changes()
        left = _counted(connection, _NAMED.format(table="access", column="content"), who)
    return (
        gone(f"{path.name}: access", requests, apply=apply),
        gone(f"{path.name}: outbox", events, apply=apply),
        gone(f"{path.name}: budgets, counts", used, apply=apply),
        staying(f"{path.name}: access, asked or answered for others", left, _LATER),
    )


def _all_of(connection: apsw.Connection, text: str, who: dict[str, Any]) -> list[str]:
    """Delete until nothing more goes: a session goes after those below it."""
    found: list[str] = []
    while rows := connection.execute(text, who).fetchall():
        found += [str(one) for (one,) in rows]
    return found


def _counted(connection: apsw.Connection, text: str, who: dict[str, Any]) -> int:
    found: Any = connection.execute(text, who).get
    return int(found)


@contextmanager
def _changing(path: Path, *, apply: bool) -> Iterator[apsw.Connection]:
    """Lend a file in a transaction, which is taken back without `apply`; with it, what was deleted is overwritten."""
    try:
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
            connection.set_busy_timeout(_BUSY_MILLISECONDS)
            set_pragmas(connection, "secure_delete=ON")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT" if apply else "ROLLBACK")
            if apply:
                # Rows that were deleted before are in free pages, and in the log.
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except ENGINE_ERRORS as error:
        raise unavailable(error, path=path) from None
