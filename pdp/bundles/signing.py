"""Sign bundles with Ed25519 keys, and define whose signature is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pdp.bundles.delivery import Delivery, Signature
from pdp.errors import BundleError, ConfigurationError, Problem
from pdp.foundation.jsontext import canonical

if TYPE_CHECKING:
    from pdp.foundation.keys import PublicKey

# Each signed text begins with this, so that no other text signed with the key can pass for a bundle.
_PURPOSE = b"pdp bundle signature 1\n"
# The length in signed bundles. An id only selects one of the configured keys.
_KEY_ID_DIGITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A delivery that may run here: it has every required signature. INVARIANT: only `Trust.verify` makes these.

    `signed_by` is the id of the key that signed it; empty without a signature of a known key.
    """

    delivery: Delivery
    signed_by: str

    @property
    def number(self) -> int:
        """Return the number that was signed with it, 0 without a signature of a known key."""
        return self.delivery.signature.number if self.delivery.signature and self.signed_by else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The trusted keys, by key id, and whether a signature is `required`."""

    keys: Mapping[str, PublicKey] = field(default_factory=dict)
    required: bool = False

    def verify(self, delivery: Delivery) -> Verified:
        """Return a bundle with the id of the key that signed it.

        Raise `BundleError` when it must be signed and is not, and when the signature of a known key is wrong.
        """
        signature = delivery.signature
        if signature is None:
            if self.required:
                raise _refusal("the bundle is not signed, but only signed ones are taken; see `pdp bundle sign`")
            return Verified(delivery=delivery, signed_by="")
        key = self.keys.get(signature.key_id)
        if key is None:
            if self.required or self.keys:
                raise _refusal(f"the bundle is signed by `{signature.key_id}`, which is not among the trusted keys")
            return Verified(delivery=delivery, signed_by="")
        if not key.signed(_signed_text(delivery.version, signature.number), signature.value):
            raise _refusal(
                f"the signature by `{signature.key_id}` is wrong: the bundle is not what was signed with this key"
            )
        return Verified(delivery=delivery, signed_by=signature.key_id)


def generate_key() -> tuple[bytes, bytes]:
    """Make a key pair; return the private and the public key as PEM (PKCS #8, SubjectPublicKeyInfo)."""
    from pdp.foundation.keys import PrivateKey  # noqa: PLC0415 - most servers need no signatures

    key = PrivateKey.generate()
    return key.pem, key.public.pem


def sign(delivery: Delivery, private_key: bytes, number: int) -> Delivery:
    """Return a bundle signed with a private key in PEM; an existing signature is replaced.

    `number` grows from bundle to bundle. Raise `ConfigurationError` unless it is an Ed25519 key.
    """
    from pdp.foundation.keys import PrivateKey  # noqa: PLC0415 - most servers need no signatures

    try:
        key = PrivateKey.read(private_key)
    except ValueError:
        problem = "this is not an Ed25519 private key in PEM without a password; see `pdp bundle keygen`"
        raise ConfigurationError(problem) from None
    value = key.sign(_signed_text(delivery.version, number))
    signature = Signature(key_id=_key_id(key.public), number=number, value=value)
    return Delivery(files=delivery.files, signature=signature)


def read_public_keys(pem: bytes) -> dict[str, PublicKey]:
    """Return the public keys of a PEM text by id. Raise `ConfigurationError` when one is not an Ed25519 key."""
    from pdp.foundation.keys import PublicKey  # noqa: PLC0415 - most servers need no signatures

    try:
        keys = PublicKey.read_all(pem)
    except ValueError:
        raise ConfigurationError("holds a key that is not an Ed25519 public key") from None
    if not keys:
        raise ConfigurationError("holds no public key in PEM")
    return {_key_id(key): key for key in keys}


def _signed_text(version: str, number: int) -> bytes:
    return _PURPOSE + canonical({"number": number, "version": version})


def _key_id(key: PublicKey) -> str:
    return f"ed25519:{key.id(_KEY_ID_DIGITS)}"


def _refusal(problem: str) -> BundleError:
    return BundleError((Problem("", 0, problem),))
