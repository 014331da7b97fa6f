"""Keep the root key encrypted to recipients of age: only who brings an identity of one of them can start the broker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyrage

from pdp.errors import ConfigurationError
from pdp.foundation.ownership import read_secret

_MOST_BYTES: Final = 64 * 1024


class AgeCover:
    """Covers a root key with age (X25519). The identities are read when the broker starts, and not kept.

    Raise `ConfigurationError` for what is no recipient.
    """

    def __init__(self, recipients: Sequence[str], identity_file: Path) -> None:
        self._identity_file = identity_file
        try:
            self._recipients = [pyrage.x25519.Recipient.from_str(one) for one in recipients]
        except pyrage.RecipientError:
            raise ConfigurationError("`recipients` of the key provider holds what is no recipient of age") from None
        if not recipients:
            raise ConfigurationError("`recipients` of the key provider is empty")

    def cover(self, root: bytes) -> bytes:
        """Return what the file holds."""
        return bytes(pyrage.encrypt(root, self._recipients))

    def uncover(self, content: bytes) -> bytes:
        """Return the root key."""
        try:
            return bytes(pyrage.decrypt(content, self._identities()))
        except pyrage.DecryptError:
            raise ConfigurationError(f"no identity in `{self._identity_file}` opens the root key") from None

    def _identities(self) -> list[pyrage.x25519.Identity]:
        text = read_secret(self._identity_file, "anyone could choose the identity", most=_MOST_BYTES)
        lines = [line.strip() for line in text.splitlines()]
        try:
            found = [pyrage.x25519.Identity.from_str(one) for one in lines if one and not one.startswith("#")]
        except pyrage.IdentityError:
            raise ConfigurationError(f"`{self._identity_file}` holds what is no identity of age") from None
        if not found:
            raise ConfigurationError(f"`{self._identity_file}` holds no identity")
        return found
