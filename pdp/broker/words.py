"""The words of the broker: connections, their secrets, and what can be wrong with them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn
from urllib.parse import urlsplit

from pdp.errors import ConflictError, NotFoundError, PDPError, UnavailableError, WrongStateError

# Ids and kinds are typed by people and appear in paths and records.
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# The longest secret: a private key in PEM, or an access token with many claims.
MOST_SECRET_BYTES: Final = 64 * 1024
# Of files that others can change.
SENT_ELSEWHERE: Final = "anyone could choose where secrets are sent"
OTHERS_USED: Final = "anyone could change which secrets are used"


class Mode(StrEnum):
    """Who builds the request in which a secret is used, and whether the secret leaves the broker."""

    CONNECTOR = "connector"  # the broker, from a template and the arguments of the call
    PROXY = "proxy"  # the tool server; the broker checks it and adds the secret
    CHECKOUT = "checkout"  # the tool server, with a short-lived credential that the broker hands out


class ClientAuth(StrEnum):
    """How a client proves to a provider of tokens who it is, by the names of RFC 7591."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    PRIVATE_KEY = "private_key_jwt"  # by a signature: its secret is the key, which is sent to nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Consenting:
    """Where people agree that a client uses their account: what is known of the provider besides its tokens.

    `issuer` is what the provider calls itself. People are sent to `authorization`; `account` says who they are there,
    or is empty. For `grace_seconds` after its first use a refresh token may be used again; 0 where nothing is known.
    """

    issuer: str
    authorization: str
    account: str = ""
    grace_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """For what the access token of a connection is exchanged, anew for each session (RFC 8693): a narrower one.

    That is for `audience`, for `resource`, or for both; one of them may be empty.
    """

    audience: str = ""
    resource: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """An application with an installation, as GitHub has them. Its tokens are for `repositories` alone.

    The endpoint of its source makes tokens, and its `revocation` ends the one that asks. A scope is a permission, such
    as `issues:write`.
    """

    repositories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSource:
    """Where a connection gets access tokens for its secret, which never goes upstream itself.

    `endpoint` is the URL to which alone the secret is sent; `private` lets all endpoints be at an address that is not
    public. `resource` is what the tokens are for (RFC 8707), or empty. With `consenting`, people connect there. With
    `exchange`, no token goes upstream but the one for which it is exchanged there. Tokens are revoked at `revocation`,
    and `introspection` says whether they count; both may be empty. A client that signs does so for `audience`, or for
    `endpoint` where that is empty. With `app`, each session gets a token of an installation. With `outlives`, a token
    that is handed out may live longer than its session, with which it is ended, as far as that can be.
    """

    endpoint: str
    client_id: str
    auth: ClientAuth = ClientAuth.BASIC
    audience: str = ""
    resource: str = ""
    private: bool = False
    consenting: Consenting | None = None
    exchange: Exchange | None = None
    app: App | None = None
    outlives: bool = False
    revocation: str = ""
    introspection: str = ""

    @property
    def host(self) -> str:
        """Return how the provider is named in errors and records."""
        return urlsplit(self.endpoint).netloc


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginSource:
    """Where a connection makes logins: a database of a PostgreSQL server, as the broker's own role `role` there.

    The secret of the connection is the password of that role. A login lives `seconds` at most, and has at most
    `sessions` of the database at once. `tls_roots` is a file of authorities; empty for those of the system.
    """

    database: str
    role: str
    seconds: int = 900
    sessions: int = 2
    tls_roots: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A way to one system that tool servers use: what the broker knows of it, without its secret.

    `compartment` is the part of the tenant that has keys of its own, by default the environment of sessions. `kind` is
    what the catalogue names, such as `github`. `upstream` is the only origin to which the secret is sent. `owner` is a
    user, or empty for a connection of the whole tenant. `scopes` are those that the secret has. The secret is sent in
    the header `header`, behind the word `scheme` when that is not empty. With a `source` it is not sent there: an
    access token that it gets is. With `logins` the upstream is a server of PostgreSQL, which is sent no request, and a
    scope is one of its group roles. `version` is that of the present secret, 0 before the first. `created_at` is unix
    seconds.

    Where people connect there are two sorts. That of the tenant is the client, with which others are made and which
    opens nothing itself; that of a person is made when they consent, with the source and the scopes of that moment.
    """

    id: str
    tenant: str
    compartment: str
    kind: str
    upstream: str
    owner: str = ""
    scopes: tuple[str, ...] = ()
    modes: tuple[Mode, ...] = (Mode.CONNECTOR,)
    header: str = "Authorization"
    scheme: str = "Bearer"
    source: TokenSource | None = None
    logins: LoginSource | None = None
    version: int = 0
    created_at: float = 0.0

    @property
    def is_client(self) -> bool:
        """Say whether people connect with it, so that it opens nothing itself."""
        return not self.owner and self._consenting

    @property
    def is_consented(self) -> bool:
        """Say whether a person consented to it, so that its secret is their tokens."""
        return bool(self.owner) and self._consenting

    @property
    def is_for_sessions(self) -> bool:
        """Say whether each session gets an access token of its own, and no other one goes upstream."""
        return self.source is not None and (self.source.exchange is not None or self.source.app is not None)

    @property
    def _consenting(self) -> bool:
        return self.source is not None and self.source.consenting is not None

    @property
    def facts(self) -> dict[str, str]:
        """Return how records about it and its secret name it."""
        return {"connection": self.id, "connection_kind": self.kind, "compartment": self.compartment}


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretVersion:
    """One version of a connection's secret, without the secret: under which key it is sealed, and since when.

    `digest` is that of the sealed form, so it tells nothing about the secret. `stored_at` is unix seconds.
    """

    connection_id: str
    version: int
    kek_id: str
    digest: str
    stored_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kek:
    """A key that wraps the keys of secrets: one generation of those of a tenant and compartment, counted from 1.

    The key itself is with the provider. `created_at` is unix seconds.
    """

    id: str
    tenant: str
    compartment: str
    generation: int
    created_at: float


class ConsentState(StrEnum):
    """How a person's connection is doing."""

    CONNECTED = "connected"
    REFRESHING = "refreshing"  # a refresh has begun, and its outcome is not known
    NEEDS_PERSON = "needs_person"  # its tokens are lost, or the provider takes them no longer: connect again
    ENDING = "ending"  # it is disconnected here, and the provider has not confirmed the end


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try to refresh: written before the provider is asked.

    `version` is that of the secret whose refresh token is sent. `first_at` is when that was first sent, in unix
    seconds: in an attempt that repeats a lost one, not the moment of this one.
    """

    id: str
    version: int
    first_at: float
    is_repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What a person's connection rests on. Its tokens are its secret.

    `account` is what the provider calls the person, or empty. `attempt` is the last try to refresh. Until
    `paused_until` the provider is left alone. `used_at` is when the tokens were last opened, to the minute; 0 before
    that. Times are unix seconds.
    """

    connection_id: str
    account: str = ""
    state: ConsentState = ConsentState.CONNECTED
    attempt: Attempt | None = None
    paused_until: float = 0.0
    used_at: float = 0.0


class Secret:
    """A plaintext secret, which only `reveal` shows: it has no text, and cannot be pickled.

    `version` is that of the connection's secret that it is, or with which it was got.
    Python cannot wipe it: open it late, use it for one request, and give it no second name.
    """

    __slots__ = ("_plaintext", "version")

    def __init__(self, plaintext: bytes, *, version: int = 0) -> None:
        self._plaintext = plaintext
        self.version = version

    def reveal(self) -> bytes:
        """Return the plaintext."""
        return self._plaintext

    def __repr__(self) -> str:
        return "<secret>"

    def __str__(self) -> NoReturn:
        raise TypeError("a secret has no text")

    def __format__(self, _: str) -> NoReturn:
        raise TypeError("a secret has no text")

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("a secret has no copy")


class UnknownConnectionError(NotFoundError):
    """The tenant has no such connection in this compartment: check the id."""


class ConnectionExistsError(ConflictError):
    """There is such a connection already: use another id, or remove that one first."""


class CheckedOutError(WrongStateError):
    """Credentials of the connection are still out: end them first, with `pdp-broker checkout revoke`."""


class NoSecretError(WrongStateError):
    """The connection has no secret yet: store one with `pdp-broker secret put`."""


class TokenRefusedError(WrongStateError):
    """The provider of tokens gives none, or another one than the connection names: see what is set there and here.

    The message holds nothing that the provider wrote but a code of RFC 6749.
    """


class NeedsPersonError(TokenRefusedError):
    """The tokens of a person's connection are lost, or count no longer: the person must connect again."""


class TokensUnavailableError(UnavailableError):
    """The provider of tokens does not answer: try again after a pause. Nothing was sent to the upstream."""


class AnswerLostError(TokensUnavailableError):
    """The provider of tokens was asked, and its answer was lost: nobody knows what it did."""


class DatabaseRefusedError(WrongStateError):
    """A database does not let the broker make or end a login: see what its role may do there."""


class DatabaseUnavailableError(UnavailableError):
    """A database does not answer, or is busy: try again after a pause."""


class SealBrokenError(PDPError):
    """A sealed secret does not belong where it was found, or was changed: restore the store, or put the secret again.

    The message names the connection and its version, and nothing of what is sealed.
    """


class RolledBackError(PDPError):
    """The store has an older secret than it had before: restore a newer store, or put the secret again."""


class UnknownKeyError(PDPError):
    """The provider does not have the key that is named, and no other key takes its place."""


class KeyInUseError(WrongStateError):
    """Secrets are still sealed under this key: rotate, and try again."""


class ProviderUnavailableError(UnavailableError):
    """The key provider does not answer: try again after a pause, and use no secret meanwhile."""
