"""Connections of people: their access tokens, and how another one is got without losing the refresh token.

A provider that gives each refresh token once ends all tokens when one comes twice. So one process refreshes, and the
others wait, or use the present token while it is good. That a refresh begins is on the disk before the provider is
asked, and its result before it is used. Between the two lies what nobody can close from here: when the process dies or
the answer is lost, the provider may have taken the token, and what it gave instead is gone.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Final, NamedTuple

from pdp.broker.oauth.ending import end_pair, refused_ones_ended
from pdp.broker.oauth.granting import refresh
from pdp.broker.oauth.pair import TokenPair
from pdp.broker.store.consents import Consents
from pdp.broker.vault import Vault
from pdp.broker.words import (
    AnswerLostError,
    Attempt,
    Connection,
    Consent,
    Consenting,
    ConsentState,
    NeedsPersonError,
    Secret,
    TokenRefusedError,
    TokenSource,
    TokensUnavailableError,
    UnknownConnectionError,
)
from pdp.clock import Clock, Instant
from pdp.errors import PDPError, UnavailableError
from pdp.foundation.egress import Roots
from pdp.observer import Event, EventKind

_LOG: Final = logging.getLogger("pdp.broker")
# Of a token's life, after which another one is got: not the same for all that were got at once.
_SHARES: Final = (0.65, 0.75)
# After a failure the provider is left alone.
_PAUSE_SECONDS: Final = 5.0
# How long others wait for the one that refreshes, when they have no good token.
_WAIT_SECONDS: Final = 10.0
# A use is noted once in this time: each note is a write to the disk.
_USE_SECONDS: Final = 60.0
# Who has put the secrets that a refresh brings.
_BY: Final = "refresh"


class _Brought(NamedTuple):
    """Tokens that are not stored yet, and what gives the lock of their connection back when it ends."""

    connection: Connection
    tokens: Secret
    alone: ExitStack


class People:
    """Opens people's connections as access tokens. Safe for threads and for several processes.

    `share` returns after which part of its life another token is got in the place of one that comes now.
    """

    def __init__(
        self,
        vault: Vault,
        consents: Consents,
        observe: Callable[[Event], None],
        clock: Clock,
        *,
        share: Callable[[], float] = lambda: random.SystemRandom().uniform(*_SHARES),
    ) -> None:
        self._vault, self.consents, self._observe, self._clock = vault, consents, observe, clock
        self.share, self._roots = share, Roots()
        # What refreshes brought, by connection, until it is stored: it is there once.
        self._unstored: dict[str, _Brought] = {}

    def add(self, connection: Connection, tokens: bytes, *, account: str) -> Connection:
        """Keep the connection that a person just made, in the place of their former one of its kind. Return it."""
        made = self._vault.replace(connection, by=connection.owner)
        version = self._vault.put(made.id, tokens, by=made.owner).version
        self.consents.add(Consent(connection_id=made.id, account=account))
        self._tell(EventKind.CONNECTION_AUTHORIZED, made, lists={"scopes": made.scopes}, version=str(version))
        return replace(made, version=version)

    def standing(self, connection: Connection) -> Consent:
        """Return how a connection is doing. It needs its person when its client is no longer the same."""
        try:
            consent = self.consents.of(connection.id)
            self._client_of(connection)
        except UnknownConnectionError:
            # The process died that made it, or its client was removed.
            return Consent(connection_id=connection.id, state=ConsentState.NEEDS_PERSON)
        except NeedsPersonError:
            return replace(consent, state=ConsentState.NEEDS_PERSON)
        return consent

    def open(self, connection: Connection) -> Secret:
        """Return an access token that is good, and get another one when it is old.

        Raise what the vault raises; `NeedsPersonError` when the person must connect again, `TokenRefusedError` and
        `TokensUnavailableError` when the provider gives nothing now.
        """
        consent = self.consents.of(connection.id)
        _require_usable(connection, consent)
        pair, now = TokenPair.unpacked(self._vault.open(connection)), self._clock.now()
        if pair.is_old(now):
            pair = self._another(connection, pair, good=pair.is_good(now))
        if now.wall_at - consent.used_at >= _USE_SECONDS:
            self.consents.note_use(connection.id, now.wall_at)
        return pair.access

    def _another(self, connection: Connection, pair: TokenPair, *, good: bool) -> TokenPair:
        """Return young tokens, or the present ones while these are `good` and there are no others now."""
        with ExitStack() as alone:
            if self._has_lock(connection, alone, wait_seconds=0.0 if good else _WAIT_SECONDS):
                try:
                    return self._refreshed(connection.id, alone)
                except (TokenRefusedError, TokensUnavailableError) as error:
                    if isinstance(error, NeedsPersonError) or not good:
                        raise
        if not good:
            raise TokensUnavailableError(f"no access token for `{connection.id}`: it is being refreshed")
        return pair

    def settle(self) -> None:
        """Store what refreshes brought and could not be stored, where that can be done now. Never raises."""
        for brought in tuple(self._unstored.values()):
            with suppress(PDPError), ExitStack() as alone:
                self._has_lock(brought.connection, alone, wait_seconds=0.0)

    def close(self) -> None:
        """Store what refreshes brought, or have it ended at its provider: nobody else has it. Never raises."""
        self.settle()
        for connection_id in tuple(self._unstored):
            self.end_unstored(connection_id)

    def end_unstored(self, connection_id: str) -> None:
        """Have what a refresh of a connection brought, and could not be stored, ended at its provider. Never raises."""
        if (brought := self._unstored.pop(connection_id, None)) is not None:
            with brought.alone:
                self._end(brought.connection, brought.tokens)

    def _has_lock(self, connection: Connection, alone: ExitStack, *, wait_seconds: float) -> bool:
        """Say whether this thread alone may refresh a connection until `alone` ends. What is not stored yet is stored.

        Raise `UnavailableError` when that cannot be done.
        """
        brought = self._unstored.pop(connection.id, None)
        if brought is None:
            return alone.enter_context(self.consents.locked(connection.id, wait_seconds=wait_seconds))
        alone.enter_context(brought.alone)
        self._stored(connection, brought.tokens, alone)
        return True

    def _refreshed(self, connection_id: str, alone: ExitStack) -> TokenPair:
        """Return young tokens, and get them unless another process just did. `alone` holds the lock."""
        connection, consent = self._vault.connection(connection_id), self.consents.of(connection_id)
        _require_usable(connection, consent)
        pair, now = TokenPair.unpacked(self._vault.open(connection)), self._clock.now()
        if not pair.is_old(now):
            return pair
        if pair.refresh is None:
            raise self._lost(connection, "its access token has ended, and there is no refresh token")
        client = self._client_of(connection)
        if 0 < consent.paused_until - now.wall_at <= _PAUSE_SECONDS:
            raise _named(TokensUnavailableError("it gave none a moment ago"), connection)
        attempt = self._attempt(connection, consent, pair.refresh.version, now)
        secret = self._vault.open(client)
        self.consents.begin(connection_id, attempt)
        # It can have been disconnected meanwhile.
        _require_usable(connection, self.consents.of(connection_id))
        return self._exchanged(connection, secret, pair.refresh, now, alone)

    def _attempt(self, connection: Connection, consent: Consent, version: int, now: Instant) -> Attempt:
        """Return the next try to refresh. Raise `NeedsPersonError` when one was cut off and must not be repeated."""
        last = consent.attempt
        if consent.state is not ConsentState.REFRESHING or last is None or last.version != version:
            return Attempt(id=secrets.token_hex(8), version=version, first_at=now.wall_at)
        if last.is_repeated or not 0 <= now.wall_at - last.first_at < consenting_of(connection).grace_seconds:
            raise self._lost(connection, "a refresh was cut off, and what the provider gave is lost")
        return replace(last, id=secrets.token_hex(8), is_repeated=True)

    def _client_of(self, connection: Connection) -> Connection:
        """Return the client, if it is still the one to which the person consented. Raise `NeedsPersonError`."""
        client = self._vault.client(connection.tenant, connection.compartment, connection.kind)
        if client.source != connection.source:
            raise NeedsPersonError(f"`{connection.id}` must be connected again: its client is no longer the same")
        return client

    def _exchanged(
        self, connection: Connection, secret: Secret, token: Secret, now: Instant, alone: ExitStack
    ) -> TokenPair:
        """Return what the provider gives for a refresh token, once it is stored."""
        source = source_of(connection)
        try:
            got = refresh(source, secret, token, connection.scopes, self._roots)
            with refused_ones_ended(source, secret, got.tokens, self._roots):
                packed = TokenPair.of(got, asked=now, share=self.share(), former=token).packed()
        except AnswerLostError:
            # Either it may be repeated, at once, or it is lost.
            return self._refreshed(connection.id, alone)
        except NeedsPersonError as error:
            present = TokenPair.unpacked(self._vault.open(self._vault.connection(connection.id)))
            if present.access.version != token.version:
                # Another process was faster, where locks do not hold.
                return present
            raise self._lost(connection, str(error)) from None
        except (TokenRefusedError, TokensUnavailableError) as error:
            # The refresh token was not used.
            self.consents.settle(connection.id, ConsentState.CONNECTED, paused_until=now.wall_at + _PAUSE_SECONDS)
            raise _named(error, connection) from None
        return self._stored(connection, Secret(packed), alone)

    def _stored(self, connection: Connection, brought: Secret, alone: ExitStack) -> TokenPair:
        """Store what a refresh brought, and return it. While that cannot be done, it is kept for the next try.

        It is ended where that will never be done, as when the connection was removed meanwhile.
        """
        try:
            version = self._vault.put(connection.id, brought.reveal(), by=_BY).version
            self.consents.settle(connection.id, ConsentState.CONNECTED)
        except UnavailableError:
            # INVARIANT: with the lock. Who gets that, and finds a refresh that has begun, takes it for cut off.
            self._unstored[connection.id] = _Brought(connection, brought, alone.pop_all())
            raise
        except PDPError:
            self._end(connection, brought)
            raise
        self._tell(EventKind.CONNECTION_REFRESHED, connection, version=str(version))
        return TokenPair.unpacked(Secret(brought.reveal(), version=version))

    def _end(self, connection: Connection, brought: Secret) -> None:
        """Have the provider end tokens that nobody will have. What cannot be ended is logged, and given up."""
        source = source_of(connection)
        try:
            secret = self._vault.open(self._client_of(connection))
            end_pair(source, secret, TokenPair.unpacked(brought), self._roots)
        except PDPError as error:
            _LOG.warning("`%s` gave tokens that are lost, and cannot end them: %s", source.host, error)

    def _lost(self, connection: Connection, problem: str) -> NeedsPersonError:
        """Note that the person must connect again, and return the error that says so."""
        self.consents.settle(connection.id, ConsentState.NEEDS_PERSON)
        self._tell(EventKind.CONNECTION_LOST, connection, version=str(connection.version), reason=problem)
        error = NeedsPersonError(f"`{connection.id}` of `{connection.owner}` must be connected again: {problem}")
        _LOG.warning("%s", error)
        return error

    def _tell(
        self, kind: EventKind, connection: Connection, lists: Mapping[str, tuple[str, ...]] | None = None, **facts: str
    ) -> None:
        self._observe(
            Event(
                kind=kind,
                at=self._clock.now().wall_at,
                user=connection.owner,
                tenant=connection.tenant,
                facts={**connection.facts, "provider": source_of(connection).host, **facts},
                lists=lists or {},
            )
        )


def source_of(connection: Connection) -> TokenSource:
    """Return where a person's connection has its tokens from."""
    if connection.source is None:
        raise ValueError("nobody consented to this connection")
    return connection.source


def consenting_of(connection: Connection) -> Consenting:
    """Return where a person consented to their connection."""
    consenting = source_of(connection).consenting
    if consenting is None:
        raise ValueError("nobody consented to this connection")
    return consenting


def _require_usable(connection: Connection, consent: Consent) -> None:
    if consent.state is ConsentState.NEEDS_PERSON:
        raise NeedsPersonError(f"`{connection.id}` of `{connection.owner}` must be connected again")
    if consent.state is ConsentState.ENDING:
        raise NeedsPersonError(f"`{connection.id}` of `{connection.owner}` was disconnected")


def _named(error: TokenRefusedError | TokensUnavailableError, connection: Connection) -> PDPError:
    """Return an error about a provider with its name, and that of the connection."""
    return type(error)(f"no access token for `{connection.id}` from `{source_of(connection).host}`: {error}")
