"""A primary and standbys that stream from it, for tests of what happens when the primary is lost."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from pdp.testing.waiting import wait_until
from tests.sessions.postgres.postgresserver import PostgresServer, reload

QUORUM = "ANY 1 (a, b)"
_PATIENCE = 60.0


class Cluster:
    """A primary, with standbys `a` and `b` if it has any. With `synchronous`, a commit waits for one of them."""

    def __init__(self, primary: PostgresServer, *, synchronous: bool, alone: bool = False) -> None:
        self.primary = primary
        if synchronous:
            # Before they are copied, so that they have it when they are promoted.
            with primary.connect() as connection:
                connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{QUORUM}'")
        # By their names, of which the primary has none.
        self._named = {} if alone else {name: primary.standby(primary.folder / name, name) for name in ("a", "b")}
        self.standbys = [*self._named.values()]
        self.servers = [primary, *self.standbys]
        self._folder, self._rebuilt = primary.folder, 0
        # Processes of the primary that send nothing any more.
        self._stopped: list[int] = []
        if synchronous:
            with primary.connect() as connection:
                reload(connection)
        self.wait_for_standbys()

    @property
    def conninfo(self) -> str:
        """Return the connection string with all servers."""
        hosts = ",".join("127.0.0.1" for _ in self.servers)
        ports = ",".join(str(one.port) for one in self.servers)
        return f"host={hosts} port={ports} user=pdp dbname=postgres"

    def wait_for_standbys(self) -> None:
        """Wait until all standbys stream from the primary."""
        wait_until(lambda: self._streaming(self.primary) == len(self.standbys), seconds=_PATIENCE)

    def cut_off(self, *, up_to_date: bool = True) -> None:
        """Have the standbys get nothing more, once they are `up_to_date`; no connection ends."""
        lagging = "SELECT 1 FROM pg_stat_replication WHERE replay_lsn IS NULL OR replay_lsn < pg_current_wal_lsn()"
        with self.primary.connect() as connection:
            if up_to_date:
                wait_until(lambda: connection.execute(lagging).fetchone() is None, seconds=_PATIENCE)
            self._stopped = [pid for (pid,) in connection.execute("SELECT pid FROM pg_stat_replication")]
        pause(self._stopped)

    def reconnect(self) -> None:
        """Have the standbys get everything again."""
        resume(self._stopped)
        self._stopped = []

    def fail_over(self) -> PostgresServer:
        """Kill the primary, promote the standby that has most, and have the others follow it; return the new one."""
        self.kill(self.primary)
        # What it has sent until now has been received when it is known to be gone.
        wait_until(lambda: not any(map(_receives, self.standbys)), seconds=_PATIENCE)
        return self.promote()

    def kill(self, primary: PostgresServer) -> None:
        """Kill a primary with its processes that are stopped."""
        primary.kill()
        _tell(self._stopped, signal.SIGKILL)
        self._stopped = []

    def promote(self) -> PostgresServer:
        """Promote the standby that has most, whether the primary lives or not, and have the others follow it."""
        # What is still on its way to one of them would count after they were compared.
        for standby in self.standbys:
            _follow(standby, "")
        wait_until(lambda: not any(map(_receives, self.standbys)), seconds=_PATIENCE)
        new, *others = sorted(self.standbys, key=_received, reverse=True)
        new.promote()
        for other in others:
            _follow(other, f"host=127.0.0.1 port={new.port} user=pdp application_name={self._name_of(other)}")
        self.primary, self.standbys = new, others
        return new

    def rejoin(self, lost: PostgresServer) -> None:
        """Have a new standby listen where a primary did that was killed, under the name of what was promoted."""
        shutil.rmtree(lost.folder / "data", ignore_errors=True)
        self._rebuilt += 1
        name = self._name_of(self.primary)
        standby = self.primary.standby(self._folder / f"{name}{self._rebuilt}", name, port=lost.port)
        self._named[name] = standby
        self.servers[self.servers.index(lost)] = standby
        self.standbys.append(standby)
        self.wait_for_standbys()

    def stop(self) -> None:
        """End all servers; standbys first, so that a primary waits for none."""
        self.reconnect()
        for server in reversed(self.servers):
            server.stop()

    def _name_of(self, server: PostgresServer) -> str:
        return next(name for name, one in self._named.items() if one is server)

    @staticmethod
    def _streaming(primary: PostgresServer) -> int:
        try:
            with primary.connect() as connection:
                found = connection.execute("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'").fetchall()
        except psycopg.OperationalError:
            # It starts again, and has none yet.
            return -1
        return len(found)


@contextmanager
def replicated(version: int, *, synchronous: bool, alone: bool = False) -> Iterator[Cluster]:
    """Run a primary and its standbys, or a primary `alone`, in the `with` block."""
    with TemporaryDirectory(prefix="pdp-postgres-") as folder, ExitStack() as opened:
        primary = PostgresServer(Path(folder), version)
        opened.callback(primary.stop)
        cluster = Cluster(primary, synchronous=synchronous, alone=alone)
        opened.callback(cluster.stop)
        yield cluster


def _follow(standby: PostgresServer, source: str) -> None:
    """Have a standby stream from another server; from none without a connection string."""
    with standby.connect() as connection:
        connection.execute(f"ALTER SYSTEM SET primary_conninfo = '{source}'")
        connection.execute("SELECT pg_reload_conf()")


def pause(pids: Sequence[int]) -> None:
    """Stop processes for now; return when they are."""
    _tell(pids, signal.SIGSTOP)
    for pid in pids:
        wait_until(partial(_is_stopped, pid))


def resume(pids: Sequence[int]) -> None:
    """Let processes go on."""
    _tell(pids, signal.SIGCONT)


def _tell(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        # It may have ended meanwhile.
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _is_stopped(pid: int) -> bool:
    try:
        return ") T " in Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return True


def _receives(standby: PostgresServer) -> bool:
    with standby.connect() as connection:
        return connection.execute("SELECT 1 FROM pg_stat_wal_receiver").fetchone() is not None


def _received(standby: PostgresServer) -> int:
    with standby.connect() as connection:
        found = connection.execute("SELECT pg_last_wal_receive_lsn() - '0/0'").fetchone()
        return int(found[0]) if found else 0
