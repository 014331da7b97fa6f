"""Whether a server of PostgreSQL may be used, after it has taken the place of another one.

A server that was promoted counts its log on a timeline of its own. The database notes up to which timeline all is
settled; so a server that is on another one has just taken over, or was restored. Then nothing is acknowledged before
every lease is over that an earlier server can have given: its row may be lost, and no fence would wait for it.

What went back is seen by the tag of a change that this process or this machine knows to be acknowledged. What depends
on `sessions.replication`: with `async` changes can be lost of which no one knows any more, so all that is live is
revoked whenever another server takes over, unless all machines write again what they have closed. Elsewhere nothing can
be lost, so a server that lacks something is refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from threading import Event, Thread
from typing import Final

from pdp.errors import PDPError, StoreUnavailableError, reason_of
from pdp.sessions.acknowledged import Acknowledged, AcknowledgedFile, Known, lacking
from pdp.sessions.closings import Note
from pdp.sessions.closingsfile import ClosingsFile
from pdp.sessions.lease import CLOCK_RATE, MOST_LEASE_SECONDS
from pdp.sessions.postgresconnection import PostgresConnection
from pdp.sessions.postgrestables import TAGS_KEPT
from pdp.sessions.sql import required

_LOG = logging.getLogger("pdp")

# What an earlier server allowed is over after this, whichever lease it was under.
SETTLING_SECONDS: Final = MOST_LEASE_SECONDS * CLOCK_RATE

_STANDING: Final = """
SELECT timeline, settled, swept, meta.revision, coalesce(tag, ''), standbys,
  coalesce((SELECT closers.timeline FROM closers WHERE closers.id = ?), ''),
  CASE WHEN settled = timeline THEN meta.revision ELSE coalesce(
    (SELECT min(found_revision) FROM closers WHERE closers.timeline = standing.timeline), meta.revision
  ) END
FROM meta CROSS JOIN standing LEFT JOIN tags ON tags.revision = ?
"""


class Replication(StrEnum):
    """How PostgreSQL fails over: not at all, to a standby that has all that was acknowledged, or to any."""

    NONE = "none"
    QUORUM = "quorum"
    ASYNC = "async"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A server as seen by one that knows a change: on which `timeline` it is, and whether it has that change.

    `settled` is the timeline up to which all is settled, and `swept` the one on which all was revoked that was live.
    `tag` is that of the known revision, empty without one; `standbys` are those for which commits wait. `again` is the
    timeline on which the machine that asks has last written again what it had closed. `first_revision` is what the
    server had before any machine did so, while it is not settled. `connection` is the number of the connection.
    """

    timeline: str
    settled: str
    swept: str
    revision: int
    tag: str
    standbys: str
    again: str = ""
    first_revision: int = 0
    connection: int


class Finding(StrEnum):
    """What is to be thought of a server."""

    FITS = "it has all that is known, on a timeline that is settled"
    UNSETTLED = "it has just taken over, and has all that is known"
    DOUBTFUL = "it has taken over, and may lack what is not known here"
    LACKS = "it lacks what was acknowledged"
    REPLACED = "it lacks what was acknowledged, but nothing that was live then is live now"
    EARLIER = "it lacks what was acknowledged, since another one has taken its place"
    OWED = "it has all that is known, and this machine has not yet written again what it had closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverTerms:
    """How a process takes part in failovers.

    `file` is for what its machine knows; None to keep nothing. `closings` is for what it has closed; with None it does
    not write that again. `settle` is called on a thread when a server has taken
    over, and makes it one that fits, or raises `PDPError`.
    """

    replication: Replication
    file: Path | None
    settle: Callable[[Failover], None]
    closings: Path | None = None


class Failover:
    """Says for each new connection of a process whether its server may be used, and has another one settled.

    `deployment` names the database. Raise `OSError` when the file of `terms` cannot be used.
    """

    def __init__(self, terms: FailoverTerms, acknowledged: Acknowledged, *, deployment: str) -> None:
        self.replication = terms.replication
        self._settle = terms.settle
        self._acknowledged = acknowledged
        self._file = AcknowledgedFile(terms.file, deployment=deployment) if terms.file else None
        if self._file is not None:
            known = self._file.read()
            acknowledged.note(known.head.revision, known.head.tag, known.timeline)
        self.closings = ClosingsFile(terms.closings, deployment=deployment) if terms.closings else None
        self._wanted, self._ending = Event(), Event()
        self._problem, self._warned = "", False
        self._thread = Thread(target=self._run, name="pdp-failover", daemon=True)

    @property
    def known(self) -> Known:
        """Return the latest change that this process knows to be acknowledged."""
        return self._acknowledged.known

    @property
    def machine(self) -> str:
        """Return the id under which this machine writes again what it has closed; empty when it does not."""
        return self.closings.machine if self.closings else ""

    def start(self) -> None:
        """Start the thread that settles."""
        self._thread.start()

    def stop(self) -> None:
        """Settle nothing more."""
        self._ending.set()
        self._wanted.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._file is not None:
            self._file.close()
        if self.closings is not None:
            self.closings.close()

    def rest(self, seconds: float) -> None:
        """Wait; raise `StoreUnavailableError` when the process ends before."""
        if self._ending.wait(seconds):
            raise StoreUnavailableError("the session store does not answer: `closed`")

    def admit(self, connection: PostgresConnection) -> None:
        """Take a connection that acknowledges, or raise `StoreUnavailableError`."""
        self._require(connection, acknowledges=True)

    def admit_to_read(self, connection: PostgresConnection) -> None:
        """Take a connection that only answers or renews leases, or raise `StoreUnavailableError`."""
        self._require(connection, acknowledges=False)

    def settle_now(self, connection: PostgresConnection) -> None:
        """Settle the server of a connection, if that is to be done."""
        if self.found(connection) is not Finding.FITS:
            self._settle(self)

    def found(self, connection: PostgresConnection) -> Finding:
        """Return what is to be thought of the server of a connection."""
        known = self.known
        return judged(standing(connection, known, self.machine), known, self.replication, self.machine)

    def keep(self, known: Known, closed: Sequence[Note] = ()) -> None:
        """Keep a change before it is acknowledged: in memory, and in the files of the machine, with what it has closed.

        Raise `StoreUnavailableError` when it cannot be written, or may be lost already.
        """
        if closed and self.closings is not None:
            self._note_closed(self.closings, known, closed)
        self._acknowledged.note(known.head.revision, known.head.tag, known.timeline)
        if self._file is None:
            return
        try:
            self._file.keep(known)
        except OSError as error:
            raise StoreUnavailableError(
                f"what is acknowledged cannot be written to the disk of this machine: {reason_of(error)}; the change "
                "is made and stands"
            ) from None

    def keep_closed(self, closed: Sequence[Note], timeline: str) -> None:
        """Keep what was closed without a change of sessions, as `keep` does; nothing where it is not written again."""
        if self.closings is not None:
            self._note_closed(self.closings, replace(self.known, timeline=timeline), closed)

    @staticmethod
    def _note_closed(file: ClosingsFile, known: Known, closed: Sequence[Note]) -> None:
        try:
            kept = file.keep(known, closed)
        except StoreUnavailableError as error:
            raise StoreUnavailableError(f"{error}; the change is made and stands") from None
        if not kept:
            raise StoreUnavailableError(
                "another server has taken the place of the database: the write may or may not have been made"
            )

    def require_standbys(self, names: str) -> None:
        """Raise `StoreUnavailableError` when commits are to wait for standbys, and wait for none."""
        if self.replication is Replication.QUORUM and not names.strip():
            raise StoreUnavailableError(
                "`sessions.replication` is `quorum`, but PostgreSQL waits for no standby: `synchronous_standby_names` "
                "is empty"
            )

    def _require(self, connection: PostgresConnection, *, acknowledges: bool) -> None:
        known = self.known
        seen = standing(connection, known, self.machine)
        connection.timeline = seen.timeline
        if acknowledges:
            self.require_standbys(seen.standbys)
            self._warn(seen.standbys)
        found = judged(seen, known, self.replication, self.machine)
        if found is Finding.FITS:
            return
        require_settling(found, seen, known, self.replication)
        self._wanted.set()
        if acknowledges or found is not Finding.UNSETTLED:
            raise StoreUnavailableError(
                "another server has taken the place of the database: nothing is acknowledged until every lease is over "
                f"that the one before can have given, {SETTLING_SECONDS:g} seconds"
            )

    def _warn(self, names: str) -> None:
        if self.replication is Replication.QUORUM and standbys_in(names) == 1 and not self._warned:
            self._warned = True
            _LOG.warning(
                "`synchronous_standby_names` has one standby: when that is down, nothing can change, and no call is "
                "allowed once leases are over"
            )

    def _run(self) -> None:
        while self._wanted.wait() and not self._ending.is_set():
            self._wanted.clear()
            try:
                self._settle(self)
            except PDPError as error:
                self._note(str(error))
            else:
                self._note("")

    def _note(self, problem: str) -> None:
        if problem and problem != self._problem and not self._ending.is_set():
            _LOG.error("the server that has taken the place of the database is not used: %s", problem)
        self._problem = problem


def standing(connection: PostgresConnection, known: Known, machine: str = "") -> Standing:
    """Ask a server where it stands; `machine` is the id of the one that asks, empty without one."""
    found = required(connection.execute(_STANDING, (machine, known.head.revision)).get, "meta", "timelines")
    timeline, settled, swept, revision, tag, standbys, again, first_revision = found
    return Standing(
        timeline=timeline,
        settled=settled,
        swept=swept,
        revision=revision,
        tag=tag,
        standbys=standbys,
        again=again,
        first_revision=first_revision,
        connection=connection.opened,
    )


def judged(seen: Standing, known: Known, replication: Replication, machine: str = "") -> Finding:
    """Return what is to be thought of a server; a `machine` with an id writes again what it has closed."""
    if lacks(seen, known):
        if seen.timeline < known.timeline:
            return Finding.EARLIER
        # Each timeline begins with what the one before had: what was live then is over if all was revoked on this one.
        swept = seen.swept == seen.timeline and known.timeline not in ("", seen.timeline)
        return Finding.REPLACED if swept else Finding.LACKS
    if replication is Replication.ASYNC and seen.swept != seen.timeline:
        return Finding.DOUBTFUL
    if seen.settled != seen.timeline:
        return Finding.UNSETTLED
    return Finding.OWED if machine and seen.again != seen.timeline else Finding.FITS


def require_settling(found: Finding, seen: Standing, known: Known, replication: Replication) -> None:
    """Raise `StoreUnavailableError` when people must decide whether to go on with a server."""
    if found is Finding.EARLIER:
        raise StoreUnavailableError(
            f"an earlier server of the database is reached again, on timeline `{seen.timeline}`: one on "
            f"`{known.timeline}` has taken its place; to go on with it, see `pdp store restore`"
        )
    if found is Finding.LACKS and replication is not Replication.ASYNC:
        raise lacking(max(known.head.revision - seen.revision, 0))
    if found is Finding.UNSETTLED and replication is Replication.NONE:
        raise StoreUnavailableError(
            f"another server has taken the place of the database, on timeline `{seen.timeline}` after "
            f"`{seen.settled}`, and `sessions.replication` is `none`; to go on with it, see `pdp store restore`"
        )


def standbys_in(names: str) -> int | None:
    """Return how many standbys `synchronous_standby_names` has; None for any number."""
    inner = re.sub(r"^\s*(?:FIRST|ANY)?\s*\d+\s*\((.*)\)\s*$", r"\1", names, flags=re.IGNORECASE)
    found = {name.strip() for name in inner.split(",")} - {""}
    return None if "*" in found else len(found)


def lacks(seen: Standing, known: Known) -> bool:
    """Say whether a server lacks a change, which is the one that it was asked for."""
    head = known.head
    if seen.revision < head.revision:
        return True
    if not head.tag or seen.tag == head.tag:
        return False
    # Only the latest tags are kept: that there is none of an older one says nothing.
    return bool(seen.tag) or seen.revision - head.revision < TAGS_KEPT
