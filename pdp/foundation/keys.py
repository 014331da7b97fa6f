"""Ed25519 keys, which sign records and bundles: create them, read them from PEM, name them, and use them."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

_PUBLIC_KEY: Final = re.compile(b"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


class PublicKey:
    """The public key, which verifies."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key

    @classmethod
    def read(cls, pem: bytes) -> Self:
        """Read a key from PEM. Raise `ValueError`."""
        try:
            key = load_pem_public_key(pem)
        except UnsupportedAlgorithm as error:
            raise ValueError(str(error)) from None
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("not an Ed25519 key")  # noqa: TRY004 - a wrong text, not a wrong type
        return cls(key)

    @classmethod
    def read_all(cls, pem: bytes) -> tuple[Self, ...]:
        """Read all keys in PEM. Raise `ValueError` when one is not an Ed25519 key."""
        return tuple(cls.read(text) for text in _PUBLIC_KEY.findall(pem))

    @property
    def pem(self) -> bytes:
        """Return the key as PEM (SubjectPublicKeyInfo)."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def id(self, digits: int) -> str:
        """Return the name of the key: the first hex digits of its SHA-256."""
        return sha256(self._key.public_bytes_raw()).hexdigest()[:digits]

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Say whether a signature of a message is by this key."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """The private key, which signs."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> Self:
        """Make a new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, pem: bytes) -> Self:
        """Read a key from PEM without a password. Raise `ValueError` with the message `not an Ed25519 key`."""
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("not a PEM file of a private key without a password") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")  # noqa: TRY004 - a wrong text, not a wrong type
        return cls(key)

    @property
    def pem(self) -> bytes:
        """Return the key as PEM (PKCS #8), for a file that only its owner can read."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def public(self) -> PublicKey:
        """Return the public key."""
        return PublicKey(self._key.public_key())

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message: 64 bytes."""
        return self._key.sign(message)
