"""The key of the values in a tree of sessions: made of the handle of its root, and sealed for each session below.

Stores hold neither the key nor a handle, so what they hold of values says nothing by itself.
"""

from __future__ import annotations

import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pdp.errors import StoreUnavailableError
from pdp.model import Session

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_OF_THE_TREE: Final = b"pdp: the values in a tree of sessions"
_SEAL: Final = b"pdp: the seal of the key of a tree"


def key_of(session: Session, handle: str) -> bytes:
    """Return the key of the tree that a session with this secret handle is in.

    Empty for a session below another one that an earlier release has opened. Raise `StoreUnavailableError` when the
    sealed key is damaged.
    """
    if not session.parent_id:
        return _derived(handle, _OF_THE_TREE)
    if not session.sealed_key:
        return b""
    nonce, sealed = session.sealed_key[:_NONCE_BYTES], session.sealed_key[_NONCE_BYTES:]
    try:
        return AESGCM(_derived(handle, _SEAL)).decrypt(nonce, sealed, session.id.encode())
    except (InvalidTag, ValueError):
        raise StoreUnavailableError("the sealed key of a stored session is damaged") from None


def sealed_for(session_id: str, handle: str, key: bytes) -> bytes:
    """Seal the key of a tree under the handle of a new session in it; the seal of no key is empty."""
    if not key:
        return b""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(_derived(handle, _SEAL)).encrypt(nonce, key, session_id.encode())


def _derived(handle: str, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=purpose).derive(handle.encode())
