"""Connections that open as access tokens. Those of clients are kept in memory while they are young."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pdp.broker.admitting import Connections
from pdp.broker.oauth.answers import Granted
from pdp.broker.oauth.asking import ask_for_token
from pdp.broker.oauth.people import People
from pdp.broker.words import Connection, Secret, TokenRefusedError, TokenSource, TokensUnavailableError
from pdp.clock import Clock, Deadline, Instant
from pdp.errors import UnavailableError
from pdp.foundation.egress import Roots
from pdp.observer import Event, EventKind

# Of a token's life, after which another one is got.
_YOUNG: Final = 0.7
# After a failure the provider is left alone: many calls could otherwise lock the client out, or wait in a row.
_PAUSE_SECONDS: Final = 5.0


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
        self._desks: dict[str, _Desk] = {}

    def of_kind(self, tenant: str, compartment: str, kind: str, user: str) -> Connection:
        """Return the user's connection of a kind, or else the tenant's. Raise `UnknownConnectionError`."""
        return self._vault.of_kind(tenant, compartment, kind, user)

    def connection(self, connection_id: str, *, tenant: str, compartment: str) -> Connection:
        """Return a connection by its id. Raise `UnknownConnectionError`."""
        return self._vault.connection(connection_id, tenant=tenant, compartment=compartment)

    def open(self, connection: Connection) -> Secret:
        """Return what is sent upstream: the present secret, or an access token that it gets.

        Raise what the vault raises, `TokenRefusedError` and `TokensUnavailableError`.
        """
        source = connection.source
        if source is None:
            return self._vault.open(connection)
        if connection.is_consented and self._people is not None:
            return self._people.open(connection)
        if source.consenting is not None:
            raise TokenRefusedError(f"`{connection.id}` opens nothing by itself: people connect with it")
        desk = self._desks.setdefault(connection.id, _Desk())
        kept = desk.kept_for(connection)
        if kept and desk.asking.locked() and not kept.ends.passed(self._clock.now()):
            return kept.secret
        with desk.asking:
            return self._fresh(desk, connection, source)

    def _fresh(self, desk: _Desk, connection: Connection, source: TokenSource) -> Secret:
        """Return a young token, and get one unless another thread just did."""
        # In this order: the time that is compared is not before the token.
        kept, now = desk.kept_for(connection), self._clock.now()
        if kept and not kept.old.passed(now):
            return kept.secret
        try:
            desk.require_no_pause(connection, now)
            got = self._granted(desk, connection, source)
        except UnavailableError:
            # A refusal ends the present token, too: the client may have been shut out.
            if kept and not kept.ends.passed(self._clock.now()):
                return kept.secret
            raise
        desk.kept = _Kept.since(now, connection, got)
        self._tell(connection, source)
        return desk.kept.secret

    def _granted(self, desk: _Desk, connection: Connection, source: TokenSource) -> Granted:
        secret = self._vault.open(connection)
        try:
            return ask_for_token(source, secret, connection.scopes, self._roots)
        except (TokenRefusedError, TokensUnavailableError) as error:
            problem = f"no access token for `{connection.id}` from `{source.host}`: {error}"
            desk.failed = _Failed(
                connection=connection,
                kind=type(error),
                problem=problem,
                pause=Deadline.after(self._clock.now(), _PAUSE_SECONDS),
            )
            desk.kept = None if isinstance(error, TokenRefusedError) else desk.kept
            raise type(error)(problem) from None

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A token, for the connection as it was then: another secret, upstream or scope makes it useless."""

    connection: Connection
    secret: Secret
    old: Deadline
    ends: Deadline

    @classmethod
    def since(cls, asked: Instant, connection: Connection, got: Granted) -> _Kept:
        """Return a token whose life began when it was asked for, at the latest."""
        return cls(
            connection=connection,
            secret=Secret(got.secret.reveal(), version=connection.version),
            old=Deadline.after(asked, got.seconds * _YOUNG),
            ends=Deadline.after(asked, got.seconds),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failed:
    """Why there was no token, and until when nobody asks again."""

    connection: Connection
    kind: type[TokenRefusedError | TokensUnavailableError]
    problem: str
    pause: Deadline


@dataclass(slots=True)
class _Desk:
    """Where the token of one connection is got. Who holds `asking` may ask, and change the rest."""

    asking: threading.Lock = field(default_factory=threading.Lock)
    kept: _Kept | None = None
    failed: _Failed | None = None

    def kept_for(self, connection: Connection) -> _Kept | None:
        """Return the token that was got for the connection as it is now."""
        kept = self.kept
        return kept if kept and kept.connection == connection else None

    def require_no_pause(self, connection: Connection, now: Instant) -> None:
        """Raise the last problem while the provider is left alone."""
        failed = self.failed
        if failed and failed.connection == connection and not failed.pause.passed(now):
            raise failed.kind(failed.problem)
