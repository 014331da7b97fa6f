"""Write into the record what it lacks: events of changes whose process was killed, or lost the answer to its commit.

The store keeps them from the change on (`sessions/unrecorded.py`), until the record has them on its disk.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from pdp.audit.rows import time_of
from pdp.errors import PDPError, reason_of
from pdp.foundation.repeating import Repeater
from pdp.observer import Event
from pdp.record import DecisionLog
from pdp.record.envelope import CHECKPOINT, body_of, parse_line
from pdp.record.segments import lines_backwards, segments_by_chain
from pdp.record.slot import held
from pdp.sessions.unrecorded import Unrecorded

_LOG = logging.getLogger("pdp.record")

# How much earlier than the time of an event a checkpoint can say that it is, though it was written later: clocks of
# machines differ.
_EARLIER_SECONDS: Final = 60.0
# What only few lines hold, so that few are parsed.
_CHECKPOINT: Final = f'"kind":"{CHECKPOINT}"'.encode()


class Changes(Protocol):
    """What the store keeps of changes. Methods raise `PDPError`."""

    def recorded(self) -> frozenset[str]:
        """Return the rows whose events were handed to the record."""
        ...

    def forget(self, rows: Collection[str]) -> None:
        """Remove rows."""
        ...

    def left(self, is_left: Callable[[str], bool]) -> tuple[Unrecorded, ...]:
        """Return what no living process will record, also of processes whose chain is left."""
        ...

    def take(self, left: Iterable[Unrecorded]) -> None:
        """Note that the record has got what was left."""
        ...


class Completing(Repeater):
    """Completes the record of one process on its own thread once started, every `every` seconds.

    Nothing of it is waited for. When the process ends, nothing is left that its record has.
    """

    def __init__(self, changes: Changes, log: DecisionLog, *, every: float) -> None:
        super().__init__("completing", self.turn, every=every, at_once=False)
        self._changes, self._log = changes, log
        # Rows, each with the number of the record up to which their events are written.
        self._written: deque[tuple[int, frozenset[str]]] = deque()
        self._problem = ""

    def turn(self) -> None:
        """Record what is left, and have the store forget what the record has on its disk."""
        problem = ""
        # Also while nothing can be completed, what is recorded is forgotten: it would grow without bound.
        for part in (self._complete, self._forget):
            try:
                part()
            except (PDPError, OSError) as error:
                problem = problem or (reason_of(error) if isinstance(error, OSError) else str(error))
        self._say(problem)

    def stop(self) -> None:
        """Take no further turn, and have the store forget what is recorded. The log is still open."""
        super().stop()
        self._log.tick()
        self.turn()

    def _complete(self) -> None:
        left = self._changes.left(self._left_behind)
        if not left:
            return
        lacking = list(self._lacking([event for one in left for event in one.events]))
        self._log.event_late(lacking)
        self._changes.take(left)
        if lacking:
            _LOG.warning("the decision log lacked what changes had come to, and has it now; events: %d", len(lacking))

    def _forget(self) -> None:
        rows, written = self._changes.recorded(), self._log.written
        new = rows.difference(*(earlier for _, earlier in self._written))
        if new and written is not None:
            self._written.append((written, new))
        reached = self._log.reached
        while reached is not None and self._written and self._written[0][0] <= reached.head.seq:
            self._changes.forget(self._written[0][1])
            self._written.popleft()

    def _left_behind(self, chain: str) -> bool:
        folder = self._log.folder
        return chain in segments_by_chain(folder) and not held(folder, chain)

    def _lacking(self, events: Sequence[Event]) -> Iterator[Event]:
        """Yield the events that no chain of this machine has."""
        if not events:
            return
        bodies = [self._log.body_of(event) for event in events]
        there = _found(self._log.folder, frozenset(bodies), since_at=min(one.at for one in events) - _EARLIER_SECONDS)
        yield from (event for event, body in zip(events, bodies, strict=True) if body not in there)

    def _say(self, problem: str) -> None:
        if problem and not self._problem:
            _LOG.error("the decision log may lack what changes of sessions have come to: %s", problem)
        elif self._problem and not problem:
            _LOG.warning("the decision log lacks no change of a session any more")
        self._problem = problem


def _found(folder: Path, bodies: frozenset[bytes], *, since_at: float) -> frozenset[bytes]:
    """Return which of some bodies are in the record, looking back to a time, unix seconds."""
    found = set[bytes]()
    for segments in segments_by_chain(folder).values():
        for line in (line for segment in reversed(segments) for line in lines_backwards(segment.path)):
            body = body_of(line)
            if body in bodies:
                found.add(body)
                if len(found) == len(bodies):
                    return frozenset(found)
            elif (at := _signed_at(line)) is not None and at < since_at:
                break
    return frozenset(found)


def _signed_at(line: bytes) -> float | None:
    """Return when a checkpoint was written, unix seconds; None for another line: an event can be older than its."""
    record = parse_line(line) if _CHECKPOINT in line else None
    if record is None or record.get("kind") != CHECKPOINT:
        return None
    at = time_of(line)
    return None if at is None else at / 1e6
