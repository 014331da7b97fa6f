"""The keys of the record: one signs checkpoints, one keys digests; both are made once for each deployment."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from pdp.errors import ConfigurationError, reason_of
from pdp.foundation.files import make_file
from pdp.foundation.keys import PrivateKey, PublicKey
from pdp.foundation.ownership import require_own

DIGEST_KEY_FILE = "record.key"
SIGNING_KEY_FILE = "record-signing.pem"
PUBLIC_KEY_FILE = "record-signing.pub.pem"

DIGEST_KEY_BYTES = 32
# The length in checkpoints. An id only selects one of the given keys.
_KEY_ID_DIGITS = 16


class SigningKey:
    """Signs checkpoints. `id` names the key."""

    def __init__(self, private: PrivateKey) -> None:
        self._private = private
        self.id = private.public.id(_KEY_ID_DIGITS)

    @classmethod
    def generate(cls) -> Self:
        """Make a new key."""
        return cls(PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key from a PEM file without a password. Raise `ConfigurationError`."""
        try:
            require_own(path, "anyone could sign records")
            return cls(PrivateKey.read(path.read_bytes()))
        except OSError as error:
            # `pdp init` makes only a key of the usual name, and only when there is none.
            ours = isinstance(error, FileNotFoundError) and path.name == SIGNING_KEY_FILE
            remedy = "; run `pdp init`" if ours else ""
            raise ConfigurationError(f"cannot read the signing key `{path}`: {reason_of(error)}{remedy}") from None
        except ValueError as error:
            raise ConfigurationError(f"the signing key `{path}` is {error}") from None

    @property
    def private_pem(self) -> bytes:
        """Return the private key, for a file that no other user can read."""
        return self._private.pem

    @property
    def public(self) -> PublicKey:
        """Return the public key, which verifies."""
        return self._private.public

    def sign(self, message: bytes) -> str:
        """Return the signature of a message in hex."""
        return self._private.sign(message).hex()


class PublicKeys:
    """The public keys that may have signed a record; more than one after a key was replaced."""

    def __init__(self, keys: Iterable[PublicKey]) -> None:
        self._keys: Mapping[str, PublicKey] = {key.id(_KEY_ID_DIGITS): key for key in keys}

    @classmethod
    def load(cls, paths: Iterable[Path]) -> Self:
        """Read PEM files of one or more public keys each. Raise `ConfigurationError`."""
        return cls([key for path in paths for key in _public_keys(path)])

    @classmethod
    def of(cls, *keys: SigningKey) -> Self:
        """Return the public keys of signing keys."""
        return cls([key.public for key in keys])

    def signed(self, key_id: str, message: bytes, signature: str) -> bool:
        """Say whether the key of this id signed the message; False for an unknown key too."""
        key = self._keys.get(key_id)
        try:
            raw = bytes.fromhex(signature)
        except ValueError:
            return False
        # Accept only the hex form that was written, not others of the same bytes: not one letter may change.
        return key is not None and key.signed(message, raw) and raw.hex() == signature

    def __contains__(self, key_id: object) -> bool:
        return key_id in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def __or__(self, other: PublicKeys) -> PublicKeys:
        """Return all keys of both."""
        return PublicKeys([*self._keys.values(), *other._keys.values()])


def write_keys(folder: Path) -> tuple[Path, ...]:
    """Create the keys that a folder lacks, readable by their owner alone. Return what was written.

    A missing public key is written again from the private one. Nothing else is overwritten.
    """
    written = []
    if make_file(folder / DIGEST_KEY_FILE, lambda: secrets.token_bytes(DIGEST_KEY_BYTES)):
        written.append(folder / DIGEST_KEY_FILE)
    private, public = folder / SIGNING_KEY_FILE, folder / PUBLIC_KEY_FILE
    if make_file(private, lambda: SigningKey.generate().private_pem):
        written.append(private)
        public.unlink(missing_ok=True)
    if not public.exists():
        public.write_bytes(SigningKey.load(private).public.pem)
        written.append(public)
    return tuple(written)


def _public_keys(path: Path) -> tuple[PublicKey, ...]:
    try:
        keys = PublicKey.read_all(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read the public key `{path}`: {reason_of(error)}") from None
    except ValueError:
        keys = ()
    if not keys:
        raise ConfigurationError(f"`{path}` is not a PEM file of an Ed25519 public key")
    return keys
