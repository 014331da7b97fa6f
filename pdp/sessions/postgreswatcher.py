"""Read sessions from PostgreSQL; each read asks it whether anything has changed since the last one.

The question is about one row, on a connection that does nothing else. While its revision and tag stay the same, so does
all that is remembered, because every write changes both in its own transaction, one after the other.

While this machine has a lease, nothing is asked: memory answers that has all changes up to the head of the lease.

Each read also shows how far the clock of this machine can be behind that of the database.

Where a standby can be promoted while the old primary goes on, an answer of the old one proves nothing: it says for ever
that nothing has changed. Then a call is only answered under a lease, which the old one cannot renew. When the lease is
of another server than before, all connections of the process are opened again: they can be to the old one.

Only the labels that calls add are in rows without a revision. Whoever reads a session with its labels asks for these
rows, also under a lease.

Memory and the connection have a lock each, and memory's is never held while the database is asked: a database that
falls silent holds up those who ask it, and no answer from memory. That no answer is older than what was acknowledged
before its call does not need the lock of the connection:

- The lease is read after the call has begun. A fence ends when each machine has published a lease that has the change,
  or when the leases from before are over: so if the change was acknowledged before the call, it is in the lease.
- Memory answers when it has all that the lease has. It is brought forward in one step, under its lock: no answer holds
  a session of one moment and a bundle of another. Only the one who has the connection does that, from a snapshot that
  is later than the one before, so memory never goes back.
- A session is remembered by the one who has the connection, as its snapshot shows it, and memory is at that snapshot
  until another one has the connection.
- What a thread was told to forget while another was reading it is not remembered (`_forgotten`).
- Memory that was read at one server answers under no lease of another one: it can have what that one never had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from threading import Lock
from typing import ClassVar, Final

from pdp.errors import StoreUnavailableError, UnknownRevisionError
from pdp.model import Head, Session
from pdp.sessions.acknowledged import Acknowledged, lacking
from pdp.sessions.lease import Lease
from pdp.sessions.postgresconnection import BoundedLock, PostgresConnection
from pdp.sessions.postgreslabels import LabelledReader, label_rows
from pdp.sessions.postgrestables import TAGS_KEPT
from pdp.sessions.scopes import ScopePool
from pdp.sessions.sharedclock import SharedClock
from pdp.sessions.sql import required
from pdp.sessions.values import NOT_ITS_OWN
from pdp.sessions.watching import NOTHING, Key, Moment, Reading, Watching

_HEAD: Final = """
SELECT revision, coalesce(tag, ''), CAST(extract(epoch FROM clock_timestamp()) AS double precision)
FROM meta LEFT JOIN tags USING (revision)
"""
_TAGS: Final = "SELECT revision, tag FROM tags WHERE revision >= ?"


class PostgresWatcher(Watching):
    """What one process reads and remembers of a database. Safe for threads.

    Who asks the database waits for others of this process at most `busy_seconds`. `leased` returns the lease that this
    machine has now, None without one. With `only_leased`, a view is refused without one. `schema_version` is as in
    `Watching`.
    """

    _connection: PostgresConnection
    _labels_apart: ClassVar[bool] = True

    def __init__(
        self,
        connection: PostgresConnection,
        scopes: ScopePool,
        acknowledged: Acknowledged,
        *,
        sessions_kept: int,
        busy_seconds: float,
        clock: SharedClock,
        leased: Callable[[], Lease | None],
        schema_version: int,
        only_leased: bool = False,
    ) -> None:
        super().__init__(
            connection,
            scopes,
            sessions_kept=sessions_kept,
            schema_version=schema_version,
            reader=LabelledReader,
        )
        # INVARIANT: who has the lock of memory waits for nothing, so who has that of the connection may take it too.
        self._asking, self._memory = BoundedLock(busy_seconds, "session store"), Lock()
        self._acknowledged = acknowledged
        self._clock = clock
        self._leased = leased
        self._only_leased = only_leased
        # The timeline of the server that gave the last lease, and of that which memory was read at.
        self._timeline, self._read_at = "", ""
        # The number of the connection that memory was read by.
        self._opened = 0
        self._labels_read = 0
        # How often sessions were to be forgotten.
        self._forgotten = 0
        # The tags of what is remembered: of the latest revision, and back at least to the head of the lease.
        self._tags: dict[int, str] = {}

    def labels_read(self) -> int:
        """Return how often sessions with labels were read, which may be of commits that are not safe yet."""
        with self._memory:
            return self._labels_read

    def forget(self, session_ids: Iterable[str]) -> None:
        """Forget sessions, so that they are read anew."""
        with self._memory:
            self._forgotten += 1
            for session_id in session_ids:
                self._recent.drop(session_id)

    def ask(self, query: str) -> bool:
        """Return what a query says that changes nothing and waits for no one."""
        with self._asking, self._connection.answering():
            return bool(self._connection.execute(query).get)

    def close(self) -> None:
        """Close the connection and forget all sessions."""
        with self._asking:
            self._connection.close()
            with self._memory:
                self._recent.clear()

    def lease(self) -> Lease | None:
        """Return the lease by which memory answers; None when the database is asked before each answer."""
        with self._memory:
            return self._lease_now()

    def _read(self, key: Key, least: Head | None = None, *, labels: bool = False, decides: bool = False) -> Reading:
        if not labels:
            found = self._known(key, least)
            if found is not None:
                return found
        with self._asking, self._connection.answering():
            lease = self.lease()
            # Another thread can have learned it meanwhile.
            found = self._known(key, least) or self._asked(key, lease)
            reading = self._with_labels(found) if labels else found
            with self._memory:
                if least is not None and not self._has(least):
                    raise UnknownRevisionError(NOT_ITS_OWN)
                # A lease that held when the call had begun has all that was acknowledged before.
                vouched = lease is not None and self._covers(lease)
            if decides and self._only_leased and not vouched:
                raise StoreUnavailableError(
                    "this machine has no lease, and with `sessions.replication: quorum` none answers without: "
                    "PostgreSQL may have another primary"
                )
            return reading

    def _known(self, key: Key, least: Head | None) -> Reading | None:
        """Return what memory may answer under the present lease; None when the database is to be asked."""
        with self._memory:
            lease = self._lease_now()
            if (
                lease is None
                or not self._covers(lease)
                # What this process has written is in no lease yet.
                or self._moment.head.revision < self._acknowledged.seen
                or (least is not None and not self._has(least))
            ):
                return None
            chain = self._recent.chain(key)
            if chain is None:
                return None
            self._clock.behind = lease.behind
            return Reading(chain, self._moment)

    def _asked(self, key: Key, lease: Lease | None) -> Reading:
        """Return what memory has if nothing has changed in the database, else what that has."""
        # Before the read: another thread can acknowledge a later one meanwhile.
        known, before = self._acknowledged.revision, self._clock.machine.now()
        revision, tag, database_at = required(self._connection.execute(_HEAD).get, "meta")
        self._clock.compare(before, database_at)
        _require_no_less(revision, known)
        if self._same_connection():
            with self._memory:
                as_new = revision == self._moment.head.revision and self._knows(Head(revision=revision, tag=tag))
                chain = self._recent.chain(key) if as_new else None
                if chain is not None:
                    return Reading(chain, self._moment)
        return self._read_anew(key, lease)

    def _with_labels(self, reading: Reading) -> Reading:
        """Return a session with all labels that were added until now: as it is, or read anew when it lacks one."""
        chain = reading.chain
        if not chain:
            return reading
        rows = label_rows(self._connection, chain)
        if self._same_connection() and all(
            rows[one.id].origins.keys() <= set(one.labels) for one in chain if one.id in rows
        ):
            return reading
        self.forget(session.id for session in chain)
        return self._read_anew(chain[0].id, self.lease())

    def _read_anew(self, key: Key, lease: Lease | None) -> Reading:
        """Bring memory up to the database, and return what that has."""
        # Before the snapshot begins: what is to be forgotten meanwhile can be missing in it.
        known, forgotten = self._acknowledged.revision, self._forgotten
        with self._connection.snapshot():
            self._catch_up(known, lease)
            with self._memory:
                chain, moment = self._recent.chain(key), self._moment
            if chain is None:
                chain = self._load(key, moment, self._one_remembered)
                with self._memory:
                    if forgotten == self._forgotten:
                        self._keep(chain)
                    self._labels_read += any(session.labels for session in chain)
            return Reading(chain, moment)

    def _catch_up(self, known: int, lease: Lease | None) -> None:
        """Bring memory up to the present snapshot, which must have the revision that is `known`."""
        # What was remembered by an earlier connection can be of another server.
        before = self._moment if self._same_connection() else NOTHING
        tags = self._tags_since(before)
        if before is not NOTHING and tags.get(before.head.revision, "") != self._tags.get(before.head.revision):
            # What is remembered is of another history, or too old to tell: all of it is read again.
            before = NOTHING
            tags = self._tags_since(before)
        learned = self._learned(before)
        revision = learned.moment.head.revision
        _require_no_less(revision, known)
        head = Head(revision=revision, tag=tags.get(revision, ""))
        with self._memory:
            # First: who rests on what memory has outwaits all up to this. It can be later than what is known.
            self._acknowledged.see(head.revision, head.tag, self._connection.timeline)
            self._take(learned._replace(moment=replace(learned.moment, head=head)))
            self._tags = tags if before is NOTHING else self._tags | tags
            self._keep_tags(lease)
            self._opened, self._read_at = self._connection.opened, self._connection.timeline

    def _tags_since(self, moment: Moment) -> dict[int, str]:
        return dict(self._connection.execute(_TAGS, (moment.head.revision,)).fetchall())

    def _keep_tags(self, lease: Lease | None) -> None:
        if len(self._tags) <= 2 * TAGS_KEPT:
            return
        first = self._moment.head.revision - TAGS_KEPT
        if lease is not None:
            first = min(first, lease.head.revision)
        self._tags = {revision: tag for revision, tag in self._tags.items() if revision >= first}

    def _one_remembered(self, session_id: str) -> Session | None:
        with self._memory:
            return self._recent.by_id(session_id)

    def _same_connection(self) -> bool:
        """Say whether memory was read by the present connection."""
        return self._connection.opened == self._opened

    def _lease_now(self) -> Lease | None:
        """Return the present lease; leave the server before when another one gives leases now."""
        lease = self._leased()
        if lease is not None and lease.timeline != self._timeline:
            before, self._timeline = self._timeline or self._connection.timeline, lease.timeline
            if before not in ("", lease.timeline):
                self._connection.lose_primary()
        return lease

    def _covers(self, lease: Lease) -> bool:
        """Say whether all that is remembered has what a lease has, and was read at the server that gave it."""
        return self._read_at in ("", lease.timeline) and self._knows(lease.head)

    def _has(self, head: Head) -> bool:
        # A revision that is older than all tags has none.
        return self._knows(head) or head.revision < min(self._tags, default=0)

    def _knows(self, head: Head) -> bool:
        """Say whether all that is remembered has the changes up to a head, by its tag."""
        return self._tags.get(head.revision) == head.tag


def _require_no_less(revision: int, known: int) -> None:
    """Raise `StoreUnavailableError` when the database is behind what was known of it."""
    if revision < known:
        raise lacking(known - revision)
