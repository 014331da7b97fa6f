"""JSON Web Tokens and the sets of keys that verify them: refused with a reason, or all that the rules ask for is true.

The data holds a header and, after a NUL, a payload; both are signed here with a good key, so that what stands behind
the signature is read too. Data that begins with `=` is a token as it stands, and with `{"keys"` a set of keys.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from joserfc.jwk import OKPKey
from joserfc.jws import JWSRegistry

from pdp.errors import ConfigurationError
from pdp.identity.keysets import read_keys
from pdp.identity.tokens import TokenRefusedError, TokenRules, verify

WORDS = (
    *('"alg":"Ed25519"', '"alg":"none"', '"typ":"at+jwt"', '"kid":"k"', '"crit":', '"jwk":', '"b64":false', '"zip":'),
    *(
        '"iss":"i"',
        '"aud":"a"',
        '"aud":["a","b"]',
        '"sub":"s"',
        '"exp":2000',
        '"iat":1000',
        '"nbf":',
        '"act":',
        '"cnf":',
    ),
    *('"nonce":', '"at_hash":', '"kty":"OKP"', '"crv":"Ed25519"', '"x":"', '"use":"sig"', '"d":"', "1e9", "\x00"),
)


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode("ascii").rstrip("=")


_PRIVATE = OKPKey.import_key(
    {
        "kty": "OKP",
        "crv": "Ed25519",
        "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }
)
# The test key of RFC 8037.
_PUBLIC: dict[str, Any] = {**_PRIVATE.as_dict(private=False), "kid": "k", "use": "sig", "alg": "Ed25519"}
_KEYS = read_keys("keys", json.dumps({"keys": [_PUBLIC]}).encode())
RULES = TokenRules(
    issuer="i",
    audience="a",
    algorithms=frozenset({"Ed25519"}),
    types=frozenset({"at+jwt"}),
    leeway_seconds=30.0,
    longest_seconds=86400.0,
)
HEADER = b'{"alg":"Ed25519","typ":"at+jwt","kid":"k"}'
SEEDS = (
    HEADER + b'\0{"iss":"i","aud":"a","sub":"s","exp":2000,"iat":1000}',
    HEADER + b'\0{"iss":"i","aud":["a","b"],"sub":"s","exp":2e3,"iat":1000.5,"nbf":1001,"jti":"j","act":{"sub":"t"}}',
    b'{"alg":"none","typ":"JWT"}\0{"iss":"i"}',
    b"=e30.e30.",
    b'{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}',
    b'{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"r","alg":"RS256"},{"kty":"EC","crv":"P-256","x":"","y":""}]}',
)


def run(data: bytes) -> None:
    """Read a token or a set of keys."""
    if data.startswith(b'{"keys"'):
        _read_keys(data)
        return
    if data.startswith(b"="):
        token = data[1:].decode("latin-1")
    else:
        header, _, payload = data.partition(b"\0")
        signed = f"{_text(header)}.{_text(payload)}"
        algorithm: Any = JWSRegistry.algorithms["Ed25519"]
        token = f"{signed}.{_text(algorithm.sign(signed.encode('ascii'), _PRIVATE))}"
    try:
        found = verify(token, _KEYS, RULES)
    except TokenRefusedError as error:
        assert str(error).isprintable(), "a reason that is not one printable line"
        return
    header, payload = (base64.urlsafe_b64decode(part + "==") for part in token.split(".")[:2])
    head, claims = json.loads(header), json.loads(payload)
    audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    assert ("Ed25519", "at+jwt", "k", "i") == (head["alg"], head["typ"].lower(), head["kid"], claims["iss"])
    assert "a" in audience
    assert found.subject == claims["sub"]
    assert 0 < found.ends_at - found.begins_at <= RULES.longest_seconds + RULES.leeway_seconds
    if not found.no_person:
        assert claims["auth_time"] > 0, "a person without a sign of one"
        assert "act" not in claims
        assert found.subject not in (claims.get("client_id"), claims.get("azp"))
    assert found.authenticated_at <= claims["iat"] + RULES.leeway_seconds


def _read_keys(data: bytes) -> None:
    try:
        keys = read_keys("keys", data)
    except ConfigurationError as error:
        assert str(error).isprintable(), "a message that is not one printable line"
        return
    assert keys
    assert all(key.algorithms for key in keys.values())
