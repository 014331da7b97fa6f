"""Make credentials that leave the broker, and end them: logins of PostgreSQL, and access tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pdp.broker.checkouts.holding import Holder
from pdp.broker.checkouts.servers import read_server
from pdp.broker.checkouts.words import Checkout, CredentialKind, Outcome
from pdp.broker.oauth.asking import ask_for_token
from pdp.broker.oauth.ending import end_token, is_known
from pdp.broker.words import Connection, LoginSource, Secret, TokenRefusedError, TokenSource, TokensUnavailableError
from pdp.calltokens.checkouts import Credential
from pdp.errors import ConfigurationError, PermissionDeniedError
from pdp.foundation.egress import Roots
from pdp.foundation.extras import missing

if TYPE_CHECKING:
    from pdp.broker.checkouts.postgres import Server

# What is kept of a token begins with whether its provider said that it is active.
_KNOWN, _UNKNOWN = b"+", b"-"
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

    def require_kind(self, connection: Connection, scopes: Collection[str]) -> CredentialKind:
        """Return what a connection hands out for a call with these scopes.

        Raise `PermissionDeniedError` for one that has only what lasts, and for a call without a scope.
        """
        if not scopes:
            raise PermissionDeniedError(_NO_SCOPE)
        if connection.logins is not None:
            return CredentialKind.LOGIN
        if connection.source is not None and connection.source.consenting is None:
            return CredentialKind.TOKEN
        raise PermissionDeniedError(f"connection `{connection.id}` has only what lasts, and that is never handed out")

    def issue(self, one: Checkout, connection: Connection, *, now: float, until: float) -> Issued:
        """Make the credential of a checkout, which ends at a time at the latest. Raise `PDPError`."""
        if connection.source is not None:
            return self._token(one, connection, connection.source, now, until)
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
        secret = self._secrets.open(connection)
        if connection.source is None:
            return Outcome.REVOKED if server_of(connection, secret).drop(one.role) else Outcome.GONE
        if kept is None:
            # It was never handed out, and nobody has it.
            return Outcome.GONE
        known, token = kept.reveal()[:1] == _KNOWN, Secret(kept.reveal()[1:])
        try:
            proved = end_token(connection.source, secret, token, self._roots, known=known)
        except (TokenRefusedError, TokensUnavailableError) as error:
            raise type(error)(f"the provider of `{connection.id}`: {error}") from None
        return Outcome.REVOKED if proved else Outcome.EXPIRES_AT

    def roles(self, connection: Connection) -> Mapping[str, float]:
        """Return all roles of a database that brokers made, by name, each with its end in unix seconds."""
        return server_of(connection, self._secrets.open(connection)).roles()

    def drop(self, connection: Connection, role: str) -> bool:
        """Drop a role that no checkout names. Say whether there was one."""
        return server_of(connection, self._secrets.open(connection)).drop(role)

    def _token(self, one: Checkout, connection: Connection, source: TokenSource, now: float, until: float) -> Issued:
        secret = self._secrets.open(connection)
        try:
            got = ask_for_token(source, secret, one.scopes, self._roots)
        except (TokenRefusedError, TokensUnavailableError) as error:
            raise type(error)(f"no access token for `{connection.id}`: {error}") from None
        known = is_known(source, secret, got.secret, self._roots)
        ends_at = now + got.seconds
        if not got.seconds or ends_at > until:
            self._take_back(source, secret, got.secret)
            raise PermissionDeniedError(
                f"an access token of `{connection.id}` would outlive the session, or its provider does not say how "
                "long it lives: use it in mode `connector` or `proxy`"
            )
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

    def _take_back(self, source: TokenSource, secret: Secret, token: Secret) -> None:
        """End a token that nobody gets, if it can be."""
        try:
            end_token(source, secret, token, self._roots, known=False)
        except (TokenRefusedError, TokensUnavailableError):
            # It stays with its provider, and its text is forgotten here.
            return


def login_seconds(source: LoginSource | None) -> float:
    """Return the longest that a credential may live; without logins it is its provider that says so."""
    return float(source.seconds) if source else float("inf")


def server_of(connection: Connection, password: Secret) -> Server:
    """Return the server of a connection that makes logins. Raise `ConfigurationError` without its library."""
    try:
        # Only a connection that makes logins needs psycopg.
        from pdp.broker.checkouts.postgres import Server  # noqa: PLC0415 - as above
    except ImportError as error:
        raise ConfigurationError(missing(error) or str(error)) from None
    if connection.logins is None:
        raise PermissionDeniedError(f"connection `{connection.id}` makes no logins")
    host, port = read_server(connection.upstream)
    return Server(host=host, port=port, source=connection.logins, password=password)
