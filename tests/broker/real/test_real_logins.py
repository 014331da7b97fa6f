"""Logins of a real PostgreSQL: they end with all that they have open, whatever happens to broker and database."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from pdp.broker.checkouts import postgres as postgres_module
from pdp.broker.checkouts.making import GRACE_SECONDS
from pdp.broker.checkouts.postgres import PREFIX, Server
from pdp.broker.replacing import renew_password
from pdp.broker.vault import Vault
from pdp.broker.words import DatabaseRefusedError, DatabaseUnavailableError, Secret, SecretVersion
from pdp.calltokens.checkouts import Credential
from pdp.errors import ConflictError
from tests.broker.real.postgresserver import (
    BROKER,
    BROKERS_PASSWORD,
    PAGE,
    SOURCE,
    PostgresServer,
    database,
    running_postgres,
)
from tests.broker.tills import Till, till
from tests.broker.vaults import BY
from tests.machinery.pages import blocks

pytestmark = pytest.mark.credentials


class Full:
    """A vault that stores only so much more."""

    def __init__(self, vault: Vault, more: int) -> None:
        self.open, self._vault, self._more = vault.open, vault, more

    def put(self, id_: str, secret: bytes, *, by: str) -> SecretVersion:
        """Refuse what is too much."""
        if not self._more:
            raise ConflictError("another process was faster")
        self._more -= 1
        return self._vault.put(id_, secret, by=by)


@pytest.fixture(scope="module", params=[16, 18])
def postgres(request: pytest.FixtureRequest, project_root: Path) -> Iterator[PostgresServer]:
    """Run a server of each version, one after the other."""
    with running_postgres(request.param, project_root / ".venv-credentials") as server:
        yield server


@pytest.fixture
def here(postgres: PostgresServer, tmp_path: Path) -> Iterator[Till]:
    """Provide a desk with a connection to the server."""
    with till(tmp_path / "broker", database(postgres.port), secret=BROKERS_PASSWORD.encode()) as made:
        yield made


def session_of(postgres: PostgresServer, login: Credential, name: str = "app") -> Any:
    """Return a session of a database, by a login."""
    return postgres.connected(name, login.user, login.secret)


def test_a_login_ends_with_all_that_it_has_open(postgres: PostgresServer, here: Till) -> None:
    """Sessions in two databases, one of which took on the group; what it made stays, with the group."""
    login = here.ask()
    one, two = session_of(postgres, login), session_of(postgres, login, "other")
    with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
        session_of(postgres, login)
    for session in (one, two):
        session.execute("CREATE TABLE made (n int)")
    one.execute("CREATE FUNCTION made() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    two.execute("SET ROLE app_reader")
    assert [(1,)] == one.execute("SELECT n FROM facts").fetchall() == two.execute("SELECT n FROM facts").fetchall()

    here.end_session()

    for session in (one, two):
        with pytest.raises(psycopg.errors.AdminShutdown):
            session.execute("SELECT n FROM facts")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        session_of(postgres, login)
    assert ([], ["revoked"], ()) == (postgres.roles, here.outcomes, here.store.all())
    for name in ("app", "other"):
        owner = "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'made'"
        assert [("app_reader",)] == postgres.asked(owner, name)
        postgres.asked("DROP TABLE made", name)
    postgres.asked("DROP FUNCTION made()", "app")


def test_a_login_has_what_its_group_has(postgres: PostgresServer, here: Till) -> None:
    """No attribute of its own, and its password is nowhere but in what was handed out."""
    login = here.ask()

    with session_of(postgres, login) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("DELETE FROM facts")

    rows = postgres.asked(
        "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolconnlimit FROM pg_roles"
    )
    assert [(login.user, False, False, False, False, False, 2)] == [row for row in rows if row[0] == login.user]
    assert "CREATE ROLE" in postgres.log
    assert login.secret not in postgres.log
    assert login.secret not in repr((here.record.events, here.store.all(), login))
    here.end_session()


def test_the_role_of_the_page_suffices(postgres: PostgresServer, here: Till) -> None:
    """It is the one with which all of this is done, and no superuser."""
    (row,) = postgres.asked("SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = 'pdp_broker'")

    assert ((False, True), BROKER) == (row, SOURCE.role)
    assert all(one in postgres.log for one in blocks(PAGE, "sql")[0].splitlines())
    here.ask()
    here.end_session()
    assert (["revoked"], []) == (here.outcomes, postgres.roles)


def test_the_end_of_a_login_ends_its_sessions(postgres: PostgresServer, here: Till) -> None:
    """`VALID UNTIL` alone ends none."""
    login = here.ask()
    with session_of(postgres, login) as session:
        here.ahead = SOURCE.seconds - 60
        here.sweeper.sweep()
        assert [(1,)] == session.execute("SELECT n FROM facts").fetchall()

        here.ahead = SOURCE.seconds + 1
        here.sweeper.sweep()
        with pytest.raises(psycopg.errors.AdminShutdown):
            session.execute("SELECT n FROM facts")

    assert ([], ["revoked"]) == (postgres.roles, here.outcomes)


def test_a_database_that_is_down_keeps_no_role(postgres: PostgresServer, here: Till) -> None:
    """For longer than six tries: the pauses grow, and the role is gone in the end."""
    login = here.ask()
    postgres.stop()
    pauses = []
    try:
        here.end_session()
        for _ in range(10):
            (one,) = here.store.all()
            pauses.append(round(one.next_at - here.wall()))
            here.ahead += one.next_at - here.wall() + 1
            here.sweeper.sweep()
        # Long after its own end, too.
        assert here.wall() > login.ends_at
    finally:
        postgres.start()
    assert [login.user] == postgres.roles
    here.ahead += 400
    here.sweeper.sweep()

    assert pauses == sorted(pauses)
    assert 300 == pauses[-1]
    assert ([], ()) == (postgres.roles, here.store.all())
    assert ["failed", "failed", "failed", "failed", "revoked"] == here.outcomes
    assert ["1", "2", "4", "8"] == [facts["tries"] for facts in here.told()[:-1]]


def test_a_broker_that_is_killed_leaves_no_role(postgres: PostgresServer, here: Till, project_root: Path) -> None:
    """Between making the role and noting it. It is not looked for while the database may still be making it."""
    command = [sys.executable, "-m", "tests.broker.real.checkout_process", str(here.folder), str(postgres.port)]
    done = subprocess.run(command, cwd=project_root, check=False)

    assert -signal.SIGKILL == done.returncode
    (one,) = here.store.all()
    here.ahead = one.begun_at - here.wall() + GRACE_SECONDS - 1
    here.sweeper.sweep()
    assert (1, 1) == (len(postgres.roles), len(here.store.all()))
    here.ahead += 2
    here.sweeper.sweep()
    assert ([], ()) == (postgres.roles, here.store.all())
    assert ["revoked"] == here.outcomes


def test_logins_end_under_load(postgres: PostgresServer, here: Till) -> None:
    """Those of one session, each at work, while another session gets logins and keeps them."""
    count, stopped, ended = 8, threading.Event(), []

    def work(login: Credential) -> None:
        try:
            with session_of(postgres, login) as session:
                session.execute("SET ROLE app_reader")
                while not stopped.is_set():
                    session.execute("SELECT count(*) FROM facts, generate_series(1, 1000)")
        except psycopg.OperationalError:
            ended.append(login.user)

    with ThreadPoolExecutor(count + 1) as threads:
        working = [threads.submit(work, here.ask()) for _ in range(count)]
        kept = threads.submit(lambda: [here.ask(session_id="ses_2") for _ in range(count)])
        here.end_session()
        others = [login.user for login in kept.result(60)]
        for one in working:
            one.result(60)
        stopped.set()

    assert count == len(ended)
    assert sorted(others) == sorted(postgres.roles)
    assert ["revoked"] * count == here.outcomes
    here.end_session("ses_2")
    assert [] == postgres.roles


def test_roles_that_no_checkout_names_are_found(postgres: PostgresServer, here: Till) -> None:
    """One that is over is dropped, and one that is not is counted: it may be another broker's."""
    names = [f"{PREFIX}{letter * 26}" for letter in "ab"]
    with postgres.connected("postgres", BROKER, BROKERS_PASSWORD) as session:
        session.execute(f"CREATE ROLE {names[0]} LOGIN VALID UNTIL '2020-01-01'")
        session.execute(f"CREATE ROLE {names[1]} LOGIN VALID UNTIL '2100-01-01'")
    kept = here.ask()

    here.sweeper.look()

    (look,) = here.store.looks()
    assert ("app", 1, "") == (look.connection_id, look.orphans, look.problem)
    assert sorted([names[1], kept.user]) == sorted(postgres.roles)
    assert ["revoked"] == here.outcomes
    postgres.asked(f"DROP ROLE {names[1]}")
    here.end_session()


@pytest.mark.parametrize(
    ("changes", "password", "groups", "problem"),
    [
        ({}, "wrong", ("app_reader",), "it does not take the password"),
        ({}, BROKERS_PASSWORD, ("pg_read_all_data",), "code `42501`"),
        ({}, BROKERS_PASSWORD, ("nobody",), "code `42704`"),
        ({"database": "none"}, BROKERS_PASSWORD, ("app_reader",), "it has no such database"),
    ],
)
def test_a_database_that_refuses_says_what_it_can(
    postgres: PostgresServer, changes: dict[str, Any], password: str, groups: tuple[str, ...], problem: str
) -> None:
    """A wrong password, a group that the broker may not give, one that is not there, and no such database."""
    server = Server(
        host="127.0.0.1", port=postgres.port, source=replace(SOURCE, **changes), password=Secret(password.encode())
    )

    with pytest.raises((DatabaseRefusedError, DatabaseUnavailableError), match=problem) as refused:
        server.create(f"{PREFIX}{'c' * 26}", groups, 4e9)

    assert password not in str(refused.value)
    assert [] == postgres.roles


def test_a_leaked_password_is_replaced(postgres: PostgresServer, here: Till) -> None:
    """Nobody has seen the other one; whoever is in by the former one is out, and logins are made as before."""
    thief = postgres.connected("app", BROKER, BROKERS_PASSWORD)
    try:
        assert 3 == renew_password(here.vault, here.vault.connection("app"), by=BY).version

        with pytest.raises(psycopg.errors.AdminShutdown):
            thief.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            postgres.connected("app", BROKER, BROKERS_PASSWORD)
        fresh = here.vault.open(here.vault.connection("app")).reveal().decode()
        assert fresh not in postgres.log
        here.ask()
        here.end_session()
        assert (["revoked"], []) == (here.outcomes, postgres.roles)
    finally:
        postgres.asked(f"ALTER ROLE {BROKER} PASSWORD '{BROKERS_PASSWORD}'")


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("asked", [0, 1])
def test_a_password_that_cannot_be_stored_locks_nobody_out(
    postgres: PostgresServer, here: Till, monkeypatch: pytest.MonkeyPatch, more: int, asked: int
) -> None:
    """Whichever counts in the database is in the store, also when the database is away once it was `asked`."""
    take, full, times = Server.take_password, cast("Vault", Full(here.vault, more)), iter(range(asked))

    def taking(server: Server, password: Secret) -> None:
        if next(times, None) is None:
            raise DatabaseUnavailableError("away")
        take(server, password)

    try:
        with monkeypatch.context() as away:
            away.setattr(Server, "take_password", taking)
            with pytest.raises((ConflictError, DatabaseUnavailableError)):
                renew_password(full, here.vault.connection("app"), by=BY)

        here.ask()
        here.end_session()
        assert (["revoked"], []) == (here.outcomes, postgres.roles)
        renew_password(here.vault, here.vault.connection("app"), by=BY)
        assert b"\0" not in here.vault.open(here.vault.connection("app")).reveal()
        here.ask()
    finally:
        here.end_session()
        postgres.asked(f"ALTER ROLE {BROKER} PASSWORD '{BROKERS_PASSWORD}'")


@contextmanager
def silent_about(words: bytes, port: int) -> Iterator[int]:
    """Provide a port that leads to another one, and on which nothing passes any more once these words came."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def passing(one: socket.socket, other: socket.socket) -> None:
            with one, other:
                while (said := one.recv(65536)) and words not in said:
                    other.sendall(said)
                if said:
                    # Until the other end has enough of it.
                    while one.recv(65536):
                        pass

        def serving() -> None:
            with suppress(OSError):
                while True:
                    there, _ = listening.accept()
                    behind = socket.create_connection(("127.0.0.1", port))
                    for ends in ((there, behind), (behind.dup(), there.dup())):
                        threading.Thread(target=passing, args=ends, daemon=True).start()

        threading.Thread(target=serving, daemon=True).start()
        yield listening.getsockname()[1]


def test_a_database_that_falls_silent_holds_no_thread(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own limits are nothing that it must keep."""
    monkeypatch.setattr(postgres_module, "_TIMES", 0.05)
    with silent_about(b"CREATE ROLE", postgres.port) as port:
        server = Server(host="127.0.0.1", port=port, source=SOURCE, password=Secret(BROKERS_PASSWORD.encode()))

        with pytest.raises(DatabaseUnavailableError):
            server.create(f"{PREFIX}{'d' * 26}", ("app_reader",), 4e9)


def test_a_server_without_a_certificate_gets_no_password(postgres: PostgresServer, tmp_path: Path) -> None:
    """Where authorities are named, or the server is not on this machine, nothing else will do."""
    roots = tmp_path / "roots.pem"
    roots.write_text("")
    server = Server(
        host="127.0.0.1", port=postgres.port, source=replace(SOURCE, tls_roots=str(roots)), password=Secret(b"x")
    )

    with pytest.raises(DatabaseUnavailableError):
        server.roles()
