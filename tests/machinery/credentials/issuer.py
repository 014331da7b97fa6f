"""An issuer of the tests' own: it signs any JSON Web Token that a test wants, right or wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from pdp.testing.clock import FakeClock

ISSUER = "https://issuer.example.org/realm"
AUDIENCE = "pdp.example.org"
SUBJECT = "alice@example.org"
# When the clocks of the tests begin.
NOW = FakeClock().now().wall_at

Key = RSAKey | ECKey | OKPKey


class Issuer:
    """Has one key of each kind, whose `kid` is the name of the algorithm."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {
            "RS256": RSAKey.generate_key(2048),
            "PS256": RSAKey.generate_key(2048),
            "ES256": ECKey.generate_key("P-256"),
            "ES384": ECKey.generate_key("P-384"),
            "EdDSA": OKPKey.generate_key("Ed25519"),
            "Ed25519": OKPKey.generate_key("Ed25519"),
        }

    def jwks(self, *names: str, **more: Any) -> bytes:
        """Return the public keys of some names, by default all, as the issuer publishes them."""
        entries = [self.published(name) for name in names or self.keys]
        return json.dumps({"keys": entries, **more}).encode()

    def published(self, name: str) -> dict[str, Any]:
        """Return one public key as it is published."""
        public = dict(self.keys[name].as_dict(private=False))
        return public | {"kid": name, "alg": name, "use": "sig"}

    def token(
        self,
        algorithm: str = "ES256",
        *,
        header: Mapping[str, Any] | None = None,
        without: tuple[str, ...] = (),
        key: Key | None = None,
        **claims: Any,
    ) -> str:
        """Return a good token, with other header parameters and claims, and without some of either."""
        head = {"typ": "at+jwt", "alg": algorithm, "kid": algorithm, **(header or {})}
        body = good_claims() | claims
        return self.sign(
            json.dumps({name: value for name, value in head.items() if name not in without}).encode(),
            json.dumps({name: value for name, value in body.items() if name not in without}).encode(),
            algorithm,
            key,
        )

    def sign(self, header: bytes, payload: bytes, algorithm: str = "ES256", key: Key | None = None) -> str:
        """Return a token of any header and payload with a signature that is right for it."""
        text = f"{encoded(header)}.{encoded(payload)}"
        signature = JWSRegistry.algorithms[algorithm].sign(text.encode(), key or self.keys[algorithm])
        return f"{text}.{encoded(signature)}"


def good_claims() -> dict[str, Any]:
    """Return the claims of a token that is accepted."""
    return {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": SUBJECT,
        "iat": int(NOW) - 60,
        "exp": int(NOW) + 600,
        "auth_time": int(NOW) - 120,
        "jti": "token-1",
        "client_id": "console",
    }


def encoded(content: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def decoded(part: str) -> bytes:
    """Return what base64url without padding holds."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
