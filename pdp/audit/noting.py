"""Note in the database of the servers how far the record of this process reaches, and copy it to where all read it.

What is noted and cannot be read is missing, and all can tell.

The record's disk and the server are one machine, and what is gone from it cannot be seen there. No decision waits for
the database, and none depends on what it answers here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Final, Protocol

from pdp.clock import Clock
from pdp.errors import PDPError, reason_of
from pdp.foundation.repeating import Repeater
from pdp.record.anchors import Anchors
from pdp.record.chain import Reached
from pdp.record.envelope import json_text
from pdp.record.keys import PublicKeys, SigningKey
from pdp.record.segments import Head, segments_by_chain
from pdp.record.slot import held
from pdp.sessions.notedheads import NotedHead

_LOG = logging.getLogger("pdp.record")

_LOOK_SECONDS: Final = 1.0
# A writer is called silent when it has missed so many checkpoints, but not within this time.
_MISSED: Final = 3
_LEAST_SILENT_SECONDS: Final = 30.0
# How long to wait at the end for a folder that can hang, such as on NFS.
_END_SECONDS: Final = 5.0


class Copies(Protocol):
    """What brings copies to where all read them. Raise `OSError`."""

    def bring(self, chain: str, reached: Reached | None = None) -> bool:
        """Bring the copy of a chain up to date; return False when more is left to copy."""
        ...


class Notes(Protocol):
    """Where heads are noted. Raise `PDPError`."""

    def note(self, head: NotedHead, *, again_seconds: float | None) -> bool:
        """Note a head; say whether it does not contradict what is noted of its chain."""
        ...


class HeadNoter(Repeater):
    """Notes the heads of one process on its own thread once started.

    `reached` returns how far the process is. That is noted soon after each checkpoint, of which there is one in `every`
    seconds, and when nothing is new as well: whoever reads it sees that nothing is missing. The chains that other
    processes have left behind in `folder` are noted at first, as far as `anchors` knows that they were signed.
    With `copies`, what is noted is copied before. `on_failure` is called for each attempt that has failed. At the end,
    a turn is waited for `end_seconds`.
    """

    def __init__(
        self,
        notes: Notes,
        *,
        reached: Callable[[], Reached | None],
        sign: Callable[[NotedHead], NotedHead],
        replica: str,
        clock: Clock,
        every: float,
        folder: Path,
        anchors: Path,
        on_failure: Callable[[], None],
        copies: Copies | None = None,
        end_seconds: float = _END_SECONDS,
    ) -> None:
        super().__init__("record-heads", self.turn, every=min(every, _LOOK_SECONDS))
        self._notes, self._reached, self._sign = notes, reached, sign
        self._replica, self._clock, self._every = replica, clock, every
        self._folder, self._anchors, self._on_failure, self._copies = folder, anchors, on_failure, copies
        self._end_seconds = end_seconds
        self._tried: Reached | None = None
        self._due_at = 0.0
        # Whether more is left to copy.
        self._copying = False
        # Chains of other processes that are still to be noted; None before the folder was looked through.
        self._left_behind: dict[str, Head] | None = None
        self.problem = ""

    def announce(self) -> None:
        """Note how far the record reaches, copied or not: from then on others name what they lack of it."""
        reached = self._reached()
        if reached is not None:
            self._say(self._noted(reached, self._clock.now().wall_at))

    def stop(self) -> None:
        """Take no further turn, and note the end of the chain. The record of the process is closed before.

        What is then not noted is left behind, and noted by the next process on the folder.
        """
        end = Thread(target=self._end, name="pdp-record-end", daemon=True)
        end.start()
        end.join(self._end_seconds)
        reached = self._reached()
        if reached is not None and end.is_alive():
            # What is noted and cannot be read is missing, and all can tell.
            noted = self._noted(reached, self._clock.now().wall_at)
            slow = f"copies were not written in {self._end_seconds:g} seconds"
            self.problem = "; ".join(filter(None, (slow, noted)))
        if reached is not None and self.problem:
            _LOG.error(
                "the end of chain `%s` is not shown to other servers until another process starts on `%s`: %s",
                reached.chain,
                self._folder,
                self.problem,
            )

    def turn(self) -> None:
        """Note what is new, or once more what is not when that is due."""
        reached, now = self._reached(), self._clock.now()
        if reached is None or (reached == self._tried and now.boot_at < self._due_at):
            return
        self._tried, self._due_at = reached, now.boot_at + self._every
        # In this order: what is noted can be read.
        problems = [self._copied(reached), self._noted(reached, now.wall_at)]
        if self._copying:
            # Without the pause that follows when all is there.
            self._due_at = now.boot_at
        elif not any(problems):
            self._left_behind = {}
        self._say("; ".join(filter(None, problems)))

    def _end(self) -> None:
        super().stop()
        self.turn()

    def _copied(self, reached: Reached) -> str:
        """Copy what is new; return what is wrong."""
        self._copying = False
        try:
            if self._left_behind is None:
                self._left_behind = self._found_behind(reached.chain)
            if self._copies is not None:
                whole = [self._copies.bring(reached.chain, reached), *map(self._copies.bring, self._left_behind)]
                self._copying = not all(whole)
        except OSError as error:
            return f"`{error.filename}`: {reason_of(error)}"
        return ""

    def _noted(self, reached: Reached, at: float) -> str:
        """Note what is new; return what is wrong."""
        again = None if reached.ended else max(_MISSED * self._every, _LEAST_SILENT_SECONDS)
        try:
            refused = [] if self._note(reached.chain, reached.head, at, again_seconds=again) else [reached.chain]
            for chain, head in (self._left_behind or {}).items():
                if not self._note(chain, head, at, again_seconds=None):
                    refused.append(chain)
        except PDPError as error:
            return str(error)
        named = ", ".join(f"`{chain}`" for chain in refused)
        return f"later or other records of chain {named} are noted there: run `pdp audit verify`" if named else ""

    def _found_behind(self, own: str) -> dict[str, Head]:
        here = segments_by_chain(self._folder).keys() - {own}
        known = Anchors(self._anchors).heads()
        return {chain: head for chain, head in known.items() if chain in here and not held(self._folder, chain)}

    def _note(self, chain: str, head: Head, at: float, *, again_seconds: float | None) -> bool:
        noted = NotedHead(chain=chain, replica=self._replica, seq=head.seq, hash=head.hash, at=at)
        return self._notes.note(self._sign(noted), again_seconds=again_seconds)

    def _say(self, problem: str) -> None:
        if problem:
            self._on_failure()
        if problem and not self.problem:
            _LOG.error("other servers cannot see how far the decision log of this one reaches: %s", problem)
        elif self.problem and not problem:
            _LOG.warning("other servers can see again how far the decision log of this one reaches")
        self.problem = problem


def signed(head: NotedHead, deployment: str, signer: SigningKey) -> NotedHead:
    """Return a head with its signature."""
    named = replace(head, key=signer.id)
    return replace(named, signature=signer.sign(_statement(named, deployment)))


def is_signed(head: NotedHead, deployment: str, keys: PublicKeys) -> bool:
    """Say whether one of the keys has signed a head for a deployment."""
    return keys.signed(head.key, _statement(head, deployment), head.signature)


def _statement(head: NotedHead, deployment: str) -> bytes:
    # The kind keeps it apart from all else that the key signs.
    fields = {"chain": head.chain, "replica": head.replica, "seq": head.seq, "hash": head.hash, "at": head.at}
    return json_text({"kind": "record.head", "deployment": deployment, "key": head.key, **fields}).encode("ascii")
