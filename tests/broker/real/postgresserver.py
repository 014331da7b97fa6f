"""A real server of PostgreSQL on this machine. Its programs are in a wheel; root starts them as another user."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg

from pdp.broker.words import Connection, LoginSource, Mode
from tests.broker.tills import KIND
from tests.broker.vaults import connection
from tests.machinery.calltokens import CLAIMS
from tests.machinery.pages import blocks
from tests.machinery.servers.postgresprograms import NOBODY, as_another, copy_programs

SUPERUSER, SUPERUSERS_PASSWORD = "postgres", "superuser's"
# As the page makes the role.
BROKER, BROKERS_PASSWORD = "pdp_broker", "chosen by you"
PAGE: Final = Path("pdp/broker/CHECKOUT.md")
SOURCE: Final = LoginSource(database="app", role=BROKER)
_SECONDS = 60.0


@dataclass
class PostgresServer:
    """A server with the databases `app` and `other`, the group `app_reader`, and the broker's role, no superuser."""

    folder: Path
    programs: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    def connected(self, database: str, user: str = SUPERUSER, password: str = SUPERUSERS_PASSWORD) -> Any:
        """Return a connection, in which each statement is a transaction."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, dbname=database, user=user, password=password, autocommit=True
        )

    def asked(self, statement: str, database: str = "postgres") -> list[Any]:
        """Return what a statement of the superuser returns."""
        with self.connected(database) as connection:
            found = connection.execute(statement)
            return list(found.fetchall()) if found.description else []

    @property
    def roles(self) -> list[str]:
        """Return the roles that the broker made."""
        return [name for (name,) in self.asked("SELECT rolname FROM pg_roles WHERE rolname LIKE 'pdp\\_chk\\_%'")]

    @property
    def log(self) -> str:
        """Return what the server has logged."""
        return (self.folder / "log").read_text()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        said = (self.folder / "log").open("ab")
        words = ["postgres", "-D", "data", "-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.folder), "-F"]
        command = [str(self.programs / words[0]), *words[1:], "-c", "log_statement=all"]
        with said:
            self.process = subprocess.Popen([*as_another(), *command], cwd=self.folder, stdout=said, stderr=said)
        ends = time.monotonic() + _SECONDS
        while True:
            try:
                self.connected("postgres").close()
            except psycopg.OperationalError:
                assert self.process.poll() is None, self.log
                assert time.monotonic() < ends, self.log
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End the server at once; what was committed stays."""
        if self.process is not None:
            self.process.send_signal(2)
            self.process.wait(_SECONDS)
            self.process = None


def database(port: int, **more: Any) -> Connection:
    """Return the connection to the server at a port."""
    known = {"upstream": f"postgresql://127.0.0.1:{port}", "kind": KIND, "logins": SOURCE, "modes": (Mode.CHECKOUT,)}
    return connection("app", **{**known, "tenant": CLAIMS.tenant, "scopes": ("app_reader",), **more})


@contextmanager
def running_postgres(version: int, environment: Path) -> Iterator[PostgresServer]:
    """Provide a running server of a version."""
    folder = Path(tempfile.mkdtemp(prefix="pdp-postgres-"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = PostgresServer(folder=folder, programs=copy_programs(environment, version, folder), port=port)
    try:
        (folder / "password").write_text(SUPERUSERS_PASSWORD)
        if as_another():
            shutil.chown(folder, NOBODY)
            shutil.chown(folder / "password", NOBODY)
        words = ["initdb", "-D", "data", "-U", SUPERUSER, "-A", "scram-sha-256", "--pwfile=password", "--no-sync"]
        _run(server, words)
        server.start()
        _prepare(server)
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def _prepare(server: PostgresServer) -> None:
    for statement in (
        "CREATE DATABASE app",
        "CREATE DATABASE other",
        "CREATE ROLE app_reader",
        *blocks(PAGE, "sql")[0].strip().splitlines(),
    ):
        server.asked(statement)
    for database in ("app", "other"):
        server.asked("CREATE TABLE facts (n int)", database)
        server.asked("INSERT INTO facts VALUES (1)", database)
        server.asked("GRANT SELECT ON facts TO app_reader", database)
        server.asked("GRANT CREATE ON SCHEMA public TO app_reader", database)


def _run(server: PostgresServer, words: Sequence[str]) -> None:
    command = [str(server.programs / words[0]), *words[1:]]
    done = subprocess.run([*as_another(), *command], cwd=server.folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
