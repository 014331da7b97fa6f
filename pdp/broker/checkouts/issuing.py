"""Make credentials for one session, and end them: logins of PostgreSQL, and access tokens."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pdp.broker.checkouts.holding import Holder
from pdp.broker.checkouts.servers import read_server
from pdp.broker.checkouts.words import Checkout, CredentialKind, Outcome
from pdp.broker.oauth.answers import Granted
from pdp.broker.oauth.ending import end_pair, end_token, is_known
from pdp.broker.oauth.granting import ask_for_token, exchange
from pdp.broker.oauth.installations import ask_for_installation_token, end_installation_token
from pdp.broker.oauth.pair import TokenPair
from pdp.broker.words import (
    Connection,
    LoginSource,
    Mode,
    Secret,
    TokenRefusedError,
    TokenSource,
    TokensUnavailableError,
)
from pdp.calltokens.checkouts import Credential
from pdp.errors import ConfigurationError, PermissionDeniedError
from pdp.foundation.egress import Roots
from pdp.foundation.extras import missing

if TYPE_CHECKING:
    from pdp.broker.checkouts.postgres import Server

_LOG: Final = logging.getLogger("pdp.broker")
# What is kept of a token begins with whether its provider said that it is active.
_KNOWN, _UNKNOWN = b"+", b"-"
# No password of PostgreSQL holds it.
_BETWEEN: Final = b"\0"
_NO_SCOPE: Final = (
    "the call names no scope, and a credential without one could do anything: see `connection` in overlays"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A credential that was made, and what is kept of it to end it."""

    credential: Credential
    keep: Secret | None = field(default=None, repr=False)


class Issuer:
    """Makes and ends credentials. Safe for threads."""

    def __init__(self, secrets: Holder) -> None:
        self._secrets = secrets
        self._roots = Roots()

    def require_kind(self, connection: Connection, scopes: Collection[str], mode: Mode) -> CredentialKind:
        """Return what a connection makes for a call with these scopes, in a mode.

        Raise `PermissionDeniedError` for one that has only what lasts, and for a call without a scope.
        """
        if not scopes:
            raise PermissionDeniedError(_NO_SCOPE)
        if mode is not Mode.CHECKOUT:
            return CredentialKind.KEPT
        if connection.logins is not None:
            return CredentialKind.LOGIN
        if connection.source is not None and (connection.is_for_sessions or connection.source.consenting is None):
            return CredentialKind.TOKEN
        raise PermissionDeniedError(f"connection `{connection.id}` has only what lasts, and that is never handed out")

    def issue(
        self, one: Checkout, connection: Connection, *, now: float, until: float, subject: Secret | None = None
    ) -> Issued:
        """Make the credential of a checkout. What leaves the broker ends at `until`, at the latest. Raise `PDPError`.

        `subject` is the access token of a connection that exchanges it.
        """
        if connection.source is not None:
            return self._token(one, connection, connection.source, now=now, until=until, subject=subject)
        login = server_of(connection, self._secrets.open(connection)).create(one.role, one.scopes, until)
        return Issued(
            credential=Credential(
                id=one.id,
                kind=one.kind.value,
                upstream=connection.upstream,
                user=login.user,
                secret=login.password.reveal().decode(),
                database=login.database,
                ends_at=until,
            )
        )

    def end(self, one: Checkout, connection: Connection, kept: Secret | None) -> Outcome:
        """End a credential, and say what became of it. Raise `PDPError` when it is to be tried again."""
        if connection.source is None:
            server = server_of(connection, self._secrets.open(connection))
            return Outcome.REVOKED if server.drop(one.role) else Outcome.GONE
        if kept is None:
            # It was never handed out, and nobody has it.
            return Outcome.GONE
        secret = self._secret_of_client(connection)
        try:
            proved = self._end_kept(one, connection.source, secret, kept)
        except (TokenRefusedError, TokensUnavailableError) as error:
            raise type(error)(f"the provider of `{connection.id}`: {error}") from None
        return Outcome.REVOKED if proved else Outcome.EXPIRES_AT

    def _end_kept(self, one: Checkout, source: TokenSource, secret: Secret, kept: Secret) -> bool:
        """End the tokens that are kept of a checkout. Say whether their provider proves it."""
        if one.kind is CredentialKind.CONSENT:
            return end_pair(source, secret, TokenPair.unpacked(kept), self._roots)
        known, token = kept.reveal()[:1] == _KNOWN, Secret(kept.reveal()[1:])
        return self._ended(source, secret, token, known=known)

    def roles(self, connection: Connection) -> Mapping[str, float]:
        """Return all roles of a database that brokers made, by name, each with its end in unix seconds."""
        return server_of(connection, self._secrets.open(connection)).roles()

    def drop(self, connection: Connection, role: str) -> bool:
        """Drop a role that no checkout names. Say whether there was one."""
        return server_of(connection, self._secrets.open(connection)).drop(role)

    def _token(
        self,
        one: Checkout,
        connection: Connection,
        source: TokenSource,
        *,
        now: float,
        until: float,
        subject: Secret | None,
    ) -> Issued:
        secret = self._secret_of_client(connection)
        try:
            got = self._granted(source, secret, one.scopes, subject)
        except (TokenRefusedError, TokensUnavailableError) as error:
            raise type(error)(f"no access token for `{connection.id}`: {error}") from None
        known = is_known(source, secret, got.secret, self._roots)
        ends_at = now + got.seconds
        if problem := _unbound(one, source, got.seconds, ends_at, until):
            self._take_back(source, secret, got.secret)
            raise PermissionDeniedError(f"an access token of `{connection.id}` {problem}")
        return Issued(
            credential=Credential(
                id=one.id,
                kind=one.kind.value,
                upstream=connection.upstream,
                secret=got.secret.reveal().decode(),
                ends_at=ends_at,
            ),
            keep=Secret((_KNOWN if known else _UNKNOWN) + got.secret.reveal()),
        )

    def _granted(self, source: TokenSource, secret: Secret, scopes: Collection[str], subject: Secret | None) -> Granted:
        if source.app is not None:
            return ask_for_installation_token(source, secret, scopes, self._roots)
        if subject is not None:
            return exchange(source, secret, subject, scopes, self._roots)
        return ask_for_token(source, secret, scopes, self._roots)

    def _ended(self, source: TokenSource, secret: Secret, token: Secret, *, known: bool) -> bool:
        if source.app is not None:
            return end_installation_token(source, token, self._roots)
        return end_token(source, secret, token, self._roots, known=known)

    def _secret_of_client(self, connection: Connection) -> Secret:
        """Return the secret of the client at the provider. Raise `TokenRefusedError` when it is now another one."""
        if not connection.is_consented:
            return self._secrets.open(connection)
        client = self._secrets.client(connection.tenant, connection.compartment, connection.kind)
        if client.source != connection.source:
            raise TokenRefusedError(f"`{connection.id}` must be connected again: its client is no longer the same")
        return self._secrets.open(client)

    def _take_back(self, source: TokenSource, secret: Secret, token: Secret) -> None:
        """End a token that nobody gets. What cannot be ended at once is logged, and given up."""
        try:
            self._ended(source, secret, token, known=False)
        except (TokenRefusedError, TokensUnavailableError) as error:
            _LOG.warning("`%s` gave a token that is not used, and cannot end it: %s", source.host, error)


def _unbound(one: Checkout, source: TokenSource, seconds: float, ends_at: float, until: float) -> str:
    """Return why a token is not bound to its session; empty for one that is."""
    if not seconds:
        return "has no end that its provider names"
    if one.kind is not CredentialKind.KEPT and ends_at > until and not source.outlives:
        return "would outlive the session: use it in mode `connector` or `proxy`, or see `--outlives-session`"
    return ""


def login_seconds(source: LoginSource | None) -> float:
    """Return the longest that a credential may live; without logins it is its provider that says so."""
    return float(source.seconds) if source else float("inf")


def joined_passwords(*passwords: Secret) -> bytes:
    """Return several passwords as one secret: it is not known yet which of them counts."""
    return _BETWEEN.join(one.reveal() for one in passwords)


def present_password(connection: Connection, secret: Secret) -> Secret:
    """Return the password that a server takes, of several in a secret. Raise what asking it raises."""
    found = [Secret(one, version=secret.version) for one in secret.reveal().split(_BETWEEN)]
    taken = (one for one in found[:-1] if _server(connection, one).lets_in())
    return next(taken, found[-1])


def server_of(connection: Connection, secret: Secret) -> Server:
    """Return the server of a connection that makes logins. Raise `ConfigurationError` without its library."""
    return _server(connection, present_password(connection, secret))


def _server(connection: Connection, password: Secret) -> Server:
    try:
        # Only a connection that makes logins needs psycopg.
        from pdp.broker.checkouts.postgres import Server  # noqa: PLC0415 - as above
    except ImportError as error:
        raise ConfigurationError(missing(error) or str(error)) from None
    if connection.logins is None:
        raise PermissionDeniedError(f"connection `{connection.id}` makes no logins")
    host, port = read_server(connection.upstream)
    return Server(host=host, port=port, source=connection.logins, password=password)
