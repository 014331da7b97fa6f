"""End the credentials that are out: when their session ends, when their time is over, and until that is done.

A login is tried for ever, with growing pauses: a role that was not dropped can still be logged in to, or has a session
that goes on. So are the tokens of a person who disconnected, whose refresh token has no end that would come. An access
token is tried until its own end, which two clocks must agree on: one that was set ahead ends nothing at a provider.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final, TypeVar

from pdp.broker.checkouts.holding import Holder
from pdp.broker.checkouts.issuing import Issuer
from pdp.broker.checkouts.words import (
    MARGIN_SECONDS,
    Checkout,
    CheckoutState,
    CredentialKind,
    Look,
    Outcome,
)
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.words import Connection, DatabaseUnavailableError, Secret, TokensUnavailableError
from pdp.clock import utc_text
from pdp.errors import PDPError, StoreUnavailableError
from pdp.observer import Event, EventKind

_LOG = logging.getLogger("pdp.broker")
T = TypeVar("T")
V = TypeVar("V")

# The longest pause between two tries, and between two looks at the roles of a database.
_LONGEST_PAUSE: Final = 300.0
_LOOK_SECONDS: Final = 600.0
_THREADS: Final = 16
# A turn waits for no database or provider that takes longer: what is at others is due, too.
_TURN_SECONDS: Final = 5.0
# After these, what else there is at the same place need not be tried now.
_AWAY: Final = (DatabaseUnavailableError, TokensUnavailableError)
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
        # The connections whose database or provider is being asked.
        self._busy: set[str] = set()
        # The sessions whose end could not be noted, and when what was out for them was ended.
        self._unnoted: dict[str, float] = {}

    def turn(self) -> None:
        """End what is due, and look for roles that no checkout names from time to time. Never raises.

        What takes long goes on after the turn, and is left alone by later ones until then.
        """
        try:
            self._end_all(self._store.due(self._wall()), _TURN_SECONDS)
            if not 0 <= self._wall() - self._looked_at < _LOOK_SECONDS:
                self._looked_at = self._wall()
                self._look(_TURN_SECONDS)
        except PDPError as error:
            _LOG.warning("credentials that are out cannot be looked at now: %s", error)
        except Exception:  # noqa: BLE001 - the thread must go on
            _LOG.exception("credentials that are out could not be looked at")

    def sweep(self) -> None:
        """End what is due. What cannot be ended is put off."""
        self.attempt(self._store.due(self._wall()))

    def end_unnoted(self, session_ids: Iterable[str]) -> None:
        """End what is out for sessions although the store cannot note that it is to be ended, as on a full disk.

        For each session that is done once in some minutes, until it can be noted.
        """
        now = time.monotonic()
        self._unnoted = {one: at for one, at in self._unnoted.items() if now - at < _LONGEST_PAUSE}
        ended = {*session_ids} - self._unnoted.keys()
        self._unnoted.update(dict.fromkeys(ended, now))
        out = [one for one in self._store.all() if one.state is CheckoutState.OUT and ended & {*one.session_ids}]
        self._end_all(out, _TURN_SECONDS)

    def end(self, checkout_ids: Collection[str]) -> None:
        """End some credentials now, also those that were put off.

        Raise `StoreUnavailableError` when that cannot be noted, as on a full disk; they are ended all the same.
        """
        now = self._wall()
        try:
            self._store.end(checkout_ids, now=now)
        except StoreUnavailableError:
            # What was not handed out yet may not have been made yet.
            self.attempt([one for one in self._store.all() if one.id in checkout_ids and one.ends_at])
            raise
        self.attempt([one for one in self._store.due(now) if one.id in checkout_ids])

    def end_kept(self, one: Checkout, connection: Connection, kept: Secret) -> Outcome:
        """End what the store does not have, once, and say what became of it. Raise `PDPError` when it cannot be."""
        return self._issuer.end(one, connection, kept)

    def forget(self, one: Checkout, *, by: str = "") -> bool:
        """Give up a credential, which may still be good. Say whether it was still there."""
        forgotten = self._store.finish(one.id)
        if forgotten:
            connection = self._vault.connection(one.connection_id)
            self._record(EventKind.CREDENTIAL_FORGOTTEN, one, connection, by=by)
        return forgotten

    def let_go(self, connection: Connection, client: Connection | None) -> None:
        """End all that is out of a person's connection, before that is removed.

        What may be ended later is handed over to the client with which it was got; without one, nobody can end it. What
        cannot be ended is good until its own end, and no longer looked at. Raise `TokensUnavailableError` while
        something is being made.
        """
        if out := self._of(connection):
            self.end([one.id for one in out])
        for one in self._of(connection):
            kept = self._store.kept(one.id)
            if kept is None:
                raise TokensUnavailableError(f"a token is being got with `{connection.id}` for a session: try again")
            if one.state is CheckoutState.LASTING:
                self._store.finish(one.id)
            elif client is None:
                self.forget(one)
            else:
                opened = self._vault.open_for(connection, one.id, kept)
                self._store.hand_over(one.id, client.id, self._vault.seal_for(client, one.id, opened))

    def look(self) -> None:
        """Look for roles of databases that no checkout names, and drop those whose time is over."""
        self._look(None)

    def _look(self, seconds: float | None) -> None:
        looked_at = {look.connection_id: look.at for look in self._store.looks()}
        # Those for which there was no time come first.
        found = sorted(self._vault.connections(), key=lambda one: looked_at.get(one.id, 0.0))
        databases = {one.id: one for one in found if one.logins is not None}
        self._each(databases, lambda one: self._store.note(self._look_at(one)), seconds)

    def _of(self, connection: Connection) -> list[Checkout]:
        return [one for one in self._store.all() if one.connection_id == connection.id]

    def attempt(self, due: Iterable[Checkout]) -> Mapping[str, Outcome]:
        """End some, and return what became of each. What cannot be ended is put off.

        Those of each connection come in a row. A database or provider that is away keeps none of another one waiting.
        """
        return self._end_all(due, None)

    def _end_all(self, due: Iterable[Checkout], seconds: float | None) -> Mapping[str, Outcome]:
        rows: dict[str, list[Checkout]] = {}
        for one in due:
            rows.setdefault(one.connection_id, []).append(one)
        return {id_: outcome for row in self._each(rows, self._row, seconds) for id_, outcome in row.items()}

    def _each(self, of: Mapping[str, T], work: Callable[[T], V], seconds: float | None) -> list[V]:
        """Do some work for each of several connections at once, and return what comes of it, or raise what is raised.

        With `seconds`, wait no longer for it, and do it for none for which some is being done.
        """

        def working(connection_id: str, one: T) -> V:
            self._busy.add(connection_id)
            try:
                return work(one)
            finally:
                self._busy.discard(connection_id)

        free = {id_: one for id_, one in of.items() if seconds is None or id_ not in self._busy}
        if not free:
            return []
        threads = ThreadPoolExecutor(min(_THREADS, len(free)), thread_name_prefix="pdp-broker-end")
        try:
            done, _ = wait([threads.submit(working, *row) for row in free.items()], timeout=seconds)
            return [one.result() for one in done]
        finally:
            # What has not begun is due in the next turn, too.
            threads.shutdown(wait=seconds is None, cancel_futures=True)

    def _row(self, row: Iterable[Checkout]) -> Mapping[str, Outcome]:
        away, outcomes = "", dict[str, Outcome]()
        for one in row:
            # It is asked once in a turn, however many wait for it.
            problem = away
            if not away:
                try:
                    outcomes[one.id] = self._end(one, self._vault.connection(one.connection_id))
                    continue
                except PDPError as error:
                    problem = str(error)
                    away = problem if isinstance(error, _AWAY) else ""
            outcomes[one.id] = Outcome.FAILED
            try:
                self._put_off(one, problem)
            except PDPError as error:
                # The store cannot be written, as on a full disk. What else is due is ended all the same.
                _LOG.warning("the credential `%s` cannot be noted as ended or put off: %s", one.id, error)
        return outcomes

    def _end(self, one: Checkout, connection: Connection) -> Outcome:
        told = one.state is CheckoutState.LASTING
        if (told or not one.ends_at) and one.ends_itself:
            # It cannot be ended, or never left.
            outcome, told = Outcome.GONE, True
        elif one.is_over(self._wall(), self._store.seconds_of(one.id)):
            outcome = Outcome.GONE
        else:
            kept = self._store.kept(one.id)
            opened = self._vault.open_for(connection, one.id, kept) if kept else None
            outcome = self._issuer.end(one, connection, opened)
        if outcome is Outcome.EXPIRES_AT and one.kind is not CredentialKind.CONSENT:
            self._store.put_off(one, CheckoutState.LASTING, next_at=one.ends_at, problem="")
            self._tell(one, connection, outcome)
        elif self._store.finish(one.id) and not told and (one.ends_at or outcome is Outcome.REVOKED):
            self._tell(one, connection, outcome)
        return outcome

    def _put_off(self, one: Checkout, problem: str) -> None:
        tries, now = one.tries + 1, self._wall()
        next_at = now + min(2.0 ** min(tries, 16), _LONGEST_PAUSE)
        if one.ends_itself and one.ends_at > now:
            next_at = min(next_at, one.ends_at + MARGIN_SECONDS)
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
        more |= {"outcome": outcome.value, "ends": utc_text(one.ends_at)}
        self._record(EventKind.CREDENTIAL_REVOKED, one, connection, **more)

    def _record(self, kind: EventKind, one: Checkout, connection: Connection, *, by: str = "", **more: str) -> None:
        known = {"token_id": one.token_id, "decision_id": one.decision_id, "action": one.action}
        facts = {**connection.facts, "checkout": one.id, **{name: text for name, text in known.items() if text}}
        self._observe(
            Event(
                kind=kind,
                at=self._wall(),
                caller_id=by,
                session_id=one.session_id,
                user=one.user,
                agent=one.agent,
                tenant=connection.tenant,
                facts={**facts, **more},
            )
        )

    def _tell_of_orphan(self, connection: Connection, role: str) -> None:
        facts = {**connection.facts, "checkout": role.removeprefix("pdp_"), "outcome": Outcome.REVOKED.value}
        self._observe(Event(kind=EventKind.CREDENTIAL_REVOKED, at=self._wall(), tenant=connection.tenant, facts=facts))
