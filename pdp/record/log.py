"""Append every decision and event to the record before the answer leaves.

The operator chooses how safe a record is before the answer leaves:

- `written`: handed to the operating system. Survives the sudden end of this process, not that of the machine.
- `durable`: on the disk, for every allow.
- `async`: in a queue of this process. A full queue drops records and counts them.

Except in `async`: no record, no allow. While no record can be written, an allow becomes a deny with the basis
`record_unavailable`. What ends authority is still recorded then, in space that is reserved for it.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pdp.clock import Clock, SystemClock
from pdp.errors import ConfigurationError, reason_of
from pdp.foundation.files import make_folder
from pdp.foundation.repeating import Repeater
from pdp.foundation.threads import MOMENT_SECONDS
from pdp.model import Basis, Decision, Outcome, TraceParent
from pdp.observer import ENDING, Event, Observed
from pdp.record.anchors import Anchors, lost_of
from pdp.record.chain import Chain, Reached, Rotation
from pdp.record.disk import Disk
from pdp.record.ends import store_revision
from pdp.record.entry import Entries
from pdp.record.envelope import own_body
from pdp.record.keys import DIGEST_KEY_BYTES, PublicKeys, SigningKey
from pdp.record.segments import Head, heads_of, segments_by_chain

Durability = Literal["written", "durable", "async"]

_LOG = logging.getLogger("pdp.record")

# The most records that wait while the disk fails, or in `async` for the writer; others are dropped and counted.
QUEUE_RECORDS = 10_000
QUEUE_BYTES = 16 * 1024 * 1024
# After a failed sync the next one waits, twice as long each time, because every attempt costs a segment.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0

# How many records the writer of `async` takes at a time.
_AT_ONCE = 64

_WRITING, _SYNCING, _ROTATING = "written", "synced", "rotated"
# What must work for an allow.
_NEEDED: Mapping[Durability, tuple[str, ...]] = {"written": (_WRITING,), "durable": (_WRITING, _SYNCING), "async": ()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordStatus:
    """The present state of the record.

    `problem` is empty while all is well. `late` counts records that could not be written when they should have been,
    `lost` those that never will be; `waiting` is how many wait, `unsigned` how many no checkpoint covers yet.
    """

    problem: str
    late: int
    lost: int
    waiting: int
    unsigned: int


class DecisionLog:
    """The observer that keeps the record in a folder that several processes can share. Safe for threads.

    `key` (at least 32 bytes) makes digests that cannot be guessed; `signer` signs checkpoints. After `start`, the
    record is signed and synced every `checkpoint_seconds`. `anchors` is a folder elsewhere that keeps the latest safe
    record of each chain, and `elsewhere` has those that are known from other places: what a chain here has lost of
    them is in the first record of this process. `origin` has fields that say there where it is written. `attributes`
    and `terms` name the attributes of users and the terms of sessions whose values are written; for any other a digest
    is written. The last `reserve_bytes` of the disk, and as many allocated in advance, are for what ends authority.
    `on_failure` is called for each record that is late or lost. Raise `ConfigurationError` when the folder cannot be
    written.

    `reached` is how far the record of this process is signed and on the disk; None before the first checkpoint.
    """

    def __init__(
        self,
        folder: Path,
        *,
        key: bytes,
        signer: SigningKey,
        clock: Clock | None = None,
        durability: Durability = "written",
        rotation: Rotation | None = None,
        reserve_bytes: int = 0,
        checkpoint_seconds: float = 10.0,
        anchors: Path | None = None,
        elsewhere: Mapping[str, Head] = MappingProxyType({}),
        origin: Mapping[str, str] = MappingProxyType({}),
        disk: Disk | None = None,
        on_failure: Callable[[], None] | None = None,
        attributes: frozenset[str] = frozenset(),
        terms: frozenset[str] = frozenset(),
    ) -> None:
        if len(key) < DIGEST_KEY_BYTES:
            raise ConfigurationError(f"the key of the decision log is shorter than {DIGEST_KEY_BYTES} bytes")
        self.folder, self._durability = folder, durability
        self._public_keys = PublicKeys.of(signer)
        self._clock, self._disk = clock or SystemClock(), disk or Disk()
        self._on_failure = on_failure or (lambda: None)
        self._anchors = Anchors(anchors) if anchors else None
        self._elsewhere, self._origin = elsewhere, origin
        self.reached: Reached | None = None
        self._entries = Entries(key, attributes, terms)
        self._acknowledged: Callable[[], int] = lambda: 0
        # Guards all fields below.
        self._changed = threading.Condition(threading.Lock())
        # The revision of the session store in the record before this process.
        self.store_revision = self._known_revision()
        self._chain = self._open_chain(signer, rotation or Rotation(), reserve_bytes)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._problems: dict[str, str] = {}
        self._late, self._lost, self._unreported = 0, 0, (0, 0)
        self._syncing, self._closed = False, False
        # Used only in `tick` and `close`.
        self._anchored: Head | None = None
        self._sync_at, self._pause = 0.0, _FIRST_PAUSE_SECONDS
        self._keeper = Repeater("record-keeper", self.tick, every=checkpoint_seconds, at_once=False)
        self._writer = threading.Thread(target=self._write_queue, name="pdp-record-writer", daemon=True)
        if durability == "async":
            self._writer.start()

    @property
    def public_keys(self) -> PublicKeys:
        """Return the public half of the key that signs."""
        return self._public_keys

    @property
    def path(self) -> Path:
        """Return the file of the present segment."""
        return self._chain.path

    @property
    def chain(self) -> str:
        """Return the id of the chain that this process writes."""
        return self._chain.id

    @property
    def written(self) -> int | None:
        """Return the number of the latest record; None while others wait to be written before the next one."""
        with self._changed:
            return None if self._waiting else self._chain.seq

    @property
    def healthy(self) -> bool:
        """Say whether the last attempts at writing, syncing and rotating all succeeded."""
        return not self._problems

    @property
    def permits(self) -> bool:
        """Say whether the record permits an allow; with `async` it always does."""
        return not any(deed in self._problems for deed in _NEEDED[self._durability])

    @property
    def takes_at_once(self) -> bool:
        """Say whether decisions are recorded without waiting, as a rule: in `durable` an allow waits for the disk."""
        return self._durability != "durable"

    @property
    def failures(self) -> int:
        """Return how many records were late or lost."""
        return self._late + self._lost

    def status(self) -> RecordStatus:
        """Return the present state of the record."""
        with self._changed:
            problem = "; ".join(f"cannot be {deed}: {why}" for deed, why in sorted(self._problems.items()))
            return RecordStatus(
                problem=problem,
                late=self._late,
                lost=self._lost,
                waiting=len(self._waiting),
                unsigned=self._chain.unsigned,
            )

    def watch_store(self, acknowledged: Callable[[], int]) -> None:
        """Let checkpoints carry the last acknowledged revision of the session store."""
        self._acknowledged = acknowledged

    def start(self) -> None:
        """Start signing and syncing in the background."""
        self._keeper.start()

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:  # noqa: ARG002 - the observer's signature
        """Record a decision and return it; unless in `async`, an allow without a record becomes a deny."""
        body = self._entries.decision(decision)
        if decision.allowed and self._durability != "async":
            return self._allow(decision, body)
        self._take(body)
        return decision

    def decisions(self, observed: Sequence[Observed]) -> Sequence[Decision] | None:
        """Record decisions in one write, and return them; None, and none is recorded, when that is to be waited for.

        That is so in `durable`, and when the disk does not take records as it should.
        """
        if not self.takes_at_once:
            return None
        decisions = [decision for decision, _ in observed]
        bodies = [self._entries.decision(decision) for decision in decisions]
        if not self._changed.acquire(timeout=MOMENT_SECONDS):
            return None
        try:
            return decisions if self._take_at_once(bodies) else None
        finally:
            self._changed.release()

    def event(self, event: Event) -> None:
        """Record an event."""
        self._take(self._entries.event(event), urgent=event.kind in ENDING)

    def event_late(self, events: Sequence[Event]) -> None:
        """Record events that were to be recorded earlier; a `record.gap` says how many."""
        for event in events:
            self.event(event)
        with self._changed:
            late, lost = self._unreported
            self._late, self._unreported = self._late + len(events), (late + len(events), lost)

    def body_of(self, event: Event) -> bytes:
        """Return an event as it is recorded, without its position."""
        return self._entries.event(event)

    def tick(self) -> None:
        """Write waiting records, end an old segment, sign and sync. Runs every `checkpoint_seconds`."""
        with self._changed:
            self._await_sync()
            if self._closed:
                return
            removed = self._miss_segment()
            self._write()
            self._keep_up()
            self._sign()
            reached = self._chain.reached
            sure = self._commit(self._chain.generation, reached.head.seq)
        if sure:
            self._anchor(reached)
        if removed:
            self._on_failure()

    def close(self) -> None:
        """Write waiting records, sign, and close the files. Twice is harmless; later records count as lost."""
        with self._changed:
            first, self._closed = not self._closed, True
            self._changed.notify_all()
        self._keeper.stop()
        if self._writer.ident is not None:
            self._writer.join()
        with self._changed:
            self._await_sync()
            if first:
                self._write()
                self._try(_SYNCING, self._chain.close)
                self._lost += len(self._waiting)
                self._waiting.clear()
                self._waiting_bytes = 0
        if first and _SYNCING not in self._problems:
            self._anchor(self._chain.reached)

    # What a decision waits for.

    def _allow(self, decision: Decision, body: bytes) -> Decision:
        with self._changed:
            if self._append(body) if self._durability == "written" else self._keeps(body):
                return decision
            # The deny is recorded too, even after an allow that did not reach the disk.
            decision = withheld(decision)
            body = self._entries.decision(decision)
            if not self._append(body):
                self._queue(body, late=True)
        self._on_failure()
        return decision

    def _keeps(self, body: bytes) -> bool:
        """Write a record and sync it; say whether it is on the disk."""
        well = not self._problems or self._recovers()
        return well and self._append(body) and self._commit(self._chain.generation, self._chain.seq)

    def _take(self, body: bytes, *, urgent: bool = False) -> None:
        with self._changed:
            if self._durability == "async":
                fine = self._queue(body, late=False)
                self._changed.notify()
            else:
                fine = self._append(body) or (urgent and self._append_urgent(body))
                if not fine:
                    self._queue(body, late=True)
        if not fine:
            # Outside the lock, because it is foreign code.
            self._on_failure()

    def _take_at_once(self, bodies: Sequence[bytes]) -> bool:
        """Write records if nothing stands before them, or queue them in `async`; say whether it is all or none."""
        if self._durability == "async":
            if self._closed or not self._has_room(bodies):
                return False
            for body in bodies:
                self._queue(body, late=False)
            self._changed.notify()
            return True
        if self._problems or self._waiting or self._closed:
            return False
        try:
            if self._chain.awaits_signature:
                self._chain.checkpoint()
            if self._segment_is_due():
                return False
            self._chain.append_all(bodies)
        except OSError as error:
            self._failed(_WRITING, error)
            return False
        return True

    def _append_urgent(self, body: bytes) -> bool:
        """Write what ends authority before all waiting records, into the reserved space."""
        if self._closed or not self._chain.is_open:
            return False
        try:
            self._chain.append(body, urgent=True)
        except OSError:
            return False
        return True

    def _append(self, body: bytes) -> bool:
        """Write a record after all waiting ones; say whether it is written."""
        if self._chain.due or self._problems or self._waiting or self._closed:
            return self._append_with_care(body)
        try:
            self._chain.append(body)
        except OSError as error:
            self._failed(_WRITING, error)
            return False
        return True

    def _append_with_care(self, body: bytes) -> bool:
        if self._closed:
            return False
        if self._chain.awaits_signature:
            self._try(_ROTATING, self._chain.checkpoint)
        if self._segment_is_due():
            self._keep_up()
        return self._write(body)

    def _segment_is_due(self) -> bool:
        """Say whether a segment has to end or begin first. While the disk takes its time over a sync, it grows on."""
        return self._chain.due and not (self._syncing and self._chain.is_open)

    def _write(self, body: bytes | None = None, *, most: int = QUEUE_RECORDS) -> bool:
        """Write up to `most` waiting records, and then this one. Say whether all of it is written."""
        chain, waiting = self._chain, self._waiting
        before = chain.seq
        try:
            chain.open()
            for _ in range(min(most, len(waiting))):
                chain.append(waiting[0])
                self._waiting_bytes -= len(waiting.popleft())
            if any(self._unreported):
                late, lost = self._unreported
                chain.append(own_body("record.gap", self._clock.now().wall_at, late=late, lost=lost))
                self._unreported = (0, 0)
            if body is not None:
                chain.append(body)
        except OSError as error:
            self._failed(_WRITING, error)
            return False
        if chain.seq > before:
            self._well(_WRITING)
        return True

    def _queue(self, body: bytes, *, late: bool) -> bool:
        """Keep a record for later; say whether there was room."""
        unreported_late, unreported_lost = self._unreported
        if self._closed or not self._has_room((body,)):
            self._lost, self._unreported = self._lost + 1, (unreported_late, unreported_lost + 1)
            return False
        self._waiting.append(body)
        self._waiting_bytes += len(body)
        if late:
            self._late, self._unreported = self._late + 1, (unreported_late + 1, unreported_lost)
        return True

    def _has_room(self, bodies: Sequence[bytes]) -> bool:
        """Say whether there is room for more records to wait."""
        size = self._waiting_bytes + sum(map(len, bodies))
        return len(self._waiting) + len(bodies) <= QUEUE_RECORDS and size <= QUEUE_BYTES

    # How a record reaches the disk: one thread syncs for all that wait.

    def _commit(self, generation: int, seq: int) -> bool:
        """Wait for a record to be on the disk; say whether it is. Others can write meanwhile."""
        while (done := self._chain.on_disk(generation, seq)) is None:
            if self._syncing:
                self._changed.wait()
            elif not self._chain.is_open or (_SYNCING in self._problems and self._boot_at() < self._sync_at):
                return False
            else:
                self._sync()
        return done

    def _sync(self) -> None:
        target, self._syncing = self._chain.seq, True
        try:
            self._sync_unlocked()
        except OSError as error:
            self._chain.abandon()
            self._failed(_SYNCING, error)
            self._sync_at, self._pause = self._boot_at() + self._pause, min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        else:
            self._chain.synced(target)
            self._pause = _FIRST_PAUSE_SECONDS
            self._well(_SYNCING)
        finally:
            self._syncing = False
            self._changed.notify_all()

    def _sync_unlocked(self) -> None:
        # A separate descriptor, because another thread can abandon the segment meanwhile.
        copy = self._chain.duplicate()
        self._changed.release()
        try:
            self._disk.sync(copy)
        finally:
            self._changed.acquire()
            os.close(copy)

    def _keep_up(self) -> None:
        self._await_sync()
        self._try(_ROTATING, self._chain.keep_up)

    def _sign(self) -> None:
        try:
            self._chain.checkpoint()
            if _WRITING in self._problems:
                # A checkpoint, and what ended authority, can be in the reserved space: check that there is other space.
                self._chain.require_room()
        except OSError as error:
            self._failed(_WRITING, error)
        else:
            if not self._waiting:
                self._well(_WRITING)

    def _miss_segment(self) -> int:
        """Notice that the present segment was removed; return how many records are lost."""
        removed = self._chain.removed()
        if removed:
            unreported_late, unreported_lost = self._unreported
            self._lost, self._unreported = self._lost + removed, (unreported_late, unreported_lost + removed)
            self._failed(_WRITING, FileNotFoundError(errno.ENOENT, "its segment was removed"))
        return removed

    def _anchor(self, reached: Reached) -> None:
        self.reached = reached
        if self._anchors is None or reached.head == self._anchored:
            return
        try:
            self._anchors.note(reached.chain, reached.head)
            self._anchored = reached.head
        except OSError as error:
            # The record itself is well: its health and its promises do not depend on this.
            _LOG.warning("cannot save the position of the decision log: %s", reason_of(error))

    def _await_sync(self) -> None:
        # When two threads sync a file, only one is notified of a failure; so no other thread may sync meanwhile.
        while self._syncing:
            self._changed.wait()

    def _recovers(self) -> bool:
        if _WRITING in self._problems and not self._write():
            return False
        return _SYNCING not in self._problems or self._commit(self._chain.generation, self._chain.seq)

    # What went wrong.

    def _try(self, deed: str, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            self._failed(deed, error)
        else:
            # There may have been nothing to do: only a success of the same kind ends the problem.
            if deed == _ROTATING and not self._chain.postponed:
                self._well(deed)

    def _failed(self, deed: str, error: OSError) -> None:
        reason = reason_of(error)
        if deed not in self._problems:
            then = "; calls are denied until it can" if deed in _NEEDED[self._durability] else ""
            _LOG.error("the decision log in `%s` cannot be %s: %s%s", self.folder, deed, reason, then)
        self._problems = {**self._problems, deed: reason}

    def _well(self, deed: str) -> None:
        if deed in self._problems:
            _LOG.warning("the decision log in `%s` can be %s again", self.folder, deed)
            self._problems = {other: why for other, why in self._problems.items() if other != deed}

    # Threads and what they need.

    def _write_queue(self) -> None:
        while not self._closed:
            # The lock is released regularly, so that decisions can queue.
            with self._changed:
                if not self._waiting and not self._closed:
                    self._changed.wait()
                elif self._waiting and not self._write(most=_AT_ONCE):
                    self._changed.wait(_FIRST_PAUSE_SECONDS)
                elif self._chain.due:
                    self._keep_up()

    def _boot_at(self) -> float:
        return self._clock.now().boot_at

    def _store_revision_now(self) -> int:
        return max(self.store_revision, self._acknowledged())

    def _known_revision(self) -> int:
        try:
            return store_revision(self.folder)
        except OSError as error:
            raise ConfigurationError(f"cannot read the decision log in `{self.folder}`: {reason_of(error)}") from None

    def _open_chain(self, signer: SigningKey, rotation: Rotation, reserve: int) -> Chain:
        try:
            make_folder(self.folder, self._disk.sync_folder)
            return Chain(
                self.folder,
                signer=signer,
                now=lambda: self._clock.now().wall_at,
                mode=self._durability,
                rotation=rotation,
                disk=self._disk,
                known=self._anchors.heads() if self._anchors else None,
                lost=self._lost_chains(),
                heads=self._heads,
                reserve=reserve,
                store_revision=self._store_revision_now,
                origin=self._origin,
            )
        except OSError as error:
            raise ConfigurationError(f"cannot write the decision log in `{self.folder}`: {reason_of(error)}") from None

    def _lost_chains(self) -> dict[str, str]:
        here = segments_by_chain(self.folder)
        # Of what is known elsewhere, chains that are not here may be those of other machines.
        elsewhere = {chain: head for chain, head in self._elsewhere.items() if chain in here}
        return (self._anchors.lost(self.folder) if self._anchors else {}) | lost_of(here, elsewhere)

    def _heads(self) -> Mapping[str, Head]:
        """Return the head of each chain here; with anchors the safe one, which a crash cannot lose."""
        if self._anchors is None:
            return heads_of(self.folder)
        here = segments_by_chain(self.folder)
        return {chain: head for chain, head in self._anchors.heads().items() if chain in here}


def withheld(decision: Decision) -> Decision:
    """Return the deny that replaces an allow without a record."""
    ruling = replace(
        decision.ruling,
        outcome=Outcome.DENY,
        basis=Basis.RECORD_UNAVAILABLE,
        policies=(),
        obligations=(),
        detail="the decision cannot be recorded, and without a record nothing is allowed",
    )
    return replace(decision, ruling=ruling, recurs=False)
