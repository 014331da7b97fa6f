"""The keys of call tokens: Ed25519, as JSON Web Keys (RFC 8037), each named by its thumbprint (RFC 7638)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pdp.calltokens.claims import (
    ALGORITHM,
    MOST_TOKEN_BYTES,
    TYPE,
    CallClaims,
    decoded,
    encoded,
    object_of,
    read,
    refused,
    written,
)
from pdp.calltokens.refusals import CallTokenRefusedError, Reason

_KEY_BYTES: Final = 32
_PARTS: Final = 3
# Of public keys, what is made of each; more than a deployment has workers.
_MOST_KNOWN: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicCallKey:
    """The public half of a key; `content` is its 32 bytes."""

    content: bytes

    @property
    def id(self) -> str:
        """Return the thumbprint, which tokens name as `kid`."""
        return _thumbprint_of(self.content)

    @property
    def jwk(self) -> dict[str, str]:
        """Return the key as a JSON Web Key."""
        named = {"kid": self.id, "alg": ALGORITHM, "use": "sig"}
        return {"kty": "OKP", "crv": "Ed25519", "x": encoded(self.content), **named}

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Say whether a signature of a message is by this key."""
        try:
            _verifying(self.content).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class CallKey:
    """A key that signs call tokens. It is made in memory, and never leaves it."""

    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate, repr=False)
    public: PublicCallKey = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "public", PublicCallKey(content=self.private.public_key().public_bytes_raw()))

    def signed(self, claims: CallClaims) -> str:
        """Return a call token. Raise `CallTokenRefusedError` when it would be too long."""
        header = {"alg": ALGORITHM, "typ": TYPE, "kid": self.public.id}
        head = encoded(json.dumps(header, separators=(",", ":")).encode())
        message = f"{head}.{encoded(written(claims))}"
        token = f"{message}.{encoded(self.private.sign(message.encode()))}"
        if len(token) > MOST_TOKEN_BYTES:
            raise refused(f"the token would be longer than {MOST_TOKEN_BYTES} bytes")
        return token


def key_set(keys: Mapping[str, PublicCallKey]) -> bytes:
    """Write keys by their ids as a JSON Web Key Set."""
    return json.dumps({"keys": [key.jwk for key in keys.values()]}, separators=(",", ":")).encode()


def keys_of(text: bytes) -> dict[str, PublicCallKey]:
    """Read a JSON Web Key Set; keys of other kinds are left out. Raise `CallTokenRefusedError` for what is none."""
    listed = object_of(text).get("keys")
    if not isinstance(listed, list):
        raise refused("not a JSON Web Key Set")
    found = (_key(one) for one in listed)
    return {key.id: key for key in found if key is not None}


def key_named_by(token: str) -> str:
    """Return the `kid` of a token, whose signature is still to be checked."""
    return _Parts.of(token).key_id


def token_id_of(token: str) -> str:
    """Return the `jti` of a token, whose signature is still to be checked."""
    found = object_of(_Parts.of(token).content).get("jti")
    if not isinstance(found, str):
        raise refused("no `jti`")
    return found


def claims_by(token: str, key_of: Callable[[str], PublicCallKey]) -> CallClaims:
    """Return what a token states, once its form and its signature are checked by the key with the id that it names."""
    parts = _Parts.of(token)
    return _claims(parts, key_of(parts.key_id))


def claims_of(token: str, key: PublicCallKey) -> CallClaims:
    """Return what a token states, once its form and its signature by this key are checked."""
    return _claims(_Parts.of(token), key)


def _claims(parts: _Parts, key: PublicCallKey) -> CallClaims:
    if parts.key_id != key.id or not key.signed(parts.message, parts.signature):
        raise CallTokenRefusedError(Reason.SIGNATURE, "the signature is not by the named key")
    return read(parts.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    key_id: str
    message: bytes
    content: bytes
    signature: bytes

    @classmethod
    def of(cls, token: str) -> Self:
        """Take a token apart: its length first, then a header of exactly the members that ours has."""
        if len(token) > MOST_TOKEN_BYTES:
            raise refused(f"longer than {MOST_TOKEN_BYTES} bytes")
        parts = token.split(".")
        if len(parts) != _PARTS:
            raise refused("not three parts")
        header = object_of(decoded(parts[0]))
        if set(header) != {"alg", "typ", "kid"} or not isinstance(header["kid"], str):
            raise refused("the header holds something else than `alg`, `typ` and `kid`")
        if header["alg"] != ALGORITHM or header["typ"] != TYPE:
            raise refused(f"not a `{TYPE}` signed by `{ALGORITHM}`")
        return cls(
            key_id=header["kid"],
            message=f"{parts[0]}.{parts[1]}".encode(),
            content=decoded(parts[1]),
            signature=decoded(parts[2]),
        )


@lru_cache(_MOST_KNOWN)
def _thumbprint_of(content: bytes) -> str:
    members = {"crv": "Ed25519", "kty": "OKP", "x": encoded(content)}
    return encoded(sha256(json.dumps(members, separators=(",", ":")).encode()).digest())


@lru_cache(_MOST_KNOWN)
def _verifying(content: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(content)


def _key(said: object) -> PublicCallKey | None:
    if not isinstance(said, dict) or (said.get("kty"), said.get("crv")) != ("OKP", "Ed25519"):
        return None
    content = decoded(said["x"]) if isinstance(said.get("x"), str) else b""
    if len(content) != _KEY_BYTES:
        raise refused("a key is not of Ed25519")
    return PublicCallKey(content=content)
