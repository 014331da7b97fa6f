"""Sign bundles with Ed25519 keys, and say whose signature is believed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pdp.bundles.delivery import Delivery, Signature
from pdp.errors import BundleError, ConfigurationError, Problem
from pdp.foundation.jsontext import canonical

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# What is signed begins with this, so that no other text that a key ever signs can pass for a bundle.
_PURPOSE = b"pdp bundle signature 1\n"
_PUBLIC_KEY = re.compile(b"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_KEY_ID_DIGITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A delivery that may run here: whoever had to sign it did. INVARIANT: `Trust.verify` alone makes these.

    `signed_by` is the id of the key that signed it; empty when nobody who is known here did.
    """

    delivery: Delivery
    signed_by: str

    @property
    def number(self) -> int:
        """Return the number that was signed with it, 0 without a signature that is known here."""
        return self.delivery.signature.number if self.delivery.signature and self.signed_by else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose signature is believed, by key id, and whether one is `required`."""

    keys: Mapping[str, Ed25519PublicKey] = field(default_factory=dict)
    required: bool = False

    def verify(self, delivery: Delivery) -> Verified:
        """Return a bundle with the id of the key that signed it.

        Raise `BundleError` when it must be signed and is not, and when the signature of a known key is wrong.
        """
        signature = delivery.signature
        if signature is None:
            if self.required:
                raise _refusal("the bundle is not signed, and only signed ones are taken; see `pdp bundle sign`")
            return Verified(delivery=delivery, signed_by="")
        key = self.keys.get(signature.key_id)
        if key is None:
            if self.required or self.keys:
                raise _refusal(f"the bundle is signed by `{signature.key_id}`, which is none of the trusted keys")
            return Verified(delivery=delivery, signed_by="")
        _require_valid(key, signature, delivery.version)
        return Verified(delivery=delivery, signed_by=signature.key_id)


def generate_key() -> tuple[bytes, bytes]:
    """Make a key pair; return the private and the public key as PEM (PKCS #8, SubjectPublicKeyInfo)."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - most servers need no signatures
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - the same

    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)


def sign(delivery: Delivery, private_key: bytes, number: int) -> Delivery:
    """Return a bundle with a signature by a private key in PEM; one that it has is replaced.

    `number` grows from bundle to bundle. Raise `ConfigurationError` when that is no Ed25519 key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - most servers need no signatures
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - the same
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - the same

    try:
        key: Any = load_pem_private_key(private_key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError("this is no Ed25519 private key in PEM, without password; see `pdp bundle keygen`")
    value = key.sign(_signed_text(delivery.version, number))
    signature = Signature(key_id=_key_id(key.public_key()), number=number, value=value)
    return Delivery(files=delivery.files, signature=signature)


def read_public_keys(pem: bytes) -> dict[str, Ed25519PublicKey]:
    """Return the public keys of a PEM text by their ids. Raise `ConfigurationError` when one is no Ed25519 key."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - most servers need no signatures
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - the same
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415 - the same

    keys: dict[str, Ed25519PublicKey] = {}
    for text in _PUBLIC_KEY.findall(pem):
        try:
            key: Any = load_pem_public_key(text)
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigurationError("holds a key that is no Ed25519 public key")
        keys[_key_id(key)] = key
    if not keys:
        raise ConfigurationError("holds no public key in PEM")
    return keys


def _require_valid(key: Ed25519PublicKey, signature: Signature, version: str) -> None:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - most servers need no signatures

    try:
        key.verify(signature.value, _signed_text(version, signature.number))
    except InvalidSignature:
        raise _refusal(
            f"the signature by `{signature.key_id}` is wrong: the bundle is not what was signed with this key"
        ) from None


def _signed_text(version: str, number: int) -> bytes:
    return _PURPOSE + canonical({"number": number, "version": version})


def _key_id(key: Ed25519PublicKey) -> str:
    return "ed25519:" + hashlib.sha256(key.public_bytes_raw()).hexdigest()[:_KEY_ID_DIGITS]


def _refusal(problem: str) -> BundleError:
    return BundleError((Problem("", 0, problem),))
