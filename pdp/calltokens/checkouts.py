"""Open the credentials that a broker hands out: each is sealed to the key of one tool server, for one call token.

    key = RecipientKey.read(Path("checkout-key.pem").read_bytes())
    credential = key.opened(sealed, call_token)

The seal is HPKE (RFC 9180, base mode): X25519, HKDF-SHA256, AES-256-GCM, with the `jti` of the call token as `info`.
Everybody can seal to a public key, so that it was the broker is known by the connection over which it came.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from pdp.calltokens.claims import decoded, encoded
from pdp.calltokens.keys import token_id_of
from pdp.calltokens.refusals import CallTokenRefusedError, Reason

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MEMBERS: Final = ("id", "kind", "upstream", "secret", "ends_at", "user", "database")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a tool server is handed for one call: a login of a database, or an access token.

    `kind` is `login` or `token`, and `upstream` the one server that it is for. `secret` is the password or the token;
    `user` and `database` are empty for a token. It ends at `ends_at`, in unix seconds, or before, with its session.
    """

    id: str
    kind: str
    upstream: str
    secret: str = field(repr=False)
    ends_at: float
    user: str = ""
    database: str = ""

    @property
    def url(self) -> str:
        """Return the URL with which clients of PostgreSQL log in. It holds the password."""
        server = urlsplit(self.upstream).netloc
        user, secret, database = (quote(one, safe="") for one in (self.user, self.secret, self.database))
        return f"postgresql://{user}:{secret}@{server}/{database}"

    def sealed(self, public: str, token_id: str) -> bytes:
        """Seal the credential to the key of a tool server, for the call token with an id."""
        text = json.dumps({name: getattr(self, name) for name in _MEMBERS}).encode()
        return _SUITE.encrypt(text, _public(public), token_id.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientKey:
    """The key of a tool server, to which credentials are sealed. The rules of the broker name its public half."""

    private: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate, repr=False)

    @classmethod
    def read(cls, pem: bytes) -> Self:
        """Read a key in PEM (PKCS #8). Raise `ValueError` for anything else."""
        key = load_pem_private_key(pem, None)
        if not isinstance(key, X25519PrivateKey):
            raise ValueError("not an X25519 key")  # noqa: TRY004 - the text is wrong, not its type
        return cls(private=key)

    @property
    def pem(self) -> bytes:
        """Return the key in PEM, not encrypted."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def public(self) -> str:
        """Return the public half, as the rules of the broker name it."""
        return encoded(self.private.public_key().public_bytes_raw())

    def opened(self, sealed: bytes, token: str) -> Credential:
        """Open the credential that was handed out for a call token.

        Raise `CallTokenRefusedError` when it is sealed to another key, or for another call token, or was changed.
        """
        try:
            said: dict[str, Any] = json.loads(_SUITE.decrypt(sealed, self.private, token_id_of(token).encode()))
            return Credential(**{name: said[name] for name in _MEMBERS})
        except (InvalidTag, ValueError, KeyError):
            raise CallTokenRefusedError(Reason.MALFORMED, "the credential is not sealed for this call") from None


def is_public_key(text: str) -> bool:
    """Say whether a text is the public half of a key, as rules name it."""
    try:
        _public(text)
    except (ValueError, CallTokenRefusedError):
        return False
    return True


def _public(text: str) -> X25519PublicKey:
    return X25519PublicKey.from_public_bytes(decoded(text))
