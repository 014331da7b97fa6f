"""What random faults do not find: sequences that are timed to the step."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Final

from tests.machinery.servers.notes import READ
from tests.sessions.postgres.campaign.calls import Calls
from tests.sessions.postgres.campaign.faults import Faults
from tests.sessions.postgres.campaign.faultyproxy import Late
from tests.sessions.postgres.campaign.questions import Known, Question
from tests.sessions.postgres.campaign.replicas import LEASE_SECONDS, Replica, Setting
from tests.sessions.postgres.campaign.wire import PATIENCE
from tests.sessions.replicahistory import CUT, EVERYWHERE, Operation, Result

# So soon that the lease before still holds when the answer comes, and too late for one that is made anew by then.
_LATE_SECONDS: Final = 0.5 * LEASE_SECONDS
# Each is played so often: a replica that is busy with something else has no time for what the script is about. Where it
# can fail to happen, it is played oftener.
_TRIES: Final = 3
_MOST_TRIES: Final = 30
# How many ask at once around a stop, and how much later each stop comes.
_OTHERS: Final = 8
_STEP_SECONDS: Final = 0.001
_IN_A_ROW: Final = 5
# A replica that is cut off has no answer for longer than it is asked.
_IMPATIENT: Final = 0.1


class Scripts:
    """Plays scripts with a replica where changes are made, and another one that fails. `number` is that of a bundle.

    Each is noted as a fault of its name, if it has happened.
    """

    def __init__(
        self, setting: Setting, faults: Faults, calls: Callable[[], Calls], choices: random.Random, *, number: int
    ) -> None:
        self._setting, self._number = setting, number
        self._here, self._there = choices.sample(setting.replicas, 2)
        self._faults = faults
        self._calls = calls()
        # Each has its connection before it is needed.
        self._others = [calls() for _ in range(_OTHERS)]

    def close(self) -> None:
        """Close all connections."""
        for one in (self._calls, *self._others):
            one.close()

    def all(self) -> Mapping[str, Callable[[str], None]]:
        """Return all scripts by their names, with which they are played."""
        return {
            f"{CUT} after a late reply": self.reply_late_then_silence,
            "confirmation late": self.confirmation_late,
            "stop between check and send": self.stop_between_check_and_send,
            "two watchers": self.two_watchers,
        }

    def wait_for(self, replica: Replica) -> None:
        """Ask a replica until it has answered some calls in a row."""
        session, answered = self._remembered(), 0
        while answered < _IN_A_ROW:
            line = self._calls.ask(replica, _about(session))
            answered = answered + 1 if line.result is Result.OK else 0

    def reply_late_then_silence(self, name: str) -> None:
        """A renewal is answered late, and nothing else passes; a revocation comes right after the renewal was made.

        A lease that began when the answer arrived would outlive the fence.
        """
        proxy = self._setting.before_primary(self._there)
        for _ in range(_TRIES):
            session = self._remembered()
            proxy.expect(Late(b"UPDATE replicas", b"COMMIT", _LATE_SECONDS, silences=True))
            assert proxy.asked.wait(PATIENCE)
            with self._faults.noted(name, self._there.number):
                began = time.monotonic()
                self._calls.revoke(self._here, session)
                self._ask_until(began + 2 * LEASE_SECONDS, session)
            proxy.heal()

    def confirmation_late(self, name: str) -> None:
        """A replica confirms what it has learned, and the answer to that comes late.

        If it confirmed before its lease can be read, it would answer from before.
        """
        proxy = self._setting.before_primary(self._there)
        for _ in self._tries(name):
            session = self._remembered()
            with self._faults.noted(name, self._there.number, happened=proxy.asked.is_set):
                proxy.expect(Late(b"INTO confirmations", b"INTO confirmations", _LATE_SECONDS))
                self._calls.revoke(self._here, session)
                self._ask_until(time.monotonic() + _LATE_SECONDS, session)
            proxy.heal()

    def stop_between_check_and_send(self, name: str) -> None:
        """A replica stops while it answers, and a session is revoked meanwhile; then it goes on.

        The calls that came before may be allowed, and those that came afterwards may not.
        """
        before, after = self._others[: _OTHERS // 2], self._others[_OTHERS // 2 :]
        with ThreadPoolExecutor(max_workers=_OTHERS) as threads:
            for step in self._tries(name):
                session = self._remembered()
                question = _about(session)
                for one in self._others:
                    one.ask(self._there, question)
                asking = [threads.submit(one.ask, self._there, question) for one in before]
                Event().wait(step * _STEP_SECONDS)
                stopped_at = time.monotonic()

                def answering(asked: Sequence[Future[Operation]] = asking, since: float = stopped_at) -> bool:
                    return any(line.result().invoked < since < line.result().returned for line in asked)

                with self._faults.noted(name, self._there.number, happened=answering):
                    self._there.stop()
                    self._calls.revoke(self._here, session)
                    later = [threads.submit(one.ask, self._there, question) for one in after]
                    self._there.go_on()
                for line in later:
                    line.result()

    def two_watchers(self, name: str) -> None:
        """Two replicas find a new bundle at the same time; afterwards no replica answers by the one before."""
        version = {replica.write_bundle(self._number) for replica in self._setting.replicas}.pop()

        def watch(calls: Calls, at: Replica) -> None:
            while calls.reload(at, version).result is not Result.OK:
                pass

        with self._faults.noted(name, EVERYWHERE), ThreadPoolExecutor() as threads:
            for _ in threads.map(watch, self._others, (self._here, self._there)):
                pass
        # Also the one that has watched nothing.
        for replica in self._setting.replicas:
            self.wait_for(replica)

    def _tries(self, name: str) -> Iterator[int]:
        """Yield the steps of a script, again until it has happened."""
        for number in range(_MOST_TRIES):
            if number >= _TRIES and self._faults.happened[name]:
                return
            yield number % _TRIES

    def _remembered(self) -> Known:
        """Return a session that was opened here, and that the other replica allows calls in, and remembers."""
        give_up_at = time.monotonic() + 10 * PATIENCE
        while time.monotonic() < give_up_at:
            session = self._calls.request(self._here, seconds=3600.0)
            if session is None or self._calls.approve(self._here, session).result is not Result.OK:
                continue
            if all(self._calls.ask(self._there, _about(session)).allowed for _ in range(_IN_A_ROW)):
                return session
        raise AssertionError("no session could be opened")

    def _ask_until(self, moment: float, session: Known) -> None:
        while time.monotonic() < moment:
            self._calls.ask(self._there, _about(session), patience=_IMPATIENT)


def _about(session: Known) -> Question:
    return Question(session=session, tool=READ)
