"""Keep sessions in PostgreSQL, which servers on several machines can share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from typing import Final, TypeVar

from pdp.clock import SystemClock
from pdp.errors import ConflictError, OverloadedError, StoreUnavailableError, reason_of
from pdp.model import Head, Session, SessionState
from pdp.sessions.acknowledged import Acknowledged, Known
from pdp.sessions.closings import Note, cut_off, frozen, narrowed, over
from pdp.sessions.database import require_known_schema
from pdp.sessions.fences import Fences
from pdp.sessions.foresight import Foresight
from pdp.sessions.freezes import Freeze
from pdp.sessions.lease import Lease, LeaseTerms
from pdp.sessions.leasepage import LeasePage, LeaseStanding
from pdp.sessions.lifecycle import LIVE
from pdp.sessions.postgresconnection import IDLE_SECONDS, SECONDS, BoundedLock, PostgresConnection, Primary
from pdp.sessions.postgresfailover import Failover, FailoverTerms, Replication
from pdp.sessions.postgresfence import PostgresFence
from pdp.sessions.postgreslabels import LabelledReader, PostgresLabels, with_late_labels
from pdp.sessions.postgreslease import LeaseRenewer
from pdp.sessions.postgresprecedence import PostgresPrecedence
from pdp.sessions.postgressteps import STEPS, Step, begin, latest, need
from pdp.sessions.postgrestables import BEGIN, prepare_sessions
from pdp.sessions.postgresunrecorded import PostgresUnrecorded
from pdp.sessions.postgreswatcher import PostgresWatcher
from pdp.sessions.scopes import ScopePool
from pdp.sessions.sharedclock import AHEAD, MOST_APART_SECONDS, SharedClock
from pdp.sessions.sql import required
from pdp.sessions.sqlrows import freezes_on
from pdp.sessions.sqlstore import SQLSessionStore
from pdp.sessions.succession import BUNDLES_KEPT
from pdp.sessions.turns import MOST_WAITING, Turns
from pdp.sessions.unrecorded import Account, KnownRows
from pdp.sessions.values import ActiveBundle, Captured, Change, Cut, Expected
from pdp.sessions.writes import Write

T = TypeVar("T")

NAME: Final = "session store"
# One row orders all writes: revisions are in the order of commits, so that no reader passes over one.
_LOCK: Final = "SELECT revision FROM meta FOR NO KEY UPDATE"
# A write that ends no authority waits so long at a time, and then lets an ending of its process pass.
_PATIENCE_SECONDS: Final = 0.25
_BEGIN: Final = f"""
BEGIN; SET LOCAL lock_timeout = {round(_PATIENCE_SECONDS * 1000)}; {_LOCK}; SET LOCAL lock_timeout TO DEFAULT
"""

# INVARIANT: no write pushes the high-water mark further than this beyond the time of the database. It never falls, and
# a mark that is a day ahead would expire the sessions of all servers.
_ADVANCE: Final = """
UPDATE meta SET revision = revision + 1, high_water_at = greatest(high_water_at, :wall_at)
WHERE :wall_at <= greatest(high_water_at, extract(epoch FROM clock_timestamp()) + :ahead)
RETURNING schema_version, revision
"""
# What its commit makes known: with the tag that it has by now.
_OPENED: Final = "SELECT schema_version, revision, id FROM meta, deployment"
_MARK: Final = """
SELECT revision, coalesce(tag, ''), timeline, standbys FROM meta LEFT JOIN tags USING (revision) CROSS JOIN standing
"""

# The same, where changes can be lost: with who has made it. A machine without notes is none on which one may count.
_MARK_BY: Final = f"""
WITH noted AS (
  INSERT INTO closers (id, changed_at, timeline)
  SELECT by, extract(epoch FROM clock_timestamp()), CASE by WHEN '' THEN '' ELSE timeline END
  FROM standing CROSS JOIN (SELECT CAST(? AS text) AS by) AS machine
  ON CONFLICT (id) DO UPDATE SET changed_at = excluded.changed_at
)
{_MARK}
"""  # noqa: S608 - words of our own
_STANDBYS: Final = "SELECT current_setting('synchronous_standby_names')"


class PostgresSessionStore(SQLSessionStore):
    """A `SessionStore` in a database of PostgreSQL. Safe for threads; open it after forking, not before.

    `conninfo` is a connection string; the tables are in the schema `namespace` with `_sessions` behind it.
    `busy_seconds` is how long to wait for other writers before `OverloadedError`, and `seconds` for the server before
    `StoreUnavailableError`. Others wait `idle_seconds` for a process that has stopped while it writes. `clock` learns
    how far it can be behind that of the database. The others are as in `SQLiteSessionStore`. No disk is reserved for
    ending authority: that is up to those who run the database.

    Every read asks the primary, so a change by any server is seen by all. With a `lease`, what is remembered answers
    while it lasts, and a thread renews it until `close`. What is written returns when no server with a lease can answer
    from before it, and `fences` are told of that. Two do not wait: `touch`, since the high-water mark can be as old as
    the lease; and `settle`, since labels are asked for at the primary. A write for a time far ahead of the clock of the
    database is refused, and so is a read by such a machine. Without `failover`, any server is used that takes writes.
    `steps` are those that this program knows. With `known_rows`, `unrecorded` keeps what the record of this process is
    to say of each change.
    """

    _connection: PostgresConnection
    # What the present transaction closes, and the sessions that it writes.
    _closed: list[Note]
    _written: list[Session]

    def __init__(
        self,
        conninfo: str,
        *,
        namespace: str = "pdp",
        busy_seconds: float = 5.0,
        seconds: float = SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        sessions_kept: int = 100_000,
        changes_kept: int = 10_000,
        bundles_kept: int = BUNDLES_KEPT,
        tells: bool = False,
        known_revision: int = 0,
        lease: LeaseTerms | None = None,
        fences: Fences | None = None,
        clock: SharedClock | None = None,
        failover: FailoverTerms | None = None,
        steps: Sequence[Step] = STEPS,
        known_rows: KnownRows | None = None,
    ) -> None:
        self._tables = tables = f"{namespace}_sessions"
        self._known_schema = latest(steps)
        # For all connections of the process to this database.
        self.primary = primary = Primary()

        def connection(busy_seconds: float = busy_seconds, seconds: float = seconds) -> PostgresConnection:
            return PostgresConnection(
                conninfo,
                namespace=tables,
                name=NAME,
                busy_seconds=busy_seconds,
                seconds=seconds,
                idle_seconds=idle_seconds,
                primary=primary,
            )

        self._foreseeing_lock, self._foreseer = BoundedLock(busy_seconds, NAME), connection()
        self._busy_seconds, self._turns = busy_seconds, Turns(most=MOST_WAITING, seconds=busy_seconds)
        self._acknowledged = Acknowledged(known_revision, reads_count=not _is_quorum(failover))
        # What only reads waits for no writer.
        fencing, labelling, watching = connection(0.0), connection(), connection(0.0)
        self._fence = PostgresFence(fencing, channel=tables)
        self._fences = fences or Fences()
        # Whether others can remember what the present transaction changes; and, on each thread, the revision that is
        # waited for when its block ends.
        self._noted, self._deferred = False, threading.local()
        # No server can answer from before this revision, and labels that were read so often are safe.
        self._outwaited, self._labels_outwaited = 0, 0
        self._renewer: LeaseRenewer | None = None
        self._failover: Failover | None = None
        self._standing: LeaseStanding | None = None
        leased: Callable[[], Lease | None] = _no_lease
        scopes = ScopePool()
        with ExitStack() as opened:
            writing = opened.enter_context(closing(connection()))
            with writing.answering():
                waited_for = prepare_sessions(writing, tables, steps)
                version, revision, deployment = required(writing.execute(_OPENED).get, "meta", "deployment")
            if failover is None:
                self._acknowledged.require(revision, known_revision)
            else:
                self._failover = _failover(failover, self._acknowledged, deployment)
                opened.callback(self._failover.stop)
                with writing.answering():
                    self._failover.settle_now(writing)
                    self._failover.admit(writing)
                for one in (writing, fencing, labelling, self._foreseer):
                    one.admit = self._failover.admit
                watching.admit = self._failover.admit_to_read
            if lease is not None:
                page = _page(lease, deployment)
                renewing = connection(0.0, lease.seconds)
                renewing.admit = watching.admit
                self._renewer = LeaseRenewer(renewing, page, lease, channel=tables, failover=self._failover)
                leased, self._standing = page.held, LeaseStanding(page, lease.clock)
            opened.pop_all()
        self._labels = PostgresLabels(
            labelling,
            scopes,
            busy_seconds=busy_seconds,
            name=NAME,
            failover=self._failover,
            schema_version=self._known_schema,
        )
        self._remembered = watcher = PostgresWatcher(
            watching,
            scopes,
            self._acknowledged,
            sessions_kept=sessions_kept,
            busy_seconds=busy_seconds,
            clock=clock or SharedClock(SystemClock()),
            leased=leased,
            only_leased=_is_quorum(failover),
            schema_version=self._known_schema,
        )
        super().__init__(
            writing,
            watcher,
            Foresight(self._connect_to_foresee, scopes, entities="CAST(session_json AS json) ->> 'entities_json'"),
            scopes,
            changes_kept=changes_kept,
            bundles_kept=bundles_kept,
            tells=tells,
            turns="message_turn",
            ended_at="CAST(CAST(session_json AS json) ->> 'ended_at' AS double precision)",
            reader=LabelledReader,
        )
        self._precedence = PostgresPrecedence(writing, self._turns, seen=watcher.ask)
        self.unrecorded = PostgresUnrecorded(writing, known=known_rows or KnownRows(), holding=self._reading)
        if waited_for:
            self._begin(version, revision)
        if self._failover is not None:
            self._failover.start()
        if self._renewer is not None:
            self._renewer.start()

    @property
    def lease_standing(self) -> LeaseStanding | None:
        """Return how the lease of this machine stands; None where each read asks."""
        return self._standing

    @property
    def notes(self) -> bool:
        """Say whether this machine notes what it closes, to write it again after a failover."""
        return self._failover is not None and bool(self._failover.machine)

    def acknowledged(self) -> int:
        """Return the revision of the last acknowledged change that this process knows of."""
        return self._acknowledged.revision

    def admit(self, connection: PostgresConnection) -> None:
        """Take a connection of what is kept beside the sessions; `StoreUnavailableError` while nothing is acknowledged.

        That is so after a failover, until it is settled.
        """
        if self._failover is not None:
            connection.execute(f"SET search_path TO {self._tables}")
            self._failover.admit(connection)
            connection.execute("RESET search_path")

    def require_standbys(self, connection: PostgresConnection) -> None:
        """Raise `StoreUnavailableError` when a commit on a connection is to wait for standbys, and waits for none."""
        if self._failover is not None:
            self._failover.require_standbys(connection.execute(_STANDBYS).get)

    def cut(self, cut: Cut) -> None:
        """Revoke any number of sessions at once."""
        super().cut(cut)
        if self._failover is not None:
            # The sessions are noted one by one as well, but by whoever is first to change each.
            self._failover.keep_closed([cut_off(cut)], self._failover.known.timeline)

    def note_closed(self, notes: Sequence[Note], timeline: str) -> None:
        """Note what was closed beside the sessions, on a timeline, before it is acknowledged.

        Raise `StoreUnavailableError` when that cannot be noted, or may be lost already.
        """
        if self._failover is not None:
            self._failover.keep_closed(notes, timeline)

    @contextmanager
    def fencing(self, account: Account | None = None) -> Iterator[None]:
        """Wait once, when the `with` block ends, for those who do not know what it has written."""
        before, self._deferred.revision = self._deferred_revision(), 0
        try:
            with self.unrecorded.accounting(account):
                yield
        finally:
            revision, self._deferred.revision = self._deferred.revision, before
            if revision:
                # In a block within another one, that one waits.
                self._wait_later(revision)

    def outwait(self, found: Sequence[str] = ()) -> None:
        """Return when all see what was read. It asks nothing while no more was seen than the last time.

        But it does so for sessions that are found over, where those are noted.
        """
        labels = self._remembered.labels_read()
        unnoted = bool(found) and self.notes
        if unnoted or self._acknowledged.seen > self._outwaited or labels > self._labels_outwaited:
            self._outwait(found)
            self._labels_outwaited = labels

    def written(self, write: Write, *, wall_at: float) -> tuple[str, ...] | None:
        """Return the ids of the sessions of a change that is remembered; None when it is not."""
        # What asks for an ending again is one.
        found = self._ending(lambda: super(PostgresSessionStore, self).written(write, wall_at=wall_at))
        if found is not None:
            # The one that has made it may still be waiting for its fence, or have noted nothing.
            self._outwait(found)
        return found

    def change_tree(
        self, session_id: str, change: Change, *, wall_at: float, write: Write | None = None
    ) -> tuple[Session, ...]:
        """Apply `change` to one session and all its descendants in one transaction."""
        written = super().change_tree(session_id, change, wall_at=wall_at, write=write)
        if self.notes and all(session.id != session_id for session in written):
            # What is found done is acknowledged as well, and whoever has done it may have noted nothing.
            self._outwait((session_id,))
        return written

    def activate_bundle(
        self,
        bundle: ActiveBundle,
        content: bytes,
        change: Change,
        *,
        captured: Captured | None = None,
        expected: Expected | None = None,
        write: Write | None = None,
    ) -> tuple[Session, ...]:
        """Make a bundle the active one, keep its content, and apply `change` to all live sessions."""
        written = super().activate_bundle(bundle, content, change, captured=captured, expected=expected, write=write)
        # When it was active already, the one that has activated it may still be waiting for its fence.
        self._outwait()
        return written

    def settle(
        self,
        chain: Sequence[Session],
        labels: frozenset[str],
        *,
        by: str,
        wall_at: float,  # noqa: ARG002 - the mark is in the row of all other writes
    ) -> tuple[Session, ...]:
        """Add labels to a session and its ancestors; return the whole chain as it is afterwards."""
        try:
            added = self._labels.add(tuple(chain), labels, by=by)
        except ConflictError:
            # As after other writes: memory may lack what it conflicts with.
            with self._reading():
                self._acknowledged.see(required(self._connection.execute("SELECT revision FROM meta").get, "meta"))
            raise
        self._remembered.forget(session.id for session in chain)
        return added

    def begin_steps(self, version: int) -> None:
        """Have servers use what the steps up to a version bring, and refuse those that know less."""
        # Both locks in the order of a start: else that could wait for this one, and this one for it.
        with self._reading(), self._connection.transaction(f"{BEGIN}; {_LOCK}"):
            need(self._connection, version)
            known = self._latest()
        self._keep(known)
        self._begin(version, known.head.revision)

    def close(self) -> None:
        """End the lease and close the connections; afterwards the store does not answer."""
        if self._renewer is not None:
            self._renewer.stop()
        if self._failover is not None:
            self._failover.stop()
        self._fence.close()
        self._labels.close()
        with self._turns.turn(last=True):
            self._connection.close()
        self._watcher.close()
        self._foreseer.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        # As in SQLite: lists and counts use the writing connection, and must not delay decisions.
        with self._turns.turn(presses=self._precedence.ends), self._connection.answering():
            yield

    def _snapshot(self) -> AbstractContextManager[None]:
        return self._connection.snapshot()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        first = self._precedence.first
        with ExitStack() as held:
            if first:
                # Each statement has its own wait for others.
                held.enter_context(self._connection.transaction(f"BEGIN; {first}"))
                self._connection.execute(_LOCK)
            else:
                self._wait_in_turn(held)
            yield

    def _wait_in_turn(self, held: ExitStack) -> None:
        """Begin a transaction; `OverloadedError` where that takes too long, or an ending waits for the connection.

        An activation gives way only to what waits at the database.
        """
        ends_at = time.monotonic() + self._busy_seconds
        while True:
            try:
                with self._connection.answering():
                    held.enter_context(self._connection.transaction(_BEGIN))
            except OverloadedError:
                if self._turns.pressed or time.monotonic() >= ends_at:
                    raise
            else:
                return

    @contextmanager
    def _transaction(self, *, opens: bool = False) -> Iterator[None]:  # noqa: ARG002 - nothing is reserved
        with self._reading():
            self._revision, self._noted, self._closed, self._written = 0, False, [], []
            with self._locked():
                try:
                    yield
                except ConflictError:
                    # Memory may lack what it conflicts with: the next read asks, also under a lease.
                    self._acknowledged.see(self._revision - 1 if self._revision else self._latest().head.revision)
                    raise
                if self._revision:
                    # No other process writes meanwhile, so the one before is the latest.
                    self._acknowledged.require(self._revision - 1, self._acknowledged.revision)
                    self.unrecorded.keep(self._written)
                known = self._latest()
            noted, closed = self._noted, self._closed
        # Others write meanwhile.
        self._acknowledge(known, fenced=noted, closed=closed)

    def _advance(self, wall_at: float) -> int:
        found = self._connection.execute(_ADVANCE, {"wall_at": wall_at, "ahead": MOST_APART_SECONDS}).get
        if found is None:
            required(self._connection.execute("SELECT revision FROM meta").get, "meta")
            raise StoreUnavailableError(f"{AHEAD}; nothing was written")
        schema_version, self._revision = found
        require_known_schema(schema_version, self._known_schema)
        return self._revision

    def _latest(self) -> Known:
        """Return the latest change, which the commit of the present transaction makes safe."""
        failover = self._failover
        if failover is not None and failover.replication is Replication.ASYNC:
            found = self._connection.execute(_MARK_BY, (failover.machine,)).get
        else:
            found = self._connection.execute(_MARK).get
        revision, tag, timeline, standbys = required(found, "meta", "timelines")
        if failover is not None:
            failover.require_standbys(standbys)
        return Known(head=Head(revision=revision, tag=tag), timeline=timeline)

    def _acknowledge(self, known: Known, *, fenced: bool, closed: Sequence[Note] = ()) -> None:
        """Return when a commit, and what it has `closed`, may be acknowledged.

        Raise `StoreUnavailableError` when it may not; it stands, and if it is `fenced`, all know it even then.
        """
        try:
            self._keep(known, closed)
        finally:
            if fenced:
                self._wait_later(known.head.revision)

    def _keep(self, known: Known, closed: Sequence[Note] = ()) -> None:
        if self._failover is not None:
            self._failover.keep(known, closed)
        else:
            self._acknowledged.note(known.head.revision, known.head.tag)

    def _deferred_revision(self) -> int | None:
        revision: int | None = getattr(self._deferred, "revision", None)
        return revision

    def _wait_later(self, revision: int) -> None:
        """Wait when the block of this thread ends; now if there is none."""
        deferred = self._deferred_revision()
        if deferred is None:
            self._wait(revision)
        else:
            self._deferred.revision = max(deferred, revision)

    def _wait(self, revision: int) -> None:
        fence = self._fence.wait(revision)
        if fence is not None:
            self._fences.note(fence)
        self._outwaited = max(self._outwaited, revision)

    def _begin(self, version: int, revision: int) -> None:
        # INVARIANT: a server that knows less has seen the revision, or its lease is over, before any row is written
        # that it does not know.
        self._wait(revision)
        with self._reading(), self._connection.transaction(BEGIN):
            begin(self._connection, version)

    def _present_turn(self) -> str:
        # Shared: the next turn begins when this transaction is over.
        return str(self._connection.execute("SELECT turn FROM source_turn FOR SHARE").get or "")

    def _outwait(self, found: Sequence[str] = ()) -> None:
        """Wait until all that can be read now is safe, and known everywhere.

        It can be of a commit whose wait for a standby was cancelled. A commit of our own makes safe what came before.
        What sessions and freezes with the ids that were `found` have closed is noted as if it were made here.
        """
        if found:
            self._ending(lambda: self._wait_for_all(found))
        else:
            self._wait_for_all(())

    def _wait_for_all(self, found: Sequence[str]) -> None:
        with self._reading(), self._locked():
            known = self._latest()
            closed = self._closed_before(found) if self.notes else []
        self._acknowledge(known, fenced=True, closed=closed)

    def _closed_before(self, ids: Sequence[str]) -> list[Note]:
        sessions = [session for one in ids if (session := self._reader.by_id(one)) is not None]
        notes = [over(one) for one in sessions if one.state not in LIVE]
        notes += [narrowed(one) for one in sessions if one.state is SessionState.ACTIVE]
        return notes + [frozen(one) for one in freezes_on(self._connection) if one.id in ids]

    def _note(self, revision: int, changes: Sequence[tuple[str, str]]) -> None:
        super()._note(revision, changes)
        # Also without a change: what it found done, by another, may still be waiting for its fence.
        self._noted = True

    def _tag(self, revision: int) -> str | None:
        tag: str | None = self._connection.execute("SELECT tag FROM tags WHERE revision = ?", (revision,)).get
        return tag

    def _replace(self, sessions: Sequence[Session]) -> tuple[Session, ...]:
        if self.notes:
            self._closed += self._closed_by(sessions)
        written = super()._replace(sessions)
        self._written += written
        return written

    def _rewrite(self, sessions: Sequence[Session]) -> Sequence[Session]:
        return super()._rewrite(with_late_labels(self._connection, sessions))

    def _let_pass(self) -> None:
        self._precedence.let_pass()

    def _closed_by(self, sessions: Sequence[Session]) -> list[Note]:
        """Return the notes of what sessions that are about to be written close."""
        notes = [over(session) for session in sessions if session.state not in LIVE]
        # Of many at once none is narrowed: these have other data of the directory.
        session = sessions[0] if len(sessions) == 1 else None
        if session is not None and session.state is SessionState.ACTIVE:
            was_active = self._stored_states([session.id])[session.id] is SessionState.ACTIVE
            notes += [narrowed(session)] if was_active else []
        return notes

    def _keep_freeze(self, tenant: str, freeze: Freeze | None) -> None:
        # One whose lifting a first person has confirmed was noted when it was set.
        if freeze is not None and not freeze.confirmed_by and self.notes:
            self._closed.append(frozen(freeze))
        super()._keep_freeze(tenant, freeze)

    def _foreseeing(self) -> AbstractContextManager[None]:
        return self._foreseer.answering()

    def _ending(self, write: Callable[[], T]) -> T:
        return self._precedence.ending(write)

    def _activating(self, write: Callable[[], T]) -> T:
        return self._precedence.activating(write)

    @contextmanager
    def _connect_to_foresee(self) -> Iterator[PostgresConnection]:
        # Kept open, because a new connection takes longer than most changes.
        with self._foreseeing_lock:
            yield self._foreseer


def _page(lease: LeaseTerms, deployment: str) -> LeasePage:
    try:
        return LeasePage(lease, deployment=deployment)
    except OSError as error:
        raise StoreUnavailableError(f"cannot use `{lease.file}`: {reason_of(error)}") from None


def _is_quorum(terms: FailoverTerms | None) -> bool:
    return terms is not None and terms.replication is Replication.QUORUM


def _failover(terms: FailoverTerms, acknowledged: Acknowledged, deployment: str) -> Failover:
    try:
        return Failover(terms, acknowledged, deployment=deployment)
    except OSError as error:
        raise StoreUnavailableError(f"cannot use `{terms.file}`: {reason_of(error)}") from None


def _no_lease() -> Lease | None:
    return None
