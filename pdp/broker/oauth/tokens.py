"""Connections that open as access tokens. Those of clients are kept in memory while they are young."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pdp.broker.admitting import Connections
from pdp.broker.oauth.answers import Granted
from pdp.broker.oauth.granting import ask_for_token
from pdp.broker.oauth.people import People
from pdp.broker.oauth.tokendesk import TokenDesk
from pdp.broker.words import Connection, Secret, TokenRefusedError, TokenSource, TokensUnavailableError
from pdp.clock import Clock
from pdp.foundation.egress import Roots
from pdp.observer import Event, EventKind


class AccessTokens:
    """The vault, in which connections with a source of tokens open as an access token. Safe for threads.

    One thread asks for a connection's token, and the others wait for it, or use the present one while it is good.
    Tokens of clients are in memory alone, and never used after their end. `people` opens connections of people; without
    it there are none.
    """

    def __init__(
        self, vault: Connections, observe: Callable[[Event], None], clock: Clock, people: People | None = None
    ) -> None:
        self._vault, self._observe, self._clock, self._people = vault, observe, clock, people
        self._roots = Roots()
        self._desks: dict[str, TokenDesk] = {}

    def of_kind(self, tenant: str, compartment: str, kind: str, user: str) -> Connection:
        """Return the user's connection of a kind, or else the tenant's. Raise `UnknownConnectionError`."""
        return self._vault.of_kind(tenant, compartment, kind, user)

    def connection(self, connection_id: str, *, tenant: str, compartment: str) -> Connection:
        """Return a connection by its id. Raise `UnknownConnectionError`."""
        return self._vault.connection(connection_id, tenant=tenant, compartment=compartment)

    def open(self, connection: Connection) -> Secret:
        """Return what is sent upstream, or exchanged before that: the present secret, or an access token that it gets.

        Raise what the vault raises, `TokenRefusedError` and `TokensUnavailableError`.
        """
        source = connection.source
        if source is None:
            return self._vault.open(connection)
        if connection.is_consented and self._people is not None:
            return self._people.open(connection)
        if source.consenting is not None:
            raise TokenRefusedError(f"`{connection.id}` opens nothing by itself: people connect with it")
        desk = self._desks.setdefault(connection.id, TokenDesk(self._clock))
        return desk.token(connection, partial(self._granted, connection, source))

    def _granted(self, connection: Connection, source: TokenSource) -> Granted:
        secret = self._vault.open(connection)
        try:
            got = ask_for_token(source, secret, connection.scopes, self._roots)
        except (TokenRefusedError, TokensUnavailableError) as error:
            raise type(error)(f"no access token for `{connection.id}` from `{source.host}`: {error}") from None
        self._tell(connection, source)
        return got

    def _tell(self, connection: Connection, source: TokenSource) -> None:
        facts = {"version": str(connection.version), "provider": source.host}
        self._observe(
            Event(
                kind=EventKind.CONNECTION_REFRESHED,
                at=self._clock.now().wall_at,
                user=connection.owner,
                tenant=connection.tenant,
                facts={**connection.facts, **facts},
            )
        )
