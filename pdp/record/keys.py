"""The keys of the record: one that signs checkpoints, one that keys digests; both made once for each deployment."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Self

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

from pdp.errors import ConfigurationError, reason_of
from pdp.foundation.files import make_file
from pdp.foundation.ownership import require_own

DIGEST_KEY_FILE = "record.key"
SIGNING_KEY_FILE = "record-signing.pem"
PUBLIC_KEY_FILE = "record-signing.pub.pem"

DIGEST_KEY_BYTES = 32
_KEY_ID_CHARACTERS = 16


class SigningKey:
    """Signs checkpoints by Ed25519. `id` names the key: the start of the digest of its public half."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.id = _key_id(private.public_key())

    @classmethod
    def generate(cls) -> Self:
        """Make a fresh key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key from a PEM file without a password. Raise `ConfigurationError`."""
        try:
            require_own(path, "anyone could sign records")
            private = load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            reason = reason_of(error)
            # A key of another name is not ours to make, and one that cannot be read is there.
            ours = isinstance(error, FileNotFoundError) and path.name == SIGNING_KEY_FILE
            remedy = "; run `pdp init`" if ours else ""
            raise ConfigurationError(f"cannot read the signing key `{path}`: {reason}{remedy}") from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ConfigurationError(f"the signing key `{path}` is no PEM file of a private key") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise ConfigurationError(f"the signing key `{path}` is no Ed25519 key")
        return cls(private)

    @property
    def private_pem(self) -> bytes:
        """Return the private half, for a file that nobody else can read."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def public_pem(self) -> bytes:
        """Return the public half, which verifies."""
        return self._private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, message: bytes) -> str:
        """Return the signature of a message in hex."""
        return self._private.sign(message).hex()


class PublicKeys:
    """The public halves that may have signed a record; more than one after a key was replaced."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys: Mapping[str, Ed25519PublicKey] = {_key_id(key): key for key in keys}

    @classmethod
    def load(cls, paths: Iterable[Path]) -> Self:
        """Read PEM files of public keys. Raise `ConfigurationError`."""
        return cls([_public_key(path) for path in paths])

    @classmethod
    def of(cls, *keys: SigningKey) -> Self:
        """Return the public halves of signing keys."""
        return cls([load_ed25519(key.public_pem) for key in keys])

    def signed(self, key_id: str, message: bytes, signature: str) -> bool:
        """Say whether the key of this id signed the message; False for an unknown key too."""
        key = self._keys.get(key_id)
        if key is None:
            return False
        try:
            raw = bytes.fromhex(signature)
            key.verify(raw, message)
        except (InvalidSignature, ValueError):
            return False
        # Of all that reads as the same bytes, only the form that was written: not one letter may change.
        return raw.hex() == signature

    def __contains__(self, key_id: object) -> bool:
        return key_id in self._keys


def load_ed25519(pem: bytes) -> Ed25519PublicKey:
    """Read a public key. Raise `ValueError`."""
    key = load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("no Ed25519 key")  # noqa: TRY004 - a wrong text, not a wrong type
    return key


def write_keys(folder: Path) -> tuple[Path, ...]:
    """Make the keys that a folder lacks, readable by their owner alone; return what was written.

    A missing public half is written again from the private one. Overwrites nothing else.
    """
    written = []
    if make_file(folder / DIGEST_KEY_FILE, lambda: secrets.token_bytes(DIGEST_KEY_BYTES)):
        written.append(folder / DIGEST_KEY_FILE)
    private, public = folder / SIGNING_KEY_FILE, folder / PUBLIC_KEY_FILE
    if make_file(private, lambda: SigningKey.generate().private_pem):
        written.append(private)
        public.unlink(missing_ok=True)
    if not public.exists():
        public.write_bytes(SigningKey.load(private).public_pem)
        written.append(public)
    return tuple(written)


def _public_key(path: Path) -> Ed25519PublicKey:
    try:
        return load_ed25519(path.read_bytes())
    except OSError as error:
        reason = reason_of(error)
        raise ConfigurationError(f"cannot read the public key `{path}`: {reason}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"`{path}` is no PEM file of an Ed25519 public key") from None


def _key_id(key: Ed25519PublicKey) -> str:
    return sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:_KEY_ID_CHARACTERS]
