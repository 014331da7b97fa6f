"""Sign for a client who it is: JSON Web Tokens by a private key, in the place of a secret that is sent (RFC 7523)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pdp.broker.words import Secret, TokenRefusedError
from pdp.calltokens.claims import encoded

_LEAST_BITS: Final = 2048
_HALF_BYTES: Final = 32
_NO_KEY: Final = "the secret is no private key in PEM, without a password, of RSA (2048 bits or more) or P-256"


def signed(key: Secret, claims: Mapping[str, Any]) -> str:
    """Return a JSON Web Token, signed by RS256 or ES256 as the key is. Raise `TokenRefusedError` for another key."""
    algorithm, sign = _signer(key.reveal())
    parts = ({"alg": algorithm, "typ": "JWT"}, claims)
    text = ".".join(encoded(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return f"{text}.{encoded(sign(text.encode()))}"


def require_key(pem: bytes) -> None:
    """Raise `TokenRefusedError` for what is no key that signs here."""
    _signer(pem)


def _signer(pem: bytes) -> tuple[str, Callable[[bytes], bytes]]:
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        # What it says could quote the key.
        raise TokenRefusedError(_NO_KEY) from None
    if isinstance(key, RSAPrivateKey) and key.key_size >= _LEAST_BITS:
        return "RS256", lambda text: key.sign(text, PKCS1v15(), SHA256())
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return "ES256", lambda text: _joined(key.sign(text, ECDSA(SHA256())))
    raise TokenRefusedError(_NO_KEY)


def _joined(signature: bytes) -> bytes:
    """Return the two numbers of a signature, one after the other (RFC 7518, section 3.4)."""
    return b"".join(one.to_bytes(_HALF_BYTES, "big") for one in decode_dss_signature(signature))
