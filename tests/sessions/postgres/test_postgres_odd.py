"""What a database, a role or a network can be like changes nothing that is promised, or is said at the start."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from pdp.errors import ConfigurationError, StoreUnavailableError
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.values import Cut
from pdp.testing.waiting import wait_until
from tests.sessions.postgres.conftest import PATIENT
from tests.sessions.postgres.postgresserver import PostgresServer

pytestmark = pytest.mark.replicas

_SETTINGS = {
    "default_transaction_isolation": "repeatable read",
    "extra_float_digits": "-4",
    "statement_timeout": "250ms",
    "idle_session_timeout": "100ms",
}


@pytest.fixture
def store(conninfo: str) -> Iterator[PostgresSessionStore]:
    """Give an empty store."""
    with closing(PostgresSessionStore(conninfo, **PATIENT)) as store:
        yield store


@pytest.fixture
def odd_role(server: PostgresServer) -> Iterator[None]:
    """Have the role of the stores come with settings that suit another program."""
    with server.connect() as connection:
        for name, value in _SETTINGS.items():
            connection.execute(f"ALTER ROLE pdp SET {name} = '{value}'")
    yield
    with server.connect() as connection:
        connection.execute("ALTER ROLE pdp RESET ALL")


@pytest.mark.usefixtures("odd_role")
def test_settings_of_a_role_do_not_count(server: PostgresServer, store: PostgresSessionStore) -> None:
    """Whoever has waited for another writer writes all the same; numbers are whole, and nobody ends what is slow."""
    cut = Cut(tenant="default", user="bob", agent="", at=1000.1234567, by="lead", reason="left")
    with ThreadPoolExecutor(1) as pool, server.connect(options="-c statement_timeout=0") as other:
        other.execute("BEGIN; UPDATE pdp_sessions.meta SET revision = revision + 1")
        written = pool.submit(store.cut, cut)
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'pdp'"
        wait_until(lambda: other.execute(waiting).fetchone() is not None)
        other.execute("SELECT pg_sleep(0.6)")
        other.execute("COMMIT")
        written.result(timeout=60)

    assert (cut,) == store.cuts()


def test_only_a_database_of_all_letters_is_used(server: PostgresServer) -> None:
    """Another one would take sessions until the first with a strange letter, and then activate no bundle any more."""
    with server.connect() as connection:
        connection.execute("CREATE DATABASE few ENCODING 'SQL_ASCII' TEMPLATE template0")
    try:
        with pytest.raises(StoreUnavailableError, match="must have the encoding `UTF8`, and this one has `SQL_ASCII`"):
            PostgresSessionStore(server.conninfo.replace("dbname=postgres", "dbname=few"), **PATIENT)
    finally:
        with server.connect() as connection:
            connection.execute("DROP DATABASE few")


@pytest.mark.parametrize("url", ["postgresql://pdp:x@secret@host/db", "postgresql://pdp:x/secret@host/db"])
def test_a_password_that_is_not_written_for_a_url_is_none_of_a_host(url: str) -> None:
    """What follows its first strange letter would be shown as the name of one, or of a database."""
    with pytest.raises(ConfigurationError, match="write `@` and `/` in a password as `%40` and `%2F`") as raised:
        PostgresSessionStore(url, **PATIENT)

    assert "secret" not in str(raised.value)
