"""What breaks in a campaign: processes stop and die, networks fail in every way, clocks are set, disks are full."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from threading import Event
from typing import Final

from pdp.testing.waiting import wait_until
from tests.sessions.postgres.campaign.faultyproxy import BOTH_WAYS, FaultyProxy, Way
from tests.sessions.postgres.campaign.outages import LONGEST, PATIENCE, Breaking, Fault, Outages
from tests.sessions.postgres.campaign.replicas import LEASE_SECONDS, Replica, Setting
from tests.sessions.replicahistory import CUT, Operation

_MOST_DELAY: Final = 0.3 * LEASE_SECONDS
_DAY: Final = 86400.0
# A clock that runs at another rate is moved so often.
_STEP_SECONDS: Final = 0.01
# How much oftener than others there are faults of one replica.
_OFTEN: Final = 3


class Faults(Breaking):
    """Breaks replicas, what they run on, and the database."""

    def __init__(self, setting: Setting, note: Callable[[Operation], None], choices: random.Random) -> None:
        super().__init__(setting, note, choices)
        self._outages = Outages(setting, note, choices)

    def run(self, stopping: Event, seconds: float) -> None:
        """Break one thing after the other for so many seconds or until `stopping`, but each at least once."""
        ends_at = time.monotonic() + seconds
        left = self._shuffled(self.all())
        first = True
        while (first or time.monotonic() < ends_at) and not stopping.is_set():
            name, fault = left.pop()
            fault(name, self._random.choice(self._setting.replicas))
            stopping.wait(self._random.uniform(0.0, LEASE_SECONDS))
            if not left:
                # After those that stop everything, little is changed for long.
                first, left = False, self._shuffled(self.all(), *[self._of_one()] * _OFTEN)

    def all(self) -> Mapping[str, Fault]:
        """Return all faults that there can be in this setting, by their names."""
        # A start costs as much as many other faults.
        return {**self._of_one(), "kill": self._kill, **self._outages.long()}

    def replace(self, at: Replica, program: Sequence[str]) -> None:
        """Start another version of the program in the place of a replica."""
        with self.noted("replace", at.number):
            at.replace(program)

    def _shuffled(self, *faults: Mapping[str, Fault]) -> list[tuple[str, Fault]]:
        every = [one for some in faults for one in some.items()]
        return self._random.sample(every, len(every))

    def _of_one(self) -> Mapping[str, Fault]:
        return {
            "stop": self._stop,
            f"{CUT} both ways": partial(self._silence, BOTH_WAYS),
            f"{CUT} to the database": partial(self._silence, {Way.TO_DATABASE}),
            f"{CUT} to the replica": partial(self._silence, {Way.TO_REPLICA}),
            f"{CUT} while the clock is slow": self._silence_slow,
            f"{CUT} by a pooler": self._pool,
            "delay": self._delay,
            "slow bytes": self._trickle,
            "commits without an answer": self._cut_commits,
            "reset": partial(self._reset, renewals=False),
            "reset of the renewal": partial(self._reset, renewals=True),
            "clock a day ahead": partial(self._move_clock, _DAY),
            "clock a day behind": partial(self._move_clock, -_DAY),
            "clock twice as fast": partial(self._slew_clock, 2.0),
            "clock half as fast": partial(self._slew_clock, 0.5),
            **({"full disk": self._fill_disk} if self._setting.disks else {}),
            **self._outages.brief(),
        }

    # Of a replica and its network

    def _stop(self, name: str, at: Replica) -> None:
        with self.noted(name, at.number):
            at.stop()
            self._pass()
            at.go_on()

    def _kill(self, name: str, at: Replica) -> None:
        with self.noted(name, at.number):
            at.kill()
            at.start()

    def _silence(self, ways: Iterable[Way], name: str, at: Replica) -> None:
        _each(at, lambda proxy: proxy.silence(ways))
        with self.noted(name, at.number):
            self._pass()
        _each(at, FaultyProxy.heal)

    def _silence_slow(self, name: str, at: Replica) -> None:
        _each(at, FaultyProxy.silence)
        with self.noted(name, at.number):
            self._slew(at, 0.5)
        _each(at, FaultyProxy.heal)

    def _pool(self, name: str, at: Replica) -> None:
        _each(at, FaultyProxy.pool)
        with self.noted(name, at.number):
            self._pass()
        _each(at, FaultyProxy.heal)

    def _delay(self, name: str, at: Replica) -> None:
        seconds = self._random.uniform(0.01, _MOST_DELAY)
        with self.noted(name, at.number):
            _each(at, lambda proxy: proxy.delay(seconds))
            self._pass()
            _each(at, FaultyProxy.heal)

    def _trickle(self, name: str, at: Replica) -> None:
        with self.noted(name, at.number):
            _each(at, FaultyProxy.trickle)
            self._pass()
            _each(at, FaultyProxy.heal)

    def _cut_commits(self, name: str, at: Replica) -> None:
        before = sum(proxy.cut for proxy in at.proxies)
        with self.noted(name, at.number):
            _each(at, FaultyProxy.cut_commits)
            self._pass()
            wait_until(lambda: sum(proxy.cut for proxy in at.proxies) > before, seconds=PATIENCE)
            _each(at, FaultyProxy.heal)

    def _reset(self, name: str, at: Replica, *, renewals: bool) -> None:
        with self.noted(name, at.number):
            _each(at, lambda proxy: proxy.reset(renewals=renewals))

    # Of its machine

    def _move_clock(self, seconds: float, name: str, at: Replica) -> None:
        with self.noted(name, at.number):
            at.clock.move(seconds)
            self._pass()
            at.clock.move(0.0)

    def _slew_clock(self, rate: float, name: str, at: Replica) -> None:
        with self.noted(name, at.number):
            self._slew(at, rate)

    def _slew(self, at: Replica, rate: float) -> None:
        began = time.monotonic()
        lasts = self._random.uniform(2 * LEASE_SECONDS, LONGEST)
        while (passed := time.monotonic() - began) < lasts:
            at.clock.move((rate - 1) * passed)
            Event().wait(_STEP_SECONDS)
        at.clock.move(0.0)

    def _fill_disk(self, name: str, at: Replica) -> None:
        assert at.disk is not None
        with self.noted(name, at.number):
            at.disk.fill()
            # It can still write what it has room for already.
            wait_until(lambda: not at.records(), seconds=PATIENCE)
            self._pass()
            at.disk.free()


def _each(at: Replica, fault: Callable[[FaultyProxy], None]) -> None:
    """Do the same with all proxies of a replica."""
    for proxy in at.proxies:
        fault(proxy)
