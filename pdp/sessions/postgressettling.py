"""Go on with a server of PostgreSQL that has taken the place of another one, once nothing can contradict it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pdp.clock import Clock, no_earlier
from pdp.errors import StoreUnavailableError
from pdp.model import Session
from pdp.sessions import closings, lifecycle
from pdp.sessions.access import AccessRequest
from pdp.sessions.acknowledged import NOTHING, Known
from pdp.sessions.closings import Closing, Note
from pdp.sessions.closingsfile import KEPT_SECONDS, ClosingsFile, Noted
from pdp.sessions.foresight import Foreseen, Foresight
from pdp.sessions.freezes import Freeze
from pdp.sessions.outbox import freeze_event
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgresfailover import (
    SETTLING_SECONDS,
    Failover,
    FailoverTerms,
    Finding,
    Replication,
    Standing,
    judged,
    lacks,
    require_settling,
    standing,
)
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.sessions.postgreslease import DATABASE_TIME
from pdp.sessions.postgressteps import CLOSERS_VERSION
from pdp.sessions.sql import required
from pdp.sessions.sqlrows import freezes_on
from pdp.sessions.sqlselection import LIVE_SESSIONS
from pdp.sessions.unrecorded import Account
from pdp.sessions.values import Change

_LOG = logging.getLogger("pdp")

# Recorded as the one that revoked what may have been revoked already.
BY: Final = "store-went-back"
_REASON: Final = "the database has gone back to an older state: what was revoked after it is not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class WentBack:
    """What a server on `timeline` lacks, whose latest change is `revision`.

    `known` is the latest change that this machine knows to be acknowledged, 0 when it knows none. `lost` is how many of
    its changes are lost, None when that cannot be known.
    """

    timeline: str
    revision: int
    known: int
    lost: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedAgain:
    """What was written again: sessions and access requests as they are now, freezes, and keys of call tokens by id."""

    sessions: tuple[Session, ...] = ()
    freezes: tuple[Freeze, ...] = ()
    requests: tuple[AccessRequest, ...] = ()
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """How a process settles a server, whose store `opened` returns, and `history` its history.

    `went_back` is told first of what may be lost, `again` of what this process has written again, and `revoked`
    afterwards of the sessions that were revoked for it, of which `account` says what is recorded. What was closed is
    written again at once, and then other machines have twice `seconds` for theirs.
    """

    opened: Callable[[], SettlingStore]
    history: Callable[[], PostgresSessionHistory]
    clock: Clock
    went_back: Callable[[WentBack], None]
    account: Account
    revoked: Callable[[tuple[Session, ...]], None]
    again: Callable[[ClosedAgain], None]
    seconds: float = SETTLING_SECONDS

    def terms(self, replication: Replication, file: Path | None, closings: Path | None = None) -> FailoverTerms:
        """Return how a store takes part in failovers."""
        return FailoverTerms(replication=replication, file=file, settle=self.settle, closings=closings)

    def settle(self, failover: Failover) -> None:
        """Settle the present server, unless that is up to people. Raise `PDPError`."""
        known = failover.known
        with closing(self.opened()) as store:
            seen = store.standing(known, machine=failover.machine)
            found = judged(seen, known, failover.replication, failover.machine)
            if found is Finding.FITS:
                return
            require_settling(found, seen, known, failover.replication)
            if failover.closings is not None:
                if found is not Finding.OWED:
                    self.went_back(_lost(found, seen, known))
                self._write_again(store, seen, failover.closings)
            if seen.settled != seen.timeline:
                _LOG.warning("another server has taken the place of the database, on timeline `%s`", seen.timeline)
                failover.rest(self.seconds if failover.closings is None else 2 * self.seconds)
            # Others of this process or machine have learned more meanwhile.
            known = failover.known
            seen = store.standing(known, machine=failover.machine, connection=seen.connection)
            self._go_on(store, seen, known, failover)

    def _go_on(self, store: SettlingStore, seen: Standing, known: Known, failover: Failover) -> None:
        found = judged(seen, known, failover.replication)
        require_settling(found, seen, known, failover.replication)
        if found is Finding.FITS:
            return
        if found is Finding.UNSETTLED:
            store.take(seen)
            return
        if failover.closings is None:
            self.went_back(_lost(found, seen, known))
        now = no_earlier(self.clock.now(), store.high_water_at())
        keeps = found is Finding.REPLACED or (failover.closings is not None and _all_closed(store, found, seen, known))
        change = None if keeps else lifecycle.revoke(now, by=BY, reason=_REASON)
        again = found is Finding.LACKS
        with store.fencing(self.account):
            kept, revoked = store.replace(
                change, beyond=known.head.revision + 1, wall_at=now.wall_at, seen=seen, again=again
            )
            try:
                failover.keep(kept)
            finally:
                self.revoked(revoked)

    def _write_again(self, store: SettlingStore, seen: Standing, file: ClosingsFile) -> None:
        noted = file.take(seen.timeline)
        now = no_earlier(self.clock.now(), store.high_water_at())
        requests, keys = self._write_again_beside([note for _, note in noted.notes], now.wall_at)
        closed = store.write_again(noted, wall_at=now.wall_at, seen=seen)
        self.again(replace(closed, requests=requests, keys=keys))

    def _write_again_beside(
        self, notes: Sequence[Note], wall_at: float
    ) -> tuple[tuple[AccessRequest, ...], tuple[str, ...]]:
        """Close again what is kept beside the sessions; return the access requests, and the ids of keys."""
        noes = [note for note in notes if note.closing is Closing.REFUSED]
        ids = {note.id for note in notes if note.closing is Closing.WITHDRAWN}
        if not noes and not ids:
            return (), ()
        with closing(self.history()) as history:
            requests, keys = history.access(), history.call_token_keys()
            lost = sorted(one for one in ids if (key := keys.get(one)) is not None and not key.withdrawn)
            for one in lost:
                keys.withdraw(one, wall_at=wall_at)
            return requests.answer_all({note.id for note in noes}, closings.refused_again(noes)), tuple(lost)


class SettlingStore(PostgresSessionStore):
    """A store that takes any server, for the one that decides whether to go on with it. Nothing else uses it."""

    def standing(self, known: Known = NOTHING, *, machine: str = "", connection: int = 0) -> Standing:
        """Ask where the server stands; it must be that of a `connection`, if that is given."""
        with self._reading():
            seen = standing(self._connection, known, machine)
        _require_same(connection or seen.connection, seen)
        return seen

    def deployment(self) -> str:
        """Return what the database is called."""
        with self._reading():
            return str(required(self._connection.execute("SELECT id FROM deployment").get, "deployment"))

    def database_at(self) -> float:
        """Return the time of the database, unix seconds."""
        with self._reading():
            return float(self._connection.execute(DATABASE_TIME).get)

    def take(self, seen: Standing) -> None:
        """Note that all is settled up to the timeline of a server."""
        # INVARIANT: before anything is acknowledged there, all leases have a change that the server before lacks. So
        # none of them vouches for what is read there, such as labels, which have no number.
        with self._transaction():
            _require_same(seen.connection, standing(self._connection, NOTHING))
            self._note(self._advance(0.0), [])
        with self._transaction():
            _require_same(seen.connection, standing(self._connection, NOTHING))
            self._connection.execute(_SETTLED)

    def absent(self, timeline: str) -> int:
        """Return how many machines may have closed something that they have not written again on a timeline.

        They are those that have changed anything in the hour before the last change. One that does not know of this
        counts as well.
        """
        with self._reading():
            return int(self._connection.execute(_ABSENT, (CLOSERS_VERSION, timeline, KEPT_SECONDS)).get)

    def write_again(self, noted: Noted, *, wall_at: float, seen: Standing) -> ClosedAgain:
        """Close again what a machine has closed, and note that it has done so.

        It is not noted where the server lacks changes whose notes are no longer kept, until all was revoked there.
        """
        notes = [note for _, note in noted.notes if note.closing in (Closing.OVER, Closing.NARROWED)]
        cuts = [closings.cut_in(note) for _, note in noted.notes if note.closing is Closing.CUT]
        ids = json.dumps(sorted({note.id for note in notes}))
        with self._transaction():
            present = standing(self._connection, noted.dropped)
            _require_same(seen.connection, present)
            lost = [note for known, note in noted.notes if note.closing is Closing.FROZEN and self._lacks(known)]
            self._advance(wall_at)
            sessions = self._apply(_NOTED, (ids,), closings.again(notes, at=wall_at), {})
            for cut in cuts:
                sessions += self._apply(_CUT, (cut.tenant, cut.at, cut.user, cut.agent), closings.cut_again(cut), {})
            # The latest first: it has replaced the ones before.
            freezes = tuple(filter(self._freeze_again, map(closings.freeze_in, reversed(lost))))
            self._outbox.add(freeze_event(None, freeze, at=wall_at) for freeze in freezes)
            whole = present.swept == present.timeline or not lacks(present, noted.dropped)
            self._connection.execute(_AGAIN, (noted.machine, present.timeline if whole else "", present.revision))
            changes = [*(("session", one.id) for one in sessions), *(("freeze", one.id) for one in freezes)]
            self._note(self._revision, changes)
        return ClosedAgain(sessions=sessions, freezes=freezes)

    def _lacks(self, known: Known) -> bool:
        return lacks(standing(self._connection, known), known)

    def _freeze_again(self, freeze: Freeze) -> bool:
        """Set a freeze unless its tenant has one; say whether it was set."""
        if any(one.tenant == freeze.tenant for one in freezes_on(self._connection)):
            return False
        self._keep_freeze(freeze.tenant, freeze)
        return True

    def replace(
        self,
        change: Change | None,
        *,
        beyond: int,
        wall_at: float,
        seen: Standing,
        again: bool = True,
        resets_mark: bool = False,
    ) -> tuple[Known, tuple[Session, ...]]:
        """Go on with the state that a server has, in place of a later one; return its latest change.

        `change` is applied to all live sessions and returned is what it changed; unless `again`, only by the first one
        that does so on this timeline. Changes count from `beyond`, if that is higher, and what is counted of calls from
        now on: later changes than those of the server may be known, and calls not counted. With `resets_mark` the
        high-water mark is `wall_at`, also if it was later: then `change` leaves nothing live that ends after `wall_at`.
        """
        foreseen = self._foreseen(change) if change is not None and (again or seen.swept != seen.timeline) else {}
        with self._transaction():
            present = standing(self._connection, NOTHING)
            # Also what was foreseen is of this server: another one can have another session of the same epoch.
            _require_same(seen.connection, present)
            self._advance(wall_at)
            if resets_mark:
                self._connection.execute("UPDATE meta SET high_water_at = ?", (wall_at,))
            applies = change is not None and (again or present.swept != present.timeline)
            written = self._apply(LIVE_SESSIONS, (), change, foreseen) if applies and change is not None else ()
            counted = json.loads(self._connection.execute("SELECT bundle_counted FROM meta").get)
            begun = json.dumps([(name, wall_at) for name, _ in counted])
            self._revision = int(self._connection.execute(_COUNT_FROM, (beyond, beyond, begun)).get)
            self._connection.execute(_SWEPT)
            self._note(self._revision, [("session", session.id) for session in written])
            known = self._latest()
        return known, written

    def _foreseen(self, change: Change) -> Foreseen:
        """Compute a change of all that is live, before others have to wait for it."""
        with self._reading():
            return Foresight(lambda: nullcontext(self._connection), self._scopes, entities="''").of_live(change, None)


def _lost(found: Finding, seen: Standing, known: Known) -> WentBack:
    revision = known.head.revision
    lost: int | None = None
    if found is Finding.DOUBTFUL and revision:
        lost = 0
    elif revision > seen.first_revision:
        lost = revision - seen.first_revision
    return WentBack(timeline=seen.timeline, revision=seen.first_revision, known=revision, lost=lost)


def _all_closed(store: SettlingStore, found: Finding, seen: Standing, known: Known) -> bool:
    """Say whether all that can be lost of what was closed is written again, so that nothing need be revoked for it."""
    if found is Finding.LACKS and known.timeline in ("", seen.timeline):
        # No failover has cost that.
        return False
    absent = store.absent(seen.timeline)
    if absent:
        _LOG.error(
            "of %s of the machines that have changed anything in the last hour it is not known what they have closed: "
            "what is live is revoked",
            absent,
        )
    return not absent


def _require_same(connection: int, seen: Standing) -> None:
    if seen.connection != connection:
        raise StoreUnavailableError("the connection to the database was lost while it was settled")


_NOTED: Final = """
SELECT id, epoch FROM sessions WHERE id IN (SELECT json_array_elements_text(CAST(? AS json)))
ORDER BY depth, requested_at, id
"""
_CUT: Final = """
SELECT id, epoch FROM sessions WHERE state IN ('requested', 'active') AND tenant = ? AND requested_at <= ?
  AND CAST(? AS text) IN ('', "user") AND CAST(? AS text) IN ('', agent)
ORDER BY depth, requested_at, id
"""
# Servers that do not know this table write nothing into it, so they are absent until none of them is there.
_ABSENT: Final = """
SELECT count(*) + (SELECT CASE WHEN begun < ? THEN 1 ELSE 0 END FROM steps) FROM closers
WHERE timeline != ? AND changed_at > (SELECT max(changed_at) FROM closers) - ?
"""
_AGAIN: Final = """
INSERT INTO closers (id, changed_at, timeline, found_revision)
SELECT ?, coalesce(max(changed_at), 0), CAST(? AS text), ? FROM closers
ON CONFLICT (id) DO UPDATE SET timeline = excluded.timeline, found_revision = CASE
  WHEN closers.timeline = excluded.timeline THEN closers.found_revision ELSE excluded.found_revision
END
"""
_SETTLED: Final = "UPDATE timelines SET settled = (SELECT timeline FROM standing)"
_SWEPT: Final = "UPDATE timelines SET (settled, swept) = (SELECT timeline, timeline FROM standing)"
# A process that knows an earlier revision has seen nothing of this.
_COUNT_FROM: Final = """
UPDATE meta SET revision = greatest(revision, ?), forgotten_revision = greatest(revision, ?), bundle_counted = ?
RETURNING revision
"""
