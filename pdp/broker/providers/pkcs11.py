"""Have a token of PKCS#11, such as a hardware security module, wrap the keys of secrets: its keys cannot be read."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Any, Final

import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, ObjectClass

from pdp.broker.providers import required_id
from pdp.broker.words import ProviderUnavailableError, SealBrokenError, UnknownKeyError
from pdp.errors import ConfigurationError
from pdp.foundation.ownership import read_secret, require_own

_BITS: Final = 256
_NONCE_BYTES: Final = 12
_MOST_BYTES: Final = 1024
_NEVER_LEAVES: Final = {
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.ENCRYPT: True,
    Attribute.DECRYPT: True,
}


class Pkcs11Provider:
    """A token, by its label, of the library `module`. One in a process, because a token has one log-in for each.

    After an error the log-in is made anew. Raise `ConfigurationError` when the library cannot be loaded.
    """

    def __init__(self, module: Path, *, token: str, pin_file: Path) -> None:
        self._token, self._pin_file, self._lock = token, pin_file, RLock()
        self._session: Any = None
        try:
            require_own(module, "anyone could choose what handles keys")
            self._library = pkcs11.lib(str(module))
        except (OSError, pkcs11.PKCS11Error):
            raise ConfigurationError(f"`{module}` is no library of PKCS#11") from None

    def create(self, kek_id: str) -> None:
        """Create a random key."""
        with self._opened() as session:
            session.generate_key(KeyType.AES, _BITS, label=required_id(kek_id), store=True, template=_NEVER_LEAVES)

    def wrap(self, kek_id: str, key: bytes, associated: bytes) -> bytes:
        """Return a key, sealed with its associated data."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        with self._key(kek_id) as own:
            return nonce + bytes(
                own.encrypt(key, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, associated))
            )

    def unwrap(self, kek_id: str, wrapped: bytes, associated: bytes) -> bytes:
        """Return a key that was wrapped."""
        nonce, sealed = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
        with self._key(kek_id) as own:
            try:
                return bytes(
                    own.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, associated))
                )
            except (pkcs11.GeneralError, pkcs11.EncryptedDataInvalid, pkcs11.EncryptedDataLenRange):
                raise SealBrokenError("the seal does not fit") from None

    def destroy(self, kek_id: str) -> None:
        """Destroy a key."""
        with suppress(UnknownKeyError), self._key(required_id(kek_id)) as own:
            own.destroy()

    def check(self) -> None:
        """Look whether the token takes the log-in."""
        with self._opened():
            pass

    def close(self) -> None:
        """Log out."""
        with self._lock:
            session, self._session = self._session, None
            # A session that the token has ended cannot be closed.
            with suppress(pkcs11.PKCS11Error):
                if session is not None:
                    session.close()

    @contextmanager
    def _key(self, kek_id: str) -> Iterator[Any]:
        with self._opened() as session:
            try:
                own = session.get_key(object_class=ObjectClass.SECRET_KEY, label=required_id(kek_id))
            except pkcs11.NoSuchKey:
                raise UnknownKeyError(f"the provider has no key `{kek_id}`") from None
            yield own

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Lend the session to one thread at a time."""
        with self._lock:
            try:
                if self._session is None:
                    self._session = self._library.get_token(token_label=self._token).open(rw=True, user_pin=self._pin())
                yield self._session
            except pkcs11.PKCS11Error as error:
                self.close()
                raise ProviderUnavailableError(
                    f"the token `{self._token}` does not answer: `{type(error).__name__}`"
                ) from None

    def _pin(self) -> str:
        return read_secret(self._pin_file, "anyone could choose the PIN", most=_MOST_BYTES).strip()
