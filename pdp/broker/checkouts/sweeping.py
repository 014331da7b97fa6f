"""End the credentials that are out: when their session ends, when their time is over, and until that is done.

A login is tried for ever, with growing pauses: a role that was not dropped can still be logged in to, or has a session
that goes on. An access token is tried until its own end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from pdp.broker.checkouts.holding import Holder
from pdp.broker.checkouts.issuing import Issuer
from pdp.broker.checkouts.words import Checkout, CheckoutState, Look, Outcome
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.words import Connection, DatabaseUnavailableError
from pdp.clock import utc_text
from pdp.errors import PDPError
from pdp.observer import Event, EventKind

_LOG = logging.getLogger("pdp.broker")

# The longest pause between two tries, and between two looks at the roles of a database.
_LONGEST_PAUSE: Final = 300.0
_LOOK_SECONDS: Final = 600.0
_THREADS: Final = 8
# What has not ended so long after its end is overdue.
OVERDUE_SECONDS: Final = 60.0
# A role without a checkout is dropped when it is over for so long: another broker's clock may differ.
_STRANGE_SECONDS: Final = 300.0


class Sweeper:
    """Ends what is due, in one thread at a time. Several processes may do so on the same store."""

    def __init__(
        self,
        store: CheckoutStore,
        vault: Holder,
        issuer: Issuer,
        *,
        observe: Callable[[Event], None],
        wall: Callable[[], float],
    ) -> None:
        self._store, self._vault, self._issuer = store, vault, issuer
        self._observe, self._wall = observe, wall
        self._looked_at = float("-inf")

    def turn(self) -> None:
        """End what is due, and look for roles that no checkout names from time to time. Never raises."""
        try:
            self.sweep()
            if self._wall() - self._looked_at >= _LOOK_SECONDS:
                self._looked_at = self._wall()
                self.look()
        except PDPError as error:
            _LOG.warning("credentials that are out cannot be looked at now: %s", error)
        except Exception:  # noqa: BLE001 - the thread must go on
            _LOG.exception("credentials that are out could not be looked at")

    def sweep(self) -> None:
        """End what is due. What cannot be ended is put off."""
        self._sweep(self._store.due(self._wall()))

    def end(self, checkout_ids: Collection[str]) -> None:
        """End some credentials now, also those that were put off."""
        now = self._wall()
        self._store.end(checkout_ids, now=now)
        self._sweep([one for one in self._store.due(now) if one.id in checkout_ids])

    def let_go(self, connection_id: str) -> bool:
        """End all that is out of a connection whose person disconnects it. Say whether nothing is left to be tried.

        What cannot be ended is good until its own end, and no longer looked at.
        """
        self.end([one.id for one in self._store.all() if one.connection_id == connection_id])
        left = [one for one in self._store.all() if one.connection_id == connection_id]
        for one in left:
            if one.state is CheckoutState.LASTING:
                self._store.finish(one.id)
        return all(one.state is CheckoutState.LASTING for one in left)

    def look(self) -> None:
        """Look for roles of databases that no checkout names, and drop those whose time is over."""
        for connection in self._vault.connections():
            if connection.logins is not None:
                self._store.note(self._look_at(connection))

    def _sweep(self, due: Iterable[Checkout]) -> None:
        """End some, those of each connection in a row. A database that is away keeps none of another one waiting."""
        rows: dict[str, list[Checkout]] = {}
        for one in due:
            rows.setdefault(one.connection_id, []).append(one)
        if not rows:
            return
        with ThreadPoolExecutor(min(_THREADS, len(rows)), thread_name_prefix="pdp-broker-end") as threads:
            # What one of them raises is raised here.
            list(threads.map(self._sweep_row, rows.values()))

    def _sweep_row(self, row: Iterable[Checkout]) -> None:
        away = ""
        for one in row:
            if away:
                # It is asked once in a turn, however many wait for it.
                self._put_off(one, away)
                continue
            try:
                self._end(one, self._vault.connection(one.connection_id))
            except PDPError as error:
                away = str(error) if isinstance(error, DatabaseUnavailableError) else ""
                self._put_off(one, str(error))

    def _end(self, one: Checkout, connection: Connection) -> None:
        told = one.state is CheckoutState.LASTING
        if not one.is_login and one.ends_at <= self._wall():
            outcome, told = Outcome.GONE, told or not one.ends_at
        else:
            kept = self._store.kept(one.id)
            opened = self._vault.open_for(connection, one.id, kept) if kept else None
            outcome = self._issuer.end(one, connection, opened)
        if outcome is Outcome.EXPIRES_AT:
            self._store.put_off(one, CheckoutState.LASTING, next_at=one.ends_at, problem="")
            self._tell(one, connection, outcome)
        elif self._store.finish(one.id) and not told and (one.ends_at or outcome is Outcome.REVOKED):
            self._tell(one, connection, outcome)

    def _put_off(self, one: Checkout, problem: str) -> None:
        tries = one.tries + 1
        next_at = self._wall() + min(2.0 ** min(tries, 16), _LONGEST_PAUSE)
        if not one.is_login:
            next_at = min(next_at, one.ends_at)
        self._store.put_off(one, CheckoutState.ENDING, next_at=next_at, problem=problem)
        # The record is no log: the pauses between what it is told double, too.
        if tries & (tries - 1) == 0:
            _LOG.warning("the credential `%s` could not be ended, and is tried again: %s", one.id, problem)
            connection = self._vault.connection(one.connection_id)
            self._tell(one, connection, Outcome.FAILED, again=utc_text(next_at), tries=str(tries))

    def _look_at(self, connection: Connection) -> Look:
        now = self._wall()
        try:
            roles = self._issuer.roles(connection)
            # In this order: a checkout is there before its role.
            known = {one.role for one in self._store.all()}
            strange = {role: ends_at for role, ends_at in roles.items() if role not in known}
            over = [role for role, ends_at in strange.items() if ends_at + _STRANGE_SECONDS < now]
            for role in over:
                if self._issuer.drop(connection, role):
                    self._tell_of_orphan(connection, role)
        except PDPError as error:
            return Look(connection_id=connection.id, at=now, orphans=0, problem=str(error))
        return Look(connection_id=connection.id, at=now, orphans=len(strange) - len(over))

    def _tell(self, one: Checkout, connection: Connection, outcome: Outcome, **more: str) -> None:
        facts = {
            **connection.facts,
            "checkout": one.id,
            "token_id": one.token_id,
            "decision_id": one.decision_id,
            "action": one.action,
            "outcome": outcome.value,
            "ends": utc_text(one.ends_at),
            **more,
        }
        self._observe(
            Event(
                kind=EventKind.CREDENTIAL_REVOKED,
                at=self._wall(),
                session_id=one.session_ids[0],
                user=one.user,
                agent=one.agent,
                tenant=connection.tenant,
                facts=facts,
            )
        )

    def _tell_of_orphan(self, connection: Connection, role: str) -> None:
        facts = {**connection.facts, "checkout": role.removeprefix("pdp_"), "outcome": Outcome.REVOKED.value}
        self._observe(Event(kind=EventKind.CREDENTIAL_REVOKED, at=self._wall(), tenant=connection.tenant, facts=facts))
