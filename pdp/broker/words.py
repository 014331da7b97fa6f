"""The words of the broker: connections, their secrets, and what can be wrong with them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn

from pdp.errors import ConflictError, NotFoundError, PDPError, UnavailableError, WrongStateError

# Ids and kinds are typed by people and stand in paths and records.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSource:
    """Where a connection gets access tokens for its secret, which is then that of a client and never goes upstream.

    `endpoint` is the URL to which alone the secret is sent; `private` lets it be at an address that is not public.
    `resource` is what the tokens are for (RFC 8707), or empty.
    """

    endpoint: str
    client_id: str
    auth: ClientAuth = ClientAuth.BASIC
    resource: str = ""
    private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A way to one system that tool servers use: what the broker knows of it, without its secret.

    `compartment` is the part of the tenant that has keys of its own, by default the environment of sessions. `kind` is
    what the catalogue names, such as `github`. `upstream` is the only origin to which the secret is sent. `owner` is a
    user, or empty for a connection of the whole tenant. `scopes` are those that the secret has. The secret is sent in
    the header `header`, behind the word `scheme` when that is not empty. With a `source` it is not sent there: an
    access token that it gets is. `version` is that of the present secret, 0 before the first. `created_at` is unix
    seconds.
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
    version: int = 0
    created_at: float = 0.0

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


class Secret:
    """A plaintext secret, which only `reveal` shows: it has no text, and cannot be pickled.

    Python cannot wipe it: open it late, use it for one request, and give it no second name.
    """

    __slots__ = ("_plaintext",)

    def __init__(self, plaintext: bytes) -> None:
        self._plaintext = plaintext

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


class NoSecretError(WrongStateError):
    """The connection has no secret yet: store one with `pdp-broker secret put`."""


class TokenRefusedError(WrongStateError):
    """The provider of tokens gives none, or another one than the connection names: see what is set there and here.

    The message holds nothing that the provider wrote but a code of RFC 6749.
    """


class TokensUnavailableError(UnavailableError):
    """The provider of tokens does not answer: try again after a pause. Nothing was sent to the upstream."""


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
