"""A primary and two standbys that stream from it, for tests of what happens when the primary is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from pdp.testing.waiting import wait_until
from tests.sessions.postgres.postgresserver import PostgresServer, reload

QUORUM = "ANY 1 (a, b)"
_PATIENCE = 60.0


class Cluster:
    """A primary with standbys `a` and `b`. With `synchronous`, a commit waits for one of them."""

    def __init__(self, primary: PostgresServer, *, synchronous: bool) -> None:
        self.primary = primary
        if synchronous:
            # Before they are copied, so that they have it when they are promoted.
            with primary.connect() as connection:
                connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{QUORUM}'")
        self.standbys = [primary.standby(primary.folder / name, name) for name in ("a", "b")]
        self._servers = [primary, *self.standbys]
        # Processes of the primary that send nothing any more.
        self._stopped: list[int] = []
        if synchronous:
            with primary.connect() as connection:
                reload(connection)
        wait_until(lambda: self._streaming(primary) == len(self.standbys), seconds=_PATIENCE)

    @property
    def conninfo(self) -> str:
        """Return the connection string with all servers."""
        hosts = ",".join("127.0.0.1" for _ in self._servers)
        ports = ",".join(str(one.port) for one in self._servers)
        return f"host={hosts} port={ports} user=pdp dbname=postgres"

    def cut_off(self) -> None:
        """Have the standbys get nothing more, once they have what there is; no connection ends."""
        lagging = "SELECT 1 FROM pg_stat_replication WHERE replay_lsn IS NULL OR replay_lsn < pg_current_wal_lsn()"
        with self.primary.connect() as connection:
            wait_until(lambda: connection.execute(lagging).fetchone() is None, seconds=_PATIENCE)
            self._stopped = [pid for (pid,) in connection.execute("SELECT pid FROM pg_stat_replication")]
            for pid in self._stopped:
                os.kill(pid, signal.SIGSTOP)
            for pid in self._stopped:
                wait_until(partial(_is_stopped, pid))

    def reconnect(self) -> None:
        """Have the standbys get everything again."""
        for pid in self._stopped:
            os.kill(pid, signal.SIGCONT)
        self._stopped = []

    def fail_over(self) -> PostgresServer:
        """Kill the primary, promote the standby that has more, and have the other one follow it; return the new one."""
        self.primary.kill()
        for pid in self._stopped:
            os.kill(pid, signal.SIGKILL)
        self._stopped = []
        # What it has sent until now has been received when it is known to be gone.
        wait_until(lambda: not any(map(_receives, self.standbys)), seconds=_PATIENCE)
        return self.promote()

    def promote(self) -> PostgresServer:
        """Promote the standby that has more, whether the primary lives or not, and have the other one follow it."""
        new, other = sorted(self.standbys, key=_received, reverse=True)
        new.promote()
        source = f"host=127.0.0.1 port={new.port} user=pdp application_name={other.folder.name}"
        with other.connect() as connection:
            connection.execute(f"ALTER SYSTEM SET primary_conninfo = '{source}'")
            connection.execute("SELECT pg_reload_conf()")
        self.primary, self.standbys = new, [other]
        return new

    def stop(self) -> None:
        """End all servers; standbys first, so that a primary waits for none."""
        self.reconnect()
        for server in reversed(self._servers):
            server.stop()

    @staticmethod
    def _streaming(primary: PostgresServer) -> int:
        with primary.connect() as connection:
            found = connection.execute("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").fetchone()
            return int(found[0]) if found else 0


@contextmanager
def replicated(version: int, *, synchronous: bool) -> Iterator[Cluster]:
    """Run a primary and its standbys in the `with` block."""
    with TemporaryDirectory(prefix="pdp-postgres-") as folder, ExitStack() as opened:
        primary = PostgresServer(Path(folder), version)
        opened.callback(primary.stop)
        cluster = Cluster(primary, synchronous=synchronous)
        opened.callback(cluster.stop)
        yield cluster


def _is_stopped(pid: int) -> bool:
    return ") T " in Path(f"/proc/{pid}/stat").read_text(encoding="ascii")


def _receives(standby: PostgresServer) -> bool:
    with standby.connect() as connection:
        return connection.execute("SELECT 1 FROM pg_stat_wal_receiver").fetchone() is not None


def _received(standby: PostgresServer) -> int:
    with standby.connect() as connection:
        found = connection.execute("SELECT pg_last_wal_receive_lsn() - '0/0'").fetchone()
        return int(found[0]) if found else 0
