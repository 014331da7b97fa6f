"""What breaks in a campaign at random: processes stop and die, connections end, and networks fail in every way."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Final

from tests.sessions.postgres.campaign.faultyproxy import BOTH_WAYS, Way
from tests.sessions.postgres.campaign.replicas import LEASE_SECONDS, Replica
from tests.sessions.postgres.postgresserver import PostgresServer
from tests.sessions.replicahistory import CUT, EVERYWHERE, Kind, Operation

_LONGEST: Final = 3 * LEASE_SECONDS
_MOST_DELAY: Final = 0.3 * LEASE_SECONDS
_BACKENDS: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND random() < 0.5
"""


class Faults:
    """Breaks things, each for a while, and notes when that was."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        server: PostgresServer,
        database: str,
        note: Callable[[Operation], None],
        choices: random.Random,
    ) -> None:
        self._replicas = replicas
        self._server, self._database = server, database
        self._note = note
        self._random = choices

    def run(self, stopping: Event, seconds: float) -> None:
        """Kill a replica, then break one thing after the other, for so many seconds or until `stopping`."""
        self.kill(self._random.choice(self._replicas))
        ends_at = time.monotonic() + seconds
        kinds = (self.stop, self.silence, self.silence, self.delay, self.cut_commits, self.reset, self.backends)
        while time.monotonic() < ends_at and not stopping.is_set():
            # A start costs as much as many other faults.
            fault = self.kill if self._random.random() < 0.04 else self._random.choice(kinds)
            fault(self._random.choice(self._replicas))
            stopping.wait(self._random.uniform(0.0, LEASE_SECONDS))

    def stop(self, at: Replica) -> None:
        """Stop a process for a while."""
        with self.noted("stop", at.number):
            at.stop()
            self._pass()
            at.go_on()

    def kill(self, at: Replica) -> None:
        """Kill a process, and start it again."""
        with self.noted("kill", at.number):
            at.kill()
            at.start()

    def silence(self, at: Replica) -> None:
        """Let nothing pass between a replica and the database, one way or both."""
        ways = self._random.choice((BOTH_WAYS, {Way.TO_DATABASE}, {Way.TO_REPLICA}))
        at.proxy.silence(ways)
        with self.noted(CUT, at.number):
            self._pass()
        at.proxy.heal()

    def delay(self, at: Replica) -> None:
        """Have everything between a replica and the database take longer."""
        with self.noted("delay", at.number):
            at.proxy.delay(self._random.uniform(0.01, _MOST_DELAY))
            self._pass()
            at.proxy.heal()

    def cut_commits(self, at: Replica) -> None:
        """Close each connection of a replica whose commit is under way: the answer is lost."""
        with self.noted("cut in commit", at.number):
            at.proxy.cut_commits()
            self._pass()
            at.proxy.heal()

    def reset(self, at: Replica) -> None:
        """Close the connection on which a replica renews its lease, or all."""
        with self.noted("reset", at.number):
            at.proxy.reset(renewals=self._random.random() < 0.5)

    def backends(self, _: Replica) -> None:
        """Kill half of the processes that PostgreSQL has for all replicas."""
        with self.noted("backends", EVERYWHERE), self._server.connect() as connection:
            connection.execute(_BACKENDS, (self._database,))

    @contextmanager
    def noted(self, name: str, replica: int) -> Iterator[None]:
        """Note a fault that lasts as long as the `with` block."""
        began = time.monotonic()
        yield
        self._note(Operation(kind=Kind.FAULT, name=name, replica=replica, invoked=began, returned=time.monotonic()))

    def _pass(self) -> None:
        Event().wait(self._random.uniform(0.1 * LEASE_SECONDS, _LONGEST))
