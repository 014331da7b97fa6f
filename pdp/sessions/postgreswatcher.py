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
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Final

from pdp.errors import StoreUnavailableError
from pdp.model import Head
from pdp.sessions.acknowledged import Acknowledged
from pdp.sessions.lease import Lease
from pdp.sessions.postgresconnection import BoundedLock, PostgresConnection
from pdp.sessions.postgreslabels import LabelledReader, label_rows
from pdp.sessions.postgrestables import TAGS_KEPT
from pdp.sessions.scopes import ScopePool
from pdp.sessions.sharedclock import SharedClock
from pdp.sessions.sqlrows import BY_ID, Chain
from pdp.sessions.watching import Key, Watching

_HEAD: Final = """
SELECT revision, coalesce(tag, ''), CAST(extract(epoch FROM clock_timestamp()) AS double precision)
FROM meta LEFT JOIN tags USING (revision)
"""
_TAGS: Final = "SELECT revision, tag FROM tags WHERE revision >= ?"


class PostgresWatcher(Watching):
    """What one process reads and remembers of a database. Safe for threads.

    A read waits for others of this process at most `busy_seconds`. `leased` returns the lease that this machine has
    now, None without one. With `only_leased`, a view is refused without one. `schema_version` is as in `Watching`.
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
            BoundedLock(busy_seconds, "session store"),
            sessions_kept=sessions_kept,
            schema_version=schema_version,
            reader=LabelledReader,
        )
        self._acknowledged = acknowledged
        self._clock = clock
        self._leased = leased
        self._only_leased = only_leased
        # Whether what was read last has all that was acknowledged before it was asked for, by a lease.
        self._vouched = False
        # The timeline of the server that gave the last lease.
        self._timeline = ""
        self._opened = 0
        self._labels_read = 0
        # The tags of what is remembered: of the latest revision, and back at least to the head of the lease.
        self._tags: dict[int, str] = {}

    def labels_read(self) -> int:
        """Return how often sessions with labels were read, which may be of commits that are not safe yet."""
        with self._lock:
            return self._labels_read

    def forget(self, session_ids: Iterable[str]) -> None:
        """Forget sessions, so that they are read anew."""
        with self._lock:
            for session_id in session_ids:
                self._recent.drop(session_id)

    def close(self) -> None:
        """Close the connection and forget all sessions."""
        with self._lock:
            self._recent.clear()
            self._connection.close()

    def lease(self) -> Lease | None:
        """Return the lease by which memory answers; None when the database is asked before each answer."""
        with self._lock:
            return self._leased()

    def _read(self, key: Key, remembered: Callable[[Key], Chain | None], sql: str, least: Head | None = None) -> Chain:
        lease = self._leased()
        if lease is not None:
            self._follow(lease.timeline)
        chain = self._answer(lease, key, remembered, sql, least)
        # A lease that held when the call had begun has all that was acknowledged before, and this has all of the lease.
        self._vouched = lease is not None and self._knows(lease.head)
        return chain

    def _answer(
        self,
        lease: Lease | None,
        key: Key,
        remembered: Callable[[Key], Chain | None],
        sql: str,
        least: Head | None,
    ) -> Chain:
        # What this process has written is in no lease yet.
        if (
            lease is not None
            and self._knows(lease.head)
            and self._revision >= self._acknowledged.revision
            and (least is None or self._has(least))
        ):
            chain = remembered(key)
            if chain is not None:
                self._clock.behind = lease.behind
                return chain
        with self._connection.answering():
            # Before the read: another thread can acknowledge a later one meanwhile.
            known, before = self._acknowledged.revision, self._clock.machine.now()
            revision, tag, database_at = self._connection.execute(_HEAD).get
            self._clock.compare(before, database_at)
            self._require_one_server()
            self._acknowledged.require(revision, known)
            if revision == self._revision and self._knows(Head(revision=revision, tag=tag)):
                chain = remembered(key)
                if chain is not None:
                    return chain
            with self._connection.snapshot():
                self._catch_up()
                self._keep_tags(lease)
                chain = remembered(key)
                return chain if chain is not None else self._load(sql, key)

    def _with_labels(self, chain: Chain) -> Chain:
        """Return a chain with all labels that were added until now: as it is, or read anew when it lacks one."""
        if not chain:
            return chain
        with self._connection.answering():
            rows = label_rows(self._connection, chain)
            whole = self._require_one_server()
            if whole and all(rows[one.id].origins.keys() <= set(one.labels) for one in chain if one.id in rows):
                return chain
            for session in chain:
                self._recent.drop(session.id)
            known, lease = self._acknowledged.revision, self._leased()
            with self._connection.snapshot():
                self._catch_up()
                self._acknowledged.require(self._revision, known)
                self._keep_tags(lease)
                self._vouched = lease is not None and self._knows(lease.head)
                return self._load(BY_ID, chain[0].id)

    def _load(self, sql: str, key: str | bytes) -> Chain:
        chain = super()._load(sql, key)
        self._labels_read += any(session.labels for session in chain)
        return chain

    def _follow(self, timeline: str) -> None:
        """Leave the server before when another one gives leases now."""
        before, self._timeline = self._timeline or self._connection.timeline, timeline
        if before not in ("", timeline):
            self._connection.lose_primary()

    def _require_one_server(self) -> bool:
        """Forget all when the connection was opened anew, since it can be to another server; say whether it was not."""
        same = self._connection.opened == self._opened
        if not same:
            self._recent.clear()
            self._revision, self._opened = -1, self._connection.opened
        return same

    def _catch_up(self) -> None:
        tags = dict(self._connection.execute(_TAGS, (self._revision,)).fetchall())
        if tags.get(self._revision, "") != self._tags.get(self._revision):
            # What is remembered is of another history, or too old to tell: all of it is read again.
            self._revision, self._tags = -1, {}
            tags = dict(self._connection.execute(_TAGS, (self._revision,)).fetchall())
        super()._catch_up()
        self._tags |= tags
        # It can be later than what was asked for just before.
        self._acknowledged.note(self._revision, self._tags.get(self._revision, ""), self._connection.timeline)

    def _require_vouched(self) -> None:
        if self._only_leased and not self._vouched:
            raise StoreUnavailableError(
                "this machine has no lease, and with `sessions.replication: quorum` none answers without: PostgreSQL "
                "may have another primary"
            )

    def _keep_tags(self, lease: Lease | None) -> None:
        if len(self._tags) <= 2 * TAGS_KEPT:
            return
        first = self._revision - TAGS_KEPT
        if lease is not None:
            first = min(first, lease.head.revision)
        self._tags = {revision: tag for revision, tag in self._tags.items() if revision >= first}

    def _head(self) -> Head:
        return Head(revision=self._revision, tag=self._tags.get(self._revision, ""))

    def _has(self, head: Head) -> bool:
        # A revision that is older than all tags has none.
        return self._knows(head) or head.revision < min(self._tags, default=0)

    def _knows(self, head: Head) -> bool:
        """Say whether all that is remembered has the changes up to a head, by its tag."""
        return self._tags.get(head.revision) == head.tag
