"""The statements of a move, which SQLite and PostgreSQL both understand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pdp.errors import StoreUnavailableError
from pdp.sessions.moving import META, Content, Half, Mark, Standing, Table
from pdp.sessions.sql import Statements

# Some rows hold the arguments of a call, or a bundle.
BATCH: Final = 200
# Each engine has versions of its own.
_VERSIONS: Final = ((Half.SESSIONS, META, "schema_version"), (Half.HISTORY, "history", "version"))
_CREATE: Final = "CREATE TABLE moving (id TEXT PRIMARY KEY, standing TEXT NOT NULL, other TEXT NOT NULL, at FLOAT)"


def read_mark(sessions: Statements) -> Mark | None:
    """Return what a store with a table for it notes of a move."""
    row = sessions.execute("SELECT id, standing, other, at FROM moving").fetchone()
    return Mark(id=row[0], standing=Standing(row[1]), other=row[2], at=row[3]) if row else None


def write_mark(sessions: Statements, mark: Mark) -> None:
    """Note a move; the last one is over."""
    sessions.execute("DROP TABLE IF EXISTS moving")
    sessions.execute(_CREATE)
    sessions.execute("INSERT INTO moving VALUES (?, ?, ?, ?)", (mark.id, mark.standing.value, mark.other, mark.at))


def put_aside(sessions: Statements, mark: Mark) -> None:
    """Note a move and let no program start on the store, nor go on with it."""
    write_mark(sessions, mark)
    sessions.execute("ALTER TABLE meta RENAME TO meta_aside")


def put_back(sessions: Statements) -> None:
    """Let servers start on what has arrived."""
    sessions.execute("ALTER TABLE meta_aside RENAME TO meta")
    sessions.execute("UPDATE moving SET standing = ?", (Standing.ARRIVED.value,))


def forget_mark(sessions: Statements) -> None:
    """Remove the note of a move."""
    sessions.execute("DROP TABLE IF EXISTS moving")


def fill(
    into: Callable[[Half], Statements], new: tuple[Table, ...], content: Content, copied: Callable[[str], None]
) -> None:
    """Write a content into new tables, in the transaction of the caller, and name each table when it is complete.

    Raise `StoreUnavailableError` unless both have the same tables with the same columns.
    """
    require_same(content.tables(), new)
    for table in new:
        statements = into(table.half)
        own = [(column, _version(statements, table, column)) for column in _versions(table)]
        statements.execute(f"DELETE FROM {table.name}")  # noqa: S608 - a name of our own tables
        names, marks = ", ".join(f'"{one}"' for one in table.columns), ", ".join("?" * len(table.columns))
        for rows in content.rows(table):
            into(table.half).executemany(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", rows)  # noqa: S608 - the same
        for column, version in own:
            into(table.half).execute(f"UPDATE {table.name} SET {column} = ?", (version,))  # noqa: S608 - the same
        copied(f"{table.half.value}.{table.name}")


def require_same(source: tuple[Table, ...], target: tuple[Table, ...]) -> None:
    """Raise `StoreUnavailableError` for a table or column that one of two stores does not have."""
    columns = [{(one.half, one.name, column) for one in side for column in one.columns} for side in (source, target)]
    for half, name, column in sorted(columns[0] ^ columns[1]):
        raise StoreUnavailableError(f"only one of the two stores has the column `{half.value}.{name}.{column}`")


def _versions(table: Table) -> list[str]:
    return [column for half, name, column in _VERSIONS if (half, name) == (table.half, table.name)]


def _version(statements: Statements, table: Table, column: str) -> int:
    return int(statements.execute(f"SELECT {column} FROM {table.name}").get)  # noqa: S608 - the same
