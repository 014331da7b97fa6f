"""What holds the keys under which secrets are sealed."""

from __future__ import annotations

import re
import secrets
from base64 import b32encode
from hashlib import sha256
from typing import Final, Protocol

from pdp.broker.words import UnknownKeyError
from pdp.foundation.jsontext import canonical

_KEK_ID: Final = re.compile(r"kek_[a-z2-7]{16}_[a-z2-7]{16}")
_RANDOM_BYTES: Final = 10


class KeyProvider(Protocol):
    """Wraps the keys of secrets with keys that the broker's store does not hold. Safe for threads.

    A key is named by a `kek_id`, see `new_kek_id`. Methods raise `UnknownKeyError` for a key that was never created or
    is destroyed, and never use another one in its place; and `ProviderUnavailableError` when the provider does not
    answer.
    """

    def create(self, kek_id: str) -> None:
        """Create a random key, and return when it cannot be lost."""
        ...

    def wrap(self, kek_id: str, key: bytes, associated: bytes) -> bytes:
        """Return a key of 32 bytes, sealed so that it opens only with the same associated data."""
        ...

    def unwrap(self, kek_id: str, wrapped: bytes, associated: bytes) -> bytes:
        """Return a key that was wrapped. Raise `SealBrokenError` when the associated data are others, or it changed."""
        ...

    def destroy(self, kek_id: str) -> None:
        """Destroy a key, and return when it is gone. A key that is gone already is no error."""
        ...

    def check(self) -> None:
        """Return when the provider can be used now; raise what says why not."""
        ...

    def close(self) -> None:
        """Let go of the provider; nothing else is called afterwards."""
        ...


def new_kek_id(tenant: str, compartment: str) -> str:
    """Return the id of a new key for a tenant and compartment, in which both are named by a digest."""
    return f"{_prefix(tenant, compartment)}{_base32(secrets.token_bytes(_RANDOM_BYTES))}"


def required_id(kek_id: str) -> str:
    """Return the id of a key as it is. Raise `UnknownKeyError` for any other text: it becomes part of paths."""
    if not _KEK_ID.fullmatch(kek_id):
        raise UnknownKeyError(f"`{kek_id}` is no id of a key")
    return kek_id


def is_key_of(kek_id: str, tenant: str, compartment: str) -> bool:
    """Say whether a key is that of a tenant and compartment: a changed store must not lend it another's."""
    return bool(_KEK_ID.fullmatch(kek_id)) and kek_id.startswith(_prefix(tenant, compartment))


def _prefix(tenant: str, compartment: str) -> str:
    return f"kek_{_base32(sha256(canonical([tenant, compartment])).digest()[:_RANDOM_BYTES])}_"


def _base32(content: bytes) -> str:
    return b32encode(content).decode("ascii").lower()
