"""The one sender of a deployment: moves events from the stores to the queue, and messages to their receivers.

Every worker has one. Of those of a machine the one that holds the lock goes on to the queue, and of several machines on
one queue the one that has the turn sends. The system frees the lock of a process that dies, and a turn that is not kept
ends, so another one goes on; what was sent and not yet noted is then sent again, with the same id.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

from pdp.clock import Clock, no_earlier
from pdp.errors import ConfigurationError, PDPError, reason_of
from pdp.foundation.files import lock_file
from pdp.foundation.repeating import Repeater
from pdp.messages.forms import LinkTo
from pdp.messages.queue import Letter, MessageQueue, Standing
from pdp.messages.receivers import Receiver
from pdp.messages.sending import Post, pause_after
from pdp.messages.sorting import sorted_out
from pdp.sessions.outbox import Outbox, Untold
from pdp.sessions.store import HighWaterMark

_LOG = logging.getLogger("pdp.messages")

_EVERY_SECONDS: Final = 1.0
# Events that are moved at a time, and expiries that are noted in one transaction.
_STEP: Final = 500
# How often to look for what is to be given up.
_GIVE_UP_SECONDS: Final = 60.0


OnAttempt = Callable[[str, str], None]


class TellingStore(Outbox, HighWaterMark, Protocol):
    """The sessions as the sender needs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How long messages are kept: seconds, and how many for each receiver."""

    seconds: float
    messages: int


class Sender:
    """Sends while its process holds the lock and has the turn. A `with` block starts and stops it.

    `requests` returns the events of access requests, or raises `PDPError`. `open_queue` opens the queue, once the lock
    at `lock_path` is held. `on_attempt` gets the name of a receiver and one word for the problem of an attempt.
    """

    def __init__(
        self,
        receivers: Sequence[Receiver],
        *,
        sessions: TellingStore,
        requests: Callable[[], Outbox],
        open_queue: Callable[[], MessageQueue],
        lock_path: Path,
        keeping: Keeping,
        clock: Clock,
        link_to: LinkTo,
        purposes: bool,
        on_attempt: OnAttempt = lambda _name, _error: None,
        every: float = _EVERY_SECONDS,
    ) -> None:
        self._receivers = tuple(receivers)
        self._sessions = sessions
        self._requests = requests
        self._open_queue = open_queue
        self._lock_path = lock_path
        self._lock: int | None = None
        self._keeping = keeping
        self._clock = clock
        self._queue: MessageQueue | None = None
        # The name of the turn in which this process sends; empty while it does not.
        self._turn = ""
        self._gave_up_at = float("-inf")
        # By store, how many of its lost events were told in this turn and could not be forgotten there yet.
        self._gaps: dict[str, int] = {}
        self._problem = ""
        self._mover = Repeater("messages", self._move, every=every)
        self._deliveries = tuple(
            _Delivery(
                one.name,
                Post(one, link_to=link_to, purposes=purposes),
                queue=lambda: self._queue if self._turn else None,
                clock=clock,
                on_attempt=on_attempt,
                every=every,
            )
            for one in self._receivers
        )
        self._opened = ExitStack()

    def sends(self) -> bool:
        """Say whether this process is the one that sends."""
        return bool(self._turn)

    def standings(self) -> tuple[Standing, ...]:
        """Return how each receiver is served; empty in a process that does not send. Raise `StoreUnavailableError`."""
        return self._queue.standings() if self._queue is not None and self._turn else ()

    def __enter__(self) -> Self:
        for delivery in self._deliveries:
            self._opened.enter_context(delivery)
        self._opened.enter_context(self._mover)
        return self

    def __exit__(self, *_: object) -> None:
        for delivery in self._deliveries:
            delivery.abort()
        self._opened.close()
        if self._queue is not None:
            self._queue.close()
        if self._lock is not None:
            os.close(self._lock)

    def _move(self) -> None:
        problems = []
        try:
            queue = self._leading()
            if queue is None:
                return
            now = no_earlier(self._clock.now(), self._sessions.high_water_at())
            for name, find in (("sessions", lambda: self._sessions), ("requests", self._requests)):
                # The other one goes on while one does not answer.
                try:
                    self._empty(name, find(), queue, now.wall_at)
                except PDPError as error:
                    problems.append(str(error))
            if now.boot_at - self._gave_up_at >= _GIVE_UP_SECONDS:
                self._give_up(queue, now.wall_at)
                # INVARIANT: only when both stores were emptied: what is noted and still in one makes no second message.
                if not problems:
                    queue.forget_all_taken()
                self._gave_up_at = now.boot_at
        except PDPError as error:
            problems.append(str(error))
        problem = "; ".join(problems)
        if problem and problem != self._problem:
            _LOG.error("events cannot be passed on, and wait: %s", problem)
        self._problem = problem

    def _leading(self) -> MessageQueue | None:
        """Return the queue of the process that sends; None in any other."""
        if self._queue is None and self._locked():
            self._queue = self._open_queue()
        turn = self._queue.lead() if self._queue is not None else ""
        if turn != self._turn:
            # INVARIANT: what was told in another turn counts no more: others can have told and forgotten it since.
            self._gaps.clear()
            self._turn = turn
            if turn:
                _LOG.info("this process sends messages; receivers: %d", len(self._receivers))
        return self._queue if turn else None

    def _locked(self) -> bool:
        if self._lock is None:
            try:
                self._lock = lock_file(self._lock_path)
            except OSError as error:
                raise ConfigurationError(f"cannot use `{self._lock_path}`: {reason_of(error)}") from None
        return self._lock is not None

    def _empty(self, name: str, outbox: Outbox, queue: MessageQueue, at: float) -> None:
        while outbox.note_expired(wall_at=at, limit=_STEP) == _STEP:
            pass
        while self._pass_on(name, outbox, queue, at):
            pass

    def _pass_on(self, name: str, outbox: Outbox, queue: MessageQueue, at: float) -> bool:
        """Move events from a store to the queue; say whether there can be more."""
        untold = outbox.untold(limit=_STEP)
        gap = self._gaps[name] = min(untold.missed, self._gaps.get(name, 0))
        if untold == Untold():
            return False
        ids = frozenset(event.id for event in untold.events)
        taken = queue.taken(ids)
        fresh = Untold(tuple(event for event in untold.events if event.id not in taken), untold.missed - gap)
        queue.put(sorted_out(fresh, self._receivers, at=at), ids, at=at)
        # Not noted in the queue: a gap has no id, and the next one can be of the same size.
        self._gaps[name] = untold.missed
        # In this order: whoever dies in between finds the events noted, and makes no second message of them.
        outbox.forget_told(untold, turn=self._turn)
        self._gaps[name] = 0
        queue.forget_taken(ids)
        for delivery in self._deliveries:
            delivery.wake()
        return len(untold.events) == _STEP

    def _give_up(self, queue: MessageQueue, at: float) -> None:
        names = [one.name for one in self._receivers]
        given_up = queue.give_up(names, created_before=at - self._keeping.seconds, most=self._keeping.messages)
        if given_up:
            _LOG.warning("gave up %d messages that were not taken; see `pdp messages list --dead`", given_up)


class _Delivery(Repeater):
    """Sends what waits for one receiver, one message after the other."""

    def __init__(
        self,
        name: str,
        post: Post,
        *,
        queue: Callable[[], MessageQueue | None],
        clock: Clock,
        on_attempt: OnAttempt,
        every: float,
    ) -> None:
        super().__init__(f"messages-{name}", self._deliver, every=every)
        self._receiver = name
        self._post = post
        self._queue = queue
        self._clock = clock
        self._on_attempt = on_attempt
        self._failures = 0
        self._paused_until = float("-inf")
        self._problem = ""
        # Taken by the receiver, and not yet noted.
        self._unnoted: Letter | None = None

    def abort(self) -> None:
        """End a running attempt."""
        self._post.close()

    def _deliver(self) -> None:
        queue, problem = self._queue(), ""
        try:
            while queue is not None and self._send_next(queue) and not self.pause(0):
                pass
        except PDPError as error:
            problem = str(error)
        if problem and problem != self._problem:
            _LOG.error("the queue of messages for `%s` cannot be used: %s", self._receiver, problem)
        self._problem = problem

    def _send_next(self, queue: MessageQueue) -> bool:
        """Send the next message that is due; say whether another one may be."""
        now = self._clock.now()
        self._note_sent(queue, now.wall_at)
        if now.boot_at < self._paused_until:
            return False
        letter = queue.due(self._receiver, at=now.wall_at)
        if letter is None:
            return False
        attempt = self._post.attempt(letter.message, at=now.wall_at)
        self._on_attempt(self._receiver, attempt.error)
        if not attempt.problem:
            self._unnoted = letter
            self._note_sent(queue, now.wall_at)
            return True
        self._failures += 1
        # No longer than the message waits, so that others get their turn before it.
        pause = max(pause_after(self._failures) / 2, attempt.pause_seconds)
        self._paused_until = now.boot_at + pause
        if self._failures == 1:
            _LOG.warning("the receiver `%s` did not take a message: %s", self._receiver, attempt.problem)
        next_at = now.wall_at + max(pause_after(letter.attempts + 1), pause)
        queue.failed(letter, attempt.problem, next_at=next_at)
        return False

    def _note_sent(self, queue: MessageQueue, at: float) -> None:
        """Note what was taken. Until that is done nothing more is sent: a full disk would make one message many."""
        if self._unnoted is None:
            return
        queue.sent(self._unnoted, at=at)
        self._unnoted = None
        if self._failures:
            _LOG.info("the receiver `%s` takes messages again", self._receiver)
        self._failures = 0
