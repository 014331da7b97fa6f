"""What breaks in a campaign for all replicas at once: processes of PostgreSQL, the primary, and its standbys."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Final

from pdp.testing.waiting import wait_until
from tests.sessions.postgres.campaign.replicas import LEASE_SECONDS, Replica, Setting
from tests.sessions.postgres.postgrescluster import pause, resume
from tests.sessions.postgres.postgresserver import PostgresServer
from tests.sessions.replicahistory import CUT, EVERYWHERE, LOSS, Kind, Operation

LONGEST: Final = 3 * LEASE_SECONDS
PATIENCE: Final = 60.0
_BACKENDS: Final = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
_SENDERS: Final = "SELECT pid FROM pg_stat_replication"

# Told its name, and a replica.
Fault = Callable[[str, Replica], None]


class Breaking:
    """Breaks things in a setting, each for a while, and notes when that was."""

    def __init__(self, setting: Setting, note: Callable[[Operation], None], choices: random.Random) -> None:
        self._setting = setting
        self._note = note
        self._random = choices
        # How often each has happened.
        self.happened = Counter[str]()

    @contextmanager
    def noted(self, name: str, replica: int, *, happened: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Note a fault that lasts as long as the `with` block, if it has `happened`."""
        began = time.monotonic()
        yield
        ended = time.monotonic()
        if happened():
            self.happened[name] += 1
            self._note(Operation(kind=Kind.FAULT, name=name, replica=replica, invoked=began, returned=ended))

    def _pass(self) -> None:
        Event().wait(self._random.uniform(0.1 * LEASE_SECONDS, LONGEST))


class Outages(Breaking):
    """Breaks the database."""

    def __init__(self, setting: Setting, note: Callable[[Operation], None], choices: random.Random) -> None:
        super().__init__(setting, note, choices)
        self._cluster = setting.cluster

    def brief(self) -> Mapping[str, Fault]:
        """Return faults after which all goes on at once, by their names."""
        return {"backends end": self._end_backends, "backends stop": self._stop_backends}

    def long(self) -> Mapping[str, Fault]:
        """Return faults after which nothing changes for a while, by their names."""
        return {"backend is killed": self._kill_backend, "database crashes": self._crash, **self._of_standbys()}

    def _of_standbys(self) -> Mapping[str, Fault]:
        senders: Mapping[str, Fault] = {"walsender is killed": self._kill_sender}
        if self._setting.replication == "async":
            return {**senders, "walsenders stop": self._stop_senders, LOSS: self._lose}
        if self._setting.replication == "quorum":
            return {
                **senders,
                # Nothing that is committed is acknowledged, so no lease is renewed.
                f"{CUT} from the standbys": self._stop_senders,
                "failover": self._fail_over,
                "failover, and the old primary lives": self._leave_behind,
            }
        return {}

    def _end_backends(self, name: str, _: Replica) -> None:
        with self.noted(name, EVERYWHERE), self._cluster.primary.connect() as connection:
            for pid in self._some(self._processes(_BACKENDS)):
                connection.execute("SELECT pg_terminate_backend(%s)", (pid,))

    def _stop_backends(self, name: str, _: Replica) -> None:
        with self.noted(name, EVERYWHERE):
            pids = self._some(self._processes(_BACKENDS))
            pause(pids)
            self._pass()
            resume(pids)

    def _kill_backend(self, name: str, _: Replica) -> None:
        self._kill_one(name, _BACKENDS)

    def _kill_sender(self, name: str, _: Replica) -> None:
        self._kill_one(name, _SENDERS)

    def _kill_one(self, name: str, found_by: str) -> None:
        """Kill a process of the primary, which then ends all others and starts them again."""
        with self.noted(name, EVERYWHERE):
            pid = self._random.choice(self._processes(found_by))
            # It may have ended just now.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not Path(f"/proc/{pid}").exists(), seconds=PATIENCE)
            self._cluster.wait_for_standbys()

    def _crash(self, name: str, _: Replica) -> None:
        with self.noted(name, EVERYWHERE):
            self._cluster.primary.restart()
            self._cluster.wait_for_standbys()

    # Of standbys

    def _stop_senders(self, name: str, _: Replica) -> None:
        self._cluster.cut_off(up_to_date=False)
        with self.noted(name, EVERYWHERE):
            self._pass()
        self._cluster.reconnect()

    def _fail_over(self, name: str, _: Replica) -> None:
        old = self._cluster.primary
        with self.noted(name, EVERYWHERE):
            self._cluster.fail_over()
        self._rejoin(old)

    def _leave_behind(self, name: str, _: Replica) -> None:
        old = self._cluster.primary
        with self.noted(name, EVERYWHERE):
            self._cluster.cut_off(up_to_date=False)
            self._cluster.promote()
            self._pass()
            self._cluster.kill(old)
        self._rejoin(old)

    def _lose(self, name: str, _: Replica) -> None:
        old = self._cluster.primary
        with self.noted(name, EVERYWHERE):
            self._cluster.cut_off(up_to_date=False)
            self._pass()
            self._cluster.fail_over()
        self._rejoin(old)

    def _rejoin(self, old: PostgresServer) -> None:
        with self.noted("standby joins", EVERYWHERE):
            self._cluster.rejoin(old)

    def _processes(self, found_by: str) -> Sequence[int]:
        """Return the processes of the primary that a query finds, once there are any."""
        found: list[int] = []

        def any_found() -> bool:
            with self._cluster.primary.connect() as connection:
                wanted = (self._setting.database,) if "%s" in found_by else None
                found[:] = [pid for (pid,) in connection.execute(found_by, wanted)]
            return bool(found)

        wait_until(any_found, seconds=PATIENCE)
        return found

    def _some(self, pids: Sequence[int]) -> Sequence[int]:
        """Return about half of some processes, at least one."""
        return self._random.sample(pids, max(len(pids) // 2, 1))
