"""Logins of a PostgreSQL server: a role for each checkout, with the rights of group roles and no others.

How such a role ends is the point. `DROP ROLE` ends no session of the database, and one that did `SET ROLE` before goes
on reading; `VALID UNTIL` is looked at when a session begins, and never again; and a role that owns something cannot be
dropped. So first nobody can log in any more, then all that are in are put out, then what they made goes to a group role
and what they were given is taken, in each database, and then the role is dropped.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Timer
from typing import Any, Final

import psycopg
from psycopg import sql

from pdp.broker.words import DatabaseRefusedError, DatabaseUnavailableError, LoginSource, Secret
from pdp.foundation.hosts import SHARED
from pdp.foundation.loopback import is_loopback
from pdp.foundation.postgrestexts import why_not_connected

# Roles that are named so are ours, also when no checkout names them.
PREFIX: Final = "pdp_chk_"
_ROLE: Final = re.compile(rf"{PREFIX}[a-z2-7]{{26}}")
_OLDEST: Final = 160000
_CONNECT_SECONDS: Final = 5
# Of those of a server, so many addresses are tried: each takes its time.
_MOST_ADDRESSES: Final = 3
# The longest that a role may be on its way, and that what it owns may take to be given away.
_MAKING_SECONDS, _TAKING_SECONDS = 10, 120
# A connection takes at most so many times that: a server that says nothing keeps no limit of its own.
_TIMES: Final = 2.5
# What waits behind a lock of somebody else fails, and is tried again.
_LOCK_SECONDS: Final = 5
# Until all sessions of a role have ended after they were told to.
_END_SECONDS: Final = 5.0

_SESSIONS: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = %s"
_OTHERS: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE usesysid = (SELECT oid FROM pg_roles WHERE rolname = current_user) AND pid <> pg_backend_pid()
"""
_DATABASES: Final = """
SELECT DISTINCT datname FROM pg_shdepend JOIN pg_database ON pg_database.oid = dbid
WHERE refclassid = 'pg_authid'::regclass AND refobjid = %s ORDER BY datname
"""
_GROUP: Final = """
SELECT rolname FROM pg_auth_members JOIN pg_roles ON pg_roles.oid = roleid WHERE member = %s ORDER BY rolname LIMIT 1
"""
_OURS: Final = "SELECT rolname, extract(epoch FROM rolvaliduntil)::float8 FROM pg_roles WHERE rolname ~ %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a login needs to be used, but for the password: where, and as whom."""

    host: str
    port: int
    database: str
    user: str
    password: Secret = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server, and the role as which the broker makes logins there: no superuser, but one with `CREATEROLE`.

    Methods raise `DatabaseUnavailableError` when it does not answer, and `DatabaseRefusedError` when it refuses. What
    they raise holds no word of the server but its code (SQLSTATE).
    """

    host: str
    port: int
    source: LoginSource
    password: Secret = field(repr=False)

    def create(self, role: str, groups: Sequence[str], ends_at: float) -> Login:
        """Make a login that can be used until a time, in unix seconds, and has the rights of the groups."""
        password = secrets.token_urlsafe(32)
        with self._connected(self.source.database) as connection:
            connection.execute(
                sql.SQL(
                    "CREATE ROLE {} LOGIN PASSWORD {} VALID UNTIL {} CONNECTION LIMIT {} IN ROLE {} "
                    "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT"
                ).format(
                    sql.Identifier(required_role(role)),
                    _verifier(connection, role, password.encode()),
                    sql.Literal(datetime.fromtimestamp(ends_at, UTC).isoformat()),
                    sql.Literal(self.source.sessions),
                    sql.SQL(", ").join(map(sql.Identifier, groups)),
                )
            )
        return Login(
            host=self.host,
            port=self.port,
            database=self.source.database,
            user=role,
            password=Secret(password.encode()),
        )

    def drop(self, role: str) -> bool:
        """End a login, with all its sessions and all that it was given. Say whether there was one.

        Whatever it raises, nobody can log in any more when the server was reached. Call it again until it returns.
        """
        name = sql.Identifier(required_role(role))
        with self._connected(self.source.database, seconds=_TAKING_SECONDS) as connection:
            try:
                number = _number_of(connection, role)
                if number is None:
                    return False
                connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(name))
                _end_sessions(connection, number)
                self._take_all(connection, name, number)
                connection.execute(sql.SQL("DROP ROLE {}").format(name))
                # One that was let in just before, and that was not to be seen yet.
                _end_sessions(connection, number)
            except psycopg.errors.UndefinedObject:
                if _number_of(connection, role) is not None:
                    raise
                # Another process was faster.
                return False
        return True

    def take_password(self, password: Secret) -> None:
        """Give the broker's own role another password. Sessions that are open go on."""
        with self._connected(self.source.database) as connection:
            verifier = _verifier(connection, self.source.role, password.reveal())
            connection.execute(sql.SQL("ALTER ROLE CURRENT_USER PASSWORD {}").format(verifier))

    def end_others(self) -> None:
        """End all sessions of the broker's own role, but for the one that does so."""
        with self._connected(self.source.database) as connection:
            connection.execute(_OTHERS)

    def lets_in(self) -> bool:
        """Say whether the server lets the broker in now, with the password that is here."""
        try:
            with self._connected(self.source.database):
                return True
        except DatabaseUnavailableError:
            return False

    def roles(self) -> Mapping[str, float]:
        """Return all roles that are ours by name, each with its end in unix seconds."""
        with self._connected(self.source.database) as connection:
            rows = connection.execute(_OURS, (f"^{_ROLE.pattern}$",)).fetchall()
        return {name: float("inf") if ends_at is None else ends_at for name, ends_at in rows}

    def _take_all(self, connection: psycopg.Connection, name: sql.Identifier, number: int) -> None:
        """Give what a role owns to its group, and take from it what it was given, wherever that is."""
        # Whoever made a role may give it to anyone, and must have it to do what follows.
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE").format(name))
        row = connection.execute(_GROUP, (number,)).fetchone()
        heir = sql.Identifier(row[0]) if row else sql.SQL("CURRENT_USER")
        databases = [database for (database,) in connection.execute(_DATABASES, (number,)).fetchall()]
        for database in {self.source.database: None, **dict.fromkeys(databases)}:
            with self._connected(database, seconds=_TAKING_SECONDS) as there, there.transaction():
                there.execute(sql.SQL("REASSIGN OWNED BY {} TO {}").format(name, heir))
                there.execute(sql.SQL("DROP OWNED BY {}").format(name))

    @contextmanager
    def _connected(self, database: str, *, seconds: int = _MAKING_SECONDS) -> Iterator[psycopg.Connection]:
        """Connect to a database of the server, with nothing taken from the environment of this process.

        A statement takes at most `seconds`, also when the server says nothing any more.
        """
        try:
            with (
                psycopg.connect(autocommit=True, **self._placed(database, seconds)) as connection,
                _ending(connection, seconds * _TIMES),
            ):
                if connection.info.server_version < _OLDEST:
                    raise DatabaseRefusedError(f"the server at `{self.host}` is older than PostgreSQL 16")
                yield connection
        except psycopg.OperationalError as error:
            reason = f": {why}" if (why := why_not_connected(str(error))) else ""
            problem = _code(error) or reason or ", or does not let the broker in: see its log"
            raise DatabaseUnavailableError(f"the database at `{self.host}` does not answer{problem}") from None
        except psycopg.Error as error:
            raise DatabaseRefusedError(f"the database at `{self.host}` refuses{_code(error)}") from None

    def _placed(self, database: str, seconds: int) -> dict[str, Any]:
        try:
            return SHARED.placed(self._parameters(database, seconds), _CONNECT_SECONDS, most=_MOST_ADDRESSES)
        except TimeoutError:
            raise psycopg.OperationalError("the look-up of its host takes too long") from None
        except (OSError, UnicodeError):
            raise psycopg.OperationalError("failed to resolve host") from None

    def _parameters(self, database: str, seconds: int) -> dict[str, Any]:
        plain = is_loopback(self.host) and not self.source.tls_roots
        return {
            "host": self.host,
            "hostaddr": "",
            "port": self.port,
            "dbname": database,
            "user": self.source.role,
            "password": self.password.reveal().decode(),
            "passfile": "",
            "sslmode": "disable" if plain else "verify-full",
            "sslrootcert": "" if plain else self.source.tls_roots or _system_roots(),
            "sslcert": "",
            "sslkey": "",
            "gssencmode": "disable",
            # A server that asks for the password itself gets nothing.
            "require_auth": "scram-sha-256",
            "target_session_attrs": "read-write",
            "connect_timeout": _CONNECT_SECONDS,
            "application_name": "pdp-broker",
            "options": f"-c statement_timeout={seconds}s -c lock_timeout={_LOCK_SECONDS}s",
        }


@contextmanager
def _ending(connection: psycopg.Connection, seconds: float) -> Iterator[None]:
    """Cut a connection off when it takes longer: the library waits for a server for ever."""
    with closing(socket.socket(fileno=os.dup(connection.fileno()))) as held:
        timer = Timer(seconds, _cut, [held])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            # INVARIANT: it has its hands off the number of the socket before that is given to another one.
            timer.join()


def _cut(held: socket.socket) -> None:
    with suppress(OSError):
        held.shutdown(socket.SHUT_RDWR)


def required_role(role: str) -> str:
    """Return the name of a role as it is. Raise `DatabaseRefusedError` unless it is one of ours."""
    if not _ROLE.fullmatch(role):
        raise DatabaseRefusedError("not the name of a role that the broker makes")
    return role


def _verifier(connection: psycopg.Connection, role: str, password: bytes) -> sql.Literal:
    """Return what a server gets of a password, so that no log of statements can hold it."""
    return sql.Literal(connection.pgconn.encrypt_password(password, role.encode(), b"scram-sha-256").decode())


def _number_of(connection: psycopg.Connection, role: str) -> int | None:
    row = connection.execute("SELECT oid FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    return int(row[0]) if row else None


def _end_sessions(connection: psycopg.Connection, number: int) -> None:
    """End all sessions of a role. Raise `DatabaseUnavailableError` when one does not end in time."""
    until = time.monotonic() + _END_SECONDS
    while connection.execute(_SESSIONS, (number,)).fetchall():
        if time.monotonic() > until:
            raise DatabaseUnavailableError("a session of the login does not end")
        connection.execute("SELECT pg_sleep(0.01)")


def _system_roots() -> str:
    """Return the file of the system's authorities: the library that comes with psycopg looks elsewhere."""
    return ssl.get_default_verify_paths().cafile or "system"


def _code(error: psycopg.Error) -> str:
    return f": code `{error.sqlstate}`" if error.sqlstate else ""
