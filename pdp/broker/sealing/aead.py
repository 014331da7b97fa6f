"""AES-256-GCM with random nonces. A key that seals few texts, as all keys here do, stays far below its limits."""

from __future__ import annotations

import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pdp.broker.words import SealBrokenError

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


def new_key() -> bytes:
    """Return a new random key."""
    return secrets.token_bytes(KEY_BYTES)


def encrypted(key: bytes, text: bytes, associated: bytes) -> bytes:
    """Return the nonce and the sealed text, which opens only with the same associated data."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, text, associated)


def decrypted(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    """Return the text. Raise `SealBrokenError` for another key, other associated data, or a changed text."""
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], associated)
    except (InvalidTag, ValueError):
        raise SealBrokenError("the seal does not fit") from None
