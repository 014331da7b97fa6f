"""Inspect a session store in PostgreSQL, and what its server may lose, without changing it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from secrets import token_hex
from typing import Final

from pdp.errors import StoreUnavailableError
from pdp.model import SessionState
from pdp.sessions.care import StoreReport
from pdp.sessions.lease import CLOCK_RATE
from pdp.sessions.postgresbeginning import SERVERS, ServerRow
from pdp.sessions.postgresconnection import PostgresConnection
from pdp.sessions.postgreslease import DATABASE_TIME
from pdp.sessions.postgresreplicas import EVERY_SECONDS
from pdp.sessions.postgressteps import POSTGRES_SCHEMA_VERSION
from pdp.sessions.postgrestables import mark_of
from pdp.sessions.sql import required

_BUSY_SECONDS: Final = 5.0
# A notification comes within milliseconds.
_HEARD_SECONDS: Final = 2.0
# Without these, what was acknowledged may be lost in a crash of its machine.
_SAFE: Final = ("fsync", "full_page_writes")


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresReport:
    """What the tables of a store hold, None without tables, and what its server says of itself.

    `there` and `begun` are as in `postgressteps.py`. `unsafe` are settings that are not safe, `standbys` is
    `synchronous_standby_names`, and `at` the time of its clock, unix seconds. `deployment` names the database; it is
    empty without tables.
    """

    tables: StoreReport | None
    there: int = 0
    begun: int = 0
    unsafe: tuple[str, ...]
    standbys: str
    at: float
    deployment: str = ""


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
        at = float(connection.execute(DATABASE_TIME).get)
        if connection.execute("SELECT CAST(to_regclass(?) AS text)", (f"{tables}.meta",)).get is None:
            if (mark := mark_of(connection, tables)) is not None:
                raise StoreUnavailableError(mark.refusal(connection.place))
            return PostgresReport(tables=None, unsafe=unsafe, standbys=standbys, at=at)
        version, revision, high_water_at = required(connection.execute(_META).get, "meta")
        counts = dict(connection.execute("SELECT state, count(*) FROM sessions GROUP BY state").fetchall())
        sessions = {state: int(counts.get(state.value, 0)) for state in SessionState}
        report = StoreReport(
            schema_version=version,
            sessions=sessions,
            revision=revision,
            high_water_at=high_water_at,
            known_schema=POSTGRES_SCHEMA_VERSION,
        )
        # Programs before the first additive step have none.
        there, begun = (
            required(connection.execute("SELECT there, begun FROM steps").get, "steps")
            if connection.execute("SELECT CAST(to_regclass(?) AS text)", (f"{tables}.steps",)).get
            else (version, version)
        )
        deployment = str(required(connection.execute("SELECT id FROM deployment").get, "deployment"))
        return PostgresReport(
            tables=report,
            there=there,
            begun=begun,
            unsafe=unsafe,
            standbys=standbys,
            at=at,
            deployment=deployment,
        )


def heard_after(conninfo: str, *, notifying: str = "", seconds: float = _HEARD_SECONDS) -> float | None:
    """Return after how many seconds a notification of ours comes back; None when it does not.

    It comes from a second connection, by `notifying` where that is another connection string. A pooler that gives a
    connection to several clients loses it. Raise `StoreUnavailableError` when the database does not answer.
    """
    channel, heard = f"doctor_{token_hex(8)}", list[float]()

    def opened(conninfo: str) -> PostgresConnection:
        return PostgresConnection(conninfo, namespace="pdp_sessions", name="session store", busy_seconds=0.0)

    with closing(opened(conninfo)) as listening, closing(opened(notifying or conninfo)) as other, other.answering():
        listening.listen(channel, lambda: heard.append(time.monotonic()))
        began = time.monotonic()
        other.execute(f"NOTIFY {channel}")
        while not heard and time.monotonic() - began < seconds:
            # The answer to a statement brings what was notified before.
            listening.execute("SELECT pg_sleep(0.001)")
    return heard[0] - began if heard else None


def silent_machines(
    conninfo: str, *, namespace: str = "pdp", pause: Callable[[float], object] = time.sleep
) -> tuple[int, float]:
    """Count the machines that do not renew their leases; return it with the longest of those leases, in seconds.

    It waits for as long as the leases last, if there are any. Raise `StoreUnavailableError` when they cannot be read.
    """
    tables = f"{namespace}_sessions"
    connection = PostgresConnection(conninfo, namespace=tables, name="session store", busy_seconds=_BUSY_SECONDS)
    with closing(connection), connection.answering():
        before = {row[0]: row for row in connection.execute(_LEASES)}
        if before:
            pause(max(seconds for *_, seconds in before.values()) * CLOCK_RATE)
        silent = [row for row in connection.execute(_LEASES) if before.get(row[0]) == row]
    return len(silent), max((seconds for *_, seconds in silent), default=0.0)


def live_servers(
    conninfo: str, *, namespace: str = "pdp", pause: Callable[[float], object] = time.sleep
) -> tuple[ServerRow, ...]:
    """Return the servers that say that they are there, each with the version of the tables that it knows.

    It waits for them to say so again, if there are any. Raise `StoreUnavailableError` when they cannot be read.
    """
    tables = f"{namespace}_sessions"
    connection = PostgresConnection(conninfo, namespace=tables, name="session store", busy_seconds=_BUSY_SECONDS)
    with closing(connection), connection.answering():
        before = {ServerRow(*row) for row in connection.execute(SERVERS)}
        if before:
            pause(_LISTENING_SECONDS)
        return tuple(row for found in connection.execute(SERVERS) if (row := ServerRow(*found)) not in before)


# Three times as long as a server is silent in between.
_LISTENING_SECONDS: Final = 3 * EVERY_SECONDS
_LEASES: Final = "SELECT id, renewals, lease_seconds FROM replicas"
_META: Final = "SELECT schema_version, revision, high_water_at FROM meta"
