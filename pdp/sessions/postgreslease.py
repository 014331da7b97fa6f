"""Renew the lease of this machine, by a write to the database.

A renewal that only reads could be answered by a server that is no longer the primary, for as long as it runs. What a
write has seen before its commit came back cannot be lost with that server.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
from contextlib import suppress
from typing import Final
from uuid import uuid4

from pdp.clock import Instant
from pdp.errors import PDPError, StoreUnavailableError, reason_of
from pdp.model import Head
from pdp.sessions.acknowledged import Known
from pdp.sessions.lease import Lease, LeaseTerms
from pdp.sessions.leasepage import LeasePage
from pdp.sessions.postgresconnection import PostgresConnection
from pdp.sessions.postgresfailover import Failover
from pdp.sessions.sharedclock import MOST_APART_SECONDS, most_behind
from pdp.sessions.sql import required

_LOG = logging.getLogger("pdp")

# A lease is renewed so many times while it lasts, and after a hint as soon as this.
_RENEWALS: Final = 3
_SOONEST_SECONDS: Final = 0.01

DATABASE_TIME: Final = "SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision)"
_JOIN: Final = "INSERT INTO replicas (id, renewals, lease_seconds) VALUES (?, 0, ?)"
# All of it is of one snapshot.
_RENEW: Final = """
UPDATE replicas SET renewals = renewals + 1 WHERE id = ?
RETURNING (SELECT revision FROM meta), coalesce((SELECT tag FROM meta JOIN tags USING (revision)), ''),
  CAST(extract(epoch FROM clock_timestamp()) AS double precision),
  (SELECT timeline FROM standing), (SELECT standbys FROM standing)
"""
_CONFIRM: Final = """
INSERT INTO confirmations (id, revision, tag) VALUES (?, ?, ?)
ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, tag = excluded.tag
"""
_LEAVE: Final = "DELETE FROM replicas WHERE id = ?"


class LeaseRenewer:
    """Renews the lease of a machine on its own thread once started, in the process that holds the lock of its page.

    It ends connection and page with itself. `channel` is that on which fences give hints. With a `failover`, what it
    confirms is on the disk of this machine before.
    """

    def __init__(
        self,
        connection: PostgresConnection,
        page: LeasePage,
        terms: LeaseTerms,
        *,
        channel: str,
        failover: Failover | None = None,
    ) -> None:
        self._connection = connection
        self._page = page
        self._terms = terms
        self._channel = channel
        self._failover = failover
        # Empty while it has no row.
        self._id = ""
        # The number of the connection that listens, and of that which confirmed.
        self._listening = 0
        self._confirmed: tuple[Head, int] | None = None
        self._hinted = False
        self._problem = ""
        self._ending, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="pdp-lease", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Take no further turn, and end the lease if this process renews it."""
        self._end.close()
        if self._thread.ident is not None:
            self._thread.join()
        with suppress(PDPError, OSError), self._connection.answering():
            self._leave()
        self._connection.close()
        self._page.close()
        self._ending.close()

    def turn(self) -> None:
        """Renew the lease, if no other process of this machine does. Raise `StoreUnavailableError` or `OSError`."""
        if not self._page.hold():
            return
        with self._connection.answering():
            self._listen()
            if not self._id:
                self._join()
            lease = self._renewed()
            if lease is None:
                # A fence has waited for it, and removed it.
                self._id = ""
                return
            # INVARIANT: all servers of this machine can see it before it is confirmed.
            self._page.publish(lease)
            self._confirm(lease.head)

    def _run(self) -> None:
        while True:
            try:
                self.turn()
            except PDPError as error:
                self._note(str(error))
            except OSError as error:
                self._note(f"the file of the lease cannot be used: {reason_of(error)}")
            else:
                self._note("")
            # Hints that come together are one.
            if self._waited(_SOONEST_SECONDS):
                return
            if not self._hinted and self._waited(self._terms.seconds / _RENEWALS, hints=True):
                return

    def _waited(self, seconds: float, *, hints: bool = False) -> bool:
        """Wait, or until there is a hint; return True when the thread is to end."""
        poll, connection = select.poll(), self._connection.fileno()
        poll.register(self._ending, select.POLLIN)
        if hints and connection is not None:
            poll.register(connection, select.POLLIN)
        return self._ending.fileno() in dict(poll.poll(seconds * 1000))

    def _listen(self) -> None:
        if self._connection.fileno() is None or self._listening != self._connection.opened:
            self._connection.listen(self._channel, self._hear)
            self._listening = self._connection.opened

    def _hear(self) -> None:
        self._hinted = True

    def _join(self) -> None:
        """Insert a row. It is there before the first lease begins, so that no fence misses it."""
        begun = self._terms.clock.now()
        self._require_near(begun, self._connection.execute(DATABASE_TIME).get)
        joined = str(uuid4())
        with self._connection.transaction("BEGIN"):
            self._connection.execute(_JOIN, (joined, self._terms.seconds))
        self._id, self._confirmed = joined, None

    def _renewed(self) -> Lease | None:
        """Return a lease that began before it was asked for; None without a row."""
        # INVARIANT: the clock is read before anything is sent, and nothing is used before the commit has returned.
        begun = self._terms.clock.now()
        with self._connection.transaction("BEGIN"):
            # What a hint is about that has come until now is seen; one that comes later asks for another renewal.
            self._hinted = False
            renewed = self._connection.execute(_RENEW, (self._id,))
            found = None if renewed.get is None else required(renewed.get, "meta", "timelines")
            if found is not None and self._failover is not None:
                self._failover.require_standbys(found[-1])
        if found is None:
            return None
        revision, tag, database_at, timeline, _ = found
        head = Head(revision=revision, tag=tag)
        try:
            self._require_near(begun, database_at)
        except StoreUnavailableError:
            self._leave()
            raise
        if self._failover is not None:
            self._failover.keep(Known(head=head, timeline=timeline))
        behind = max(most_behind(begun, database_at), 0.0)
        return Lease(head=head, begun=begun, seconds=self._terms.seconds, behind=behind, timeline=timeline)

    def _require_near(self, begun: Instant, database_at: float) -> None:
        earliest = begun.wall_at - MOST_APART_SECONDS
        if not earliest <= database_at <= self._terms.clock.now().wall_at + MOST_APART_SECONDS:
            raise StoreUnavailableError(
                f"the clocks of this machine and of the database are more than {MOST_APART_SECONDS} seconds apart"
            )

    def _confirm(self, head: Head) -> None:
        # The table is empty after a crash of the database, which also ends the connection.
        confirmed = head, self._connection.opened
        if confirmed != self._confirmed:
            self._connection.execute(_CONFIRM, (self._id, head.revision, head.tag))
            self._confirmed = confirmed

    def _leave(self) -> None:
        """End the lease at all servers of this machine, and then remove the row."""
        if self._id:
            self._page.publish(None)
            self._connection.execute(_LEAVE, (self._id,))
            self._id = ""

    def _note(self, problem: str) -> None:
        if problem and not self._problem:
            _LOG.error("this machine has no lease, so every decision asks the database: %s", problem)
        elif self._problem and not problem:
            _LOG.warning("this machine has a lease again")
        self._problem = problem
