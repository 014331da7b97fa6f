"""Inspect a session store in PostgreSQL, and what its server may lose, without changing it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Final

from pdp.errors import StoreUnavailableError
from pdp.model import SessionState
from pdp.sessions.care import StoreReport
from pdp.sessions.postgresconnection import PostgresConnection
from pdp.sessions.postgrestables import POSTGRES_SCHEMA_VERSION, mark_of

_BUSY_SECONDS: Final = 5.0
# Without these, what was acknowledged may be lost in a crash of its machine.
_SAFE: Final = ("fsync", "full_page_writes")


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresReport:
    """What the tables of a store hold, None without tables, and what its server says of itself.

    `unsafe` are settings that are not safe, and `standbys` is `synchronous_standby_names`.
    """

    tables: StoreReport | None
    unsafe: tuple[str, ...]
    standbys: str


def inspect_postgres(conninfo: str, *, namespace: str = "pdp") -> PostgresReport:
    """Report what a store in a database holds, and how safe it is there.

    Raise `StoreUnavailableError` when it cannot be read, and `ConfigurationError` for no connection string.
    """
    tables = f"{namespace}_sessions"
    connection = PostgresConnection(conninfo, namespace=tables, name="session store", busy_seconds=_BUSY_SECONDS)
    with closing(connection), connection.answering(), connection.snapshot():
        query = "SELECT name FROM pg_settings WHERE name IN (?, ?) AND setting = 'off' ORDER BY name"
        unsafe = tuple(str(name) for (name,) in connection.execute(query, _SAFE))
        standbys = str(connection.execute("SELECT current_setting('synchronous_standby_names')").get)
        if connection.execute("SELECT CAST(to_regclass(?) AS text)", (f"{tables}.meta",)).get is None:
            if (mark := mark_of(connection, tables)) is not None:
                raise StoreUnavailableError(mark.refusal(connection.place))
            return PostgresReport(tables=None, unsafe=unsafe, standbys=standbys)
        version, revision, high_water_at = connection.execute(_META).get
        counts = dict(connection.execute("SELECT state, count(*) FROM sessions GROUP BY state").fetchall())
        sessions = {state: int(counts.get(state.value, 0)) for state in SessionState}
        report = StoreReport(
            schema_version=version,
            sessions=sessions,
            revision=revision,
            high_water_at=high_water_at,
            known_schema=POSTGRES_SCHEMA_VERSION,
        )
        return PostgresReport(tables=report, unsafe=unsafe, standbys=standbys)


_META: Final = "SELECT schema_version, revision, high_water_at FROM meta"
