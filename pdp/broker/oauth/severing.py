"""Disconnect a person's account: nothing is used from the first moment on, and the provider is told before all is lost.

The connection is removed at once. Its tokens are kept like a credential that is out, to be ended and for nothing else,
and the provider is asked. When it cannot be told, whoever ends what is out tries again: see `checkouts/sweeping.py`.
What became of the tokens is said as far as it is known: see `ending.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from pdp.broker.checkouts.sweeping import Sweeper
from pdp.broker.checkouts.words import Checkout, CheckoutState, CredentialKind, Outcome, new_checkout_id
from pdp.broker.oauth.pair import TokenPair
from pdp.broker.oauth.people import People, source_of
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.vault import Vault
from pdp.broker.words import (
    Connection,
    ConsentState,
    NoSecretError,
    Secret,
    TokensUnavailableError,
    UnknownConnectionError,
)
from pdp.clock import Clock
from pdp.errors import PDPError, StoreUnavailableError
from pdp.observer import Event, EventKind

# A refresh that has begun comes to its end first: what it brings must be revoked, too.
_WAIT_SECONDS: Final = 40.0
# So long nobody else tries to end what is ended here.
_ALONE_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What became of the tokens. `expires_at` is when the access token ends by itself, 0.0 where nobody knows."""

    outcome: Outcome
    expires_at: float = 0.0


class _Removed(NamedTuple):
    """A connection that is removed: what is kept of its tokens to end them, if they can be, and their own end."""

    connection: Connection
    kept: Checkout | None
    expires_at: float


class Severing:
    """Ends connections of people. Safe for threads and for several processes."""

    def __init__(
        self,
        vault: Vault,
        people: People,
        checkouts: CheckoutStore,
        sweeper: Sweeper,
        observe: Callable[[Event], None],
        clock: Clock,
    ) -> None:
        self._vault, self._people, self._checkouts, self._sweeper = vault, people, checkouts, sweeper
        self._observe, self._clock = observe, clock

    def end(self, connection_id: str, *, by: str) -> Ended:
        """Disconnect, and say what became of the tokens. `by` is who wants it.

        Raise `UnknownConnectionError` for a connection that is not a person's, and `TokensUnavailableError` while the
        connection is being refreshed, or a token is being got with it for a session. Raise `StoreUnavailableError` when
        nothing can be written, as on a full disk: the provider was asked to end the tokens all the same.
        """
        connection = self._vault.connection(connection_id)
        if not connection.is_consented:
            raise UnknownConnectionError(f"no such connection: `{connection_id}`")
        try:
            removed = self._removed(connection, by)
        except StoreUnavailableError:
            self._end_unnoted(connection)
            raise
        return self._ended([removed], by)[connection_id]

    def end_former(self, client: Connection, person: str) -> Ended | None:
        """Disconnect what a person has connected by a client, so that another consent can take its place.

        Return None where there is nothing.
        """
        try:
            former = self._vault.of_kind(client.tenant, client.compartment, client.kind, person)
        except UnknownConnectionError:
            return None
        return self.end(former.id, by=person) if former.is_consented else None

    def end_all(self, connections: Iterable[Connection], *, by: str) -> Mapping[str, Ended]:
        """Disconnect several people's connections, and say what became of the tokens of each, by its id.

        One that cannot be opened or waits for its refresh is `failed`, and stays.
        """
        removed, ended = list[_Removed](), dict[str, Ended]()
        for one in connections:
            try:
                removed.append(self._removed(one, by))
            except PDPError:
                ended[one.id] = self._tell(one, by, Ended(outcome=Outcome.FAILED))
        return {**ended, **self._ended(removed, by)}

    def _removed(self, connection: Connection, by: str) -> _Removed:
        # INVARIANT: on the disk before anything else, so that nothing is used from here on. Where the process died
        # that made it, there is nothing to use.
        with suppress(UnknownConnectionError):
            self._people.consents.settle(connection.id, ConsentState.ENDING)
        with self._people.consents.locked(connection.id, wait_seconds=_WAIT_SECONDS) as alone:
            if not alone:
                raise TokensUnavailableError(f"`{connection.id}` is no longer used, and is being refreshed: try again")
            client = self._client_of(connection)
            # In this order: what was got for sessions was got with the tokens that are revoked then.
            self._sweeper.let_go(connection, client)
            try:
                pair = TokenPair.unpacked(self._vault.open(self._vault.connection(connection.id)))
            except NoSecretError:
                removed = _Removed(connection, None, 0.0)
            else:
                kept = self._kept(connection, pair, client)
                removed = _Removed(connection, kept, pair.ends.wall_at if pair.ends else 0.0)
            self._vault.remove(connection.id, by=by)
        return removed

    def _end_unnoted(self, connection: Connection) -> None:
        """Have the provider end the tokens of a connection that stays, and those that could not be stored."""
        self._people.end_unstored(connection.id)
        client = self._client_of(connection)
        if client is None or not source_of(connection).revocation:
            return
        with suppress(PDPError):
            self._sweeper.end_kept(self._draft(connection, client, 0.0), client, self._vault.open(connection))

    def _kept(self, connection: Connection, pair: TokenPair, client: Connection | None) -> Checkout | None:
        """Keep tokens to end them; None where nobody can be told: without an endpoint, or the client of the consent."""
        if client is None or not source_of(connection).revocation:
            return None
        now = self._clock.now().wall_at
        # A refresh token has no end that would come.
        one = self._draft(connection, client, pair.ends.wall_at if pair.ends and pair.refresh is None else now)
        self._checkouts.begin(one, self._vault.seal_for(client, one.id, Secret(pair.packed())))
        return one

    def _draft(self, connection: Connection, client: Connection, ends_at: float) -> Checkout:
        now = self._clock.now().wall_at
        return Checkout(
            id=new_checkout_id(),
            connection_id=client.id,
            kind=CredentialKind.CONSENT,
            token_id="",
            decision_id="",
            session_ids=(),
            user=connection.owner,
            agent="",
            action="",
            scopes=connection.scopes,
            begun_at=now,
            ends_at=ends_at,
            state=CheckoutState.ENDING,
            next_at=now + _ALONE_SECONDS,
        )

    def _client_of(self, connection: Connection) -> Connection | None:
        """Return the client, if it has its secret and is still the one to which the person consented."""
        try:
            client = self._vault.client(connection.tenant, connection.compartment, connection.kind)
        except UnknownConnectionError:
            return None
        return client if client.version and client.source == connection.source else None

    def _ended(self, removed: Iterable[_Removed], by: str) -> Mapping[str, Ended]:
        """End what was kept, and return what became of the tokens of each connection."""
        outcomes = self._sweeper.attempt([one.kept for one in removed if one.kept is not None])
        found = dict[str, Ended]()
        for connection, kept, expires_at in removed:
            outcome = outcomes.get(kept.id, Outcome.FAILED) if kept else Outcome.EXPIRES_AT
            if outcome is Outcome.GONE:
                # Its own end had come.
                outcome = Outcome.EXPIRES_AT
            ended = Ended(outcome=outcome, expires_at=expires_at if outcome is Outcome.EXPIRES_AT else 0.0)
            found[connection.id] = self._tell(connection, by, ended, checkout=kept.id if kept else "")
        return found

    def _tell(self, connection: Connection, by: str, ended: Ended, *, checkout: str = "") -> Ended:
        facts = {"provider": source_of(connection).host, "outcome": ended.outcome.value}
        if ended.expires_at:
            facts["expires_at"] = f"{ended.expires_at:.0f}"
        if ended.outcome is Outcome.FAILED and checkout:
            facts["checkout"] = checkout
        self._observe(
            Event(
                kind=EventKind.CONNECTION_ENDED,
                at=self._clock.now().wall_at,
                caller_id=by,
                user=connection.owner,
                tenant=connection.tenant,
                facts={**connection.facts, **facts},
            )
        )
        return ended
