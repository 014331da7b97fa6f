"""Seal secrets: each version under a new key of its own (DEK), and that under the key of its compartment (KEK)."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field, replace
from hashlib import sha256
from typing import Final

from pdp.broker.providers import KeyProvider
from pdp.broker.sealing.aead import decrypted, encrypted, new_key
from pdp.broker.words import Connection, Secret
from pdp.foundation.jsontext import canonical

_PURPOSE: Final = "pdp-broker/secret/v1"
_CHECKOUT_PURPOSE: Final = "pdp-broker/checkout/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a secret belongs, one version of a connection's: it opens nowhere else.

    Associated data are lists in canonical JSON (RFC 8785), so no two places have the same.
    """

    connection: Connection
    version: int

    def of_key(self, kek_id: str) -> bytes:
        """Return the associated data of the secret's key, as wrapped by a key of the provider."""
        return canonical([*self._named(), kek_id])

    def of_secret(self) -> bytes:
        """Return the associated data of the secret: with what it may be used for, and who may use it.

        They do not name the key of the provider, so that the secret stays as it is when its key is wrapped again.
        """
        one = self.connection
        use = [one.upstream, one.owner, one.header, one.scheme, list(one.scopes), [mode.value for mode in one.modes]]
        return canonical([*self._named(), *use, *self._source(), *self._logins()])

    def _source(self) -> list[list[str | bool | float]]:
        one = self.connection.source
        if one is None:
            return []
        consenting = [] if one.consenting is None else [list(astuple(one.consenting))]
        ends = [["ends", one.revocation, one.introspection]] if one.revocation or one.introspection else []
        exchange = [] if one.exchange is None else [["exchange", *astuple(one.exchange)]]
        signed = [["signed", one.audience]] if one.audience else []
        app = [["app", *one.app.repositories]] if one.app else []
        outlives: list[list[str | bool | float]] = [["outlives"]] if one.outlives else []
        known = [one.endpoint, one.client_id, one.auth.value, one.resource, one.private]
        return [known, *consenting, *ends, *exchange, *signed, *app, *outlives]

    def _logins(self) -> list[list[str | int]]:
        one = self.connection.logins
        return [] if one is None else [["logins", *astuple(one)]]

    def _named(self) -> list[str | int]:
        one = self.connection
        return [_PURPOSE, one.tenant, one.compartment, one.id, one.kind, self.version]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutPlace:
    """Where a credential belongs that was handed out, and is kept to be ended: one checkout."""

    connection: Connection
    checkout_id: str

    @property
    def version(self) -> int:
        """Return the version of the secret with which it was got."""
        return self.connection.version

    def of_key(self, kek_id: str) -> bytes:
        """Return the associated data of the credential's key."""
        return canonical([*self._named(), kek_id])

    def of_secret(self) -> bytes:
        """Return the associated data of the credential."""
        return canonical(self._named())

    def _named(self) -> list[str]:
        one = self.connection
        return [_CHECKOUT_PURPOSE, one.tenant, one.compartment, one.id, one.kind, self.checkout_id]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A sealed secret, and its key, which the provider's key `kek_id` has wrapped."""

    kek_id: str
    wrapped_key: bytes = field(repr=False)
    text: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """Return the digest of the sealed text, which stays the same when its key is wrapped again."""
        return f"sha256:{sha256(self.text).hexdigest()}"


def sealed(plaintext: bytes, place: Place | CheckoutPlace, kek_id: str, provider: KeyProvider) -> Sealed:
    """Seal a secret for its place."""
    key = new_key()
    return Sealed(
        kek_id=kek_id,
        wrapped_key=provider.wrap(kek_id, key, place.of_key(kek_id)),
        text=encrypted(key, plaintext, place.of_secret()),
    )


def opened(one: Sealed, place: Place | CheckoutPlace, provider: KeyProvider) -> Secret:
    """Open a secret. Raise `SealBrokenError` when it does not belong to the place, or was changed."""
    return Secret(decrypted(_key_of(one, place, provider), one.text, place.of_secret()), version=place.version)


def rewrapped(one: Sealed, place: Place | CheckoutPlace, kek_id: str, provider: KeyProvider) -> Sealed:
    """Wrap the key of a sealed secret by another key of the provider. Raise `SealBrokenError` as `opened` does."""
    key = _key_of(one, place, provider)
    return replace(one, kek_id=kek_id, wrapped_key=provider.wrap(kek_id, key, place.of_key(kek_id)))


def _key_of(one: Sealed, place: Place | CheckoutPlace, provider: KeyProvider) -> bytes:
    return provider.unwrap(one.kek_id, one.wrapped_key, place.of_key(one.kek_id))
