"""A server of PostgreSQL for tests, from a package of a registry."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from pdp.testing.waiting import wait_until
from tests.machinery.ports import free_port
from tests.machinery.servers.postgresprograms import NOBODY, VERSIONS, as_another, copy_programs

# Where `make replicas` installs it.
INSTALLED = Path(__file__).parents[3] / ".venv-replicas"


class PostgresServer:
    """A server in a folder, which listens on one port of this machine; as a standby `of` another one, with a `name`.

    Without a `port` it takes one that is free.
    """

    def __init__(
        self,
        folder: Path,
        version: int,
        *,
        of: PostgresServer | None = None,
        name: str = "",
        durable: bool = False,
        port: int = 0,
    ) -> None:
        assert (INSTALLED / VERSIONS[version]).is_dir(), f"there is no `{INSTALLED}`: run `make replicas`"
        self.folder, self._data = folder, folder / "data"
        # No test ends the machine.
        self._fsync = "on" if durable else "off"
        self._version, self.port = version, port or free_port()
        self._user = as_another()
        self._programs: Path = of._programs if of is not None else copy_programs(INSTALLED, version, folder)
        folder.chmod(0o755)
        self._data.mkdir(mode=0o700)
        if self._user:
            os.chown(self._data, NOBODY, NOBODY)
        if of is None:
            self._run("initdb", "--auth=trust", "--username=pdp", "--encoding=UTF8", "--no-locale", "--no-sync")
        else:
            source = f"host=127.0.0.1 port={of.port} user=pdp application_name={name}"
            self._run("pg_basebackup", "-d", source, "-R", "-X", "stream", "--checkpoint=fast", "--no-sync")
        self._process = self._started()

    @property
    def conninfo(self) -> str:
        """Return its connection string."""
        return self.conninfo_at(self.port)

    def conninfo_at(self, port: int) -> str:
        """Return the connection string by way of something that listens on another port."""
        return f"host=127.0.0.1 port={port} user=pdp dbname=postgres"

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        """Open a connection of our own to it, which commits each statement."""
        return psycopg.connect(self.conninfo, autocommit=True, **options)

    def restart(self) -> None:
        """Kill it as a crash does, and start it again."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(timeout=60)
        self._process = self._started()

    def standby(self, folder: Path, name: str, *, port: int = 0) -> PostgresServer:
        """Return a standby in a folder, which streams from this server."""
        folder.mkdir()
        return PostgresServer(folder, self._version, of=self, name=name, port=port)

    def kill(self) -> None:
        """Kill it; its other processes end when they notice."""
        self._process.kill()
        # As its parent: where nobody waits for it, its lock would stay.
        self._process.wait(timeout=60)

    def promote(self) -> None:
        """Make this standby a primary."""
        with self.connect() as connection:
            assert connection.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)

    def start(self) -> None:
        """Start it again after `stop`."""
        self._process = self._started()

    def stop(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=60)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._user, str(self._programs / program), "-D", str(self._data), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr

    def _started(self) -> subprocess.Popen[bytes]:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": self._fsync,
            "shared_buffers": "16MB",
            "max_connections": "50",
            # A standby that has lost its primary tries again soon.
            "wal_retrieve_retry_interval": "100ms",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "server.log").open("ab") as log:
            command = [*self._user, str(self._programs / "postgres"), "-D", str(self._data), *options]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        give_up_at = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < give_up_at:
            try:
                self.connect(connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return process
        process.kill()
        raise AssertionError((self.folder / "server.log").read_text())


@contextmanager
def running(version: int, *, durable: bool = False) -> Iterator[PostgresServer]:
    """Run a server in the `with` block, which flushes commits if it is `durable`."""
    with TemporaryDirectory(prefix="pdp-postgres-") as folder:
        server = PostgresServer(Path(folder), version, durable=durable)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def set_to(server: PostgresServer, **settings: str) -> Iterator[None]:
    """Have settings of the server in the `with` block."""
    with server.connect() as connection:
        for name, value in settings.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        reload(connection)
        try:
            yield
        finally:
            connection.execute("SET default_transaction_read_only = off")
            for name in settings:
                connection.execute(f"ALTER SYSTEM RESET {name}")
            reload(connection)


def cancel_commits(server: PostgresServer) -> None:
    """Cancel a commit that waits for a standby, as soon as there is one."""
    cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    with server.connect() as connection:
        wait_until(lambda: connection.execute(cancel).fetchone() is not None)


def reload(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Have all processes of a server go by its settings."""
    # Each is told in turn, so when this one is told once more, all have been told before, and take the settings before
    # their next statement. Whether a commit waits for standbys is up to the checkpointer, so it has to do something.
    _tell(connection)
    _tell(connection)
    connection.execute("CHECKPOINT")


def _tell(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    before = connection.execute("SELECT pg_conf_load_time()").fetchone()
    connection.execute("SELECT pg_reload_conf()")
    wait_until(lambda: connection.execute("SELECT pg_conf_load_time()").fetchone() != before)
