"""Seal texts with a key of their own (AES-256-GCM): without the key, nothing is left of them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_KEY_BYTES = 32
# Each key seals one text, so the nonce may be the same for all.
_NONCE = bytes(12)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed text and its key."""

    key: bytes = field(repr=False)
    text: bytes


def sealed(text: bytes, subject: str) -> Sealed:
    """Seal a text under a new random key. `subject` names what the text belongs to."""
    key = secrets.token_bytes(_KEY_BYTES)
    return Sealed(key, AESGCM(key).encrypt(_NONCE, text, subject.encode("utf-8")))


def unsealed(one: Sealed, subject: str) -> bytes:
    """Return the text. Raise `ValueError` when it was changed, or belongs to another subject."""
    try:
        return AESGCM(one.key).decrypt(_NONCE, one.text, subject.encode("utf-8"))
    except InvalidTag:
        raise ValueError("the sealed text was changed") from None
