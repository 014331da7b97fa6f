"""Call tokens and the arguments that they are for: refused with a reason, or all that the rules ask for is true.

The data holds a header, claims and arguments, each behind a NUL; the first two are signed here with a good key, so that
what stands behind the signature is read too. Data that begins with `=` is a token as it stands, and with `{"keys"` a
set of keys.
"""

from __future__ import annotations

import json

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pdp.calltokens.canonical import arguments_digest, canonical, parse
from pdp.calltokens.claims import ALGORITHM, TYPE, CallClaims, Presenter, encoded, written
from pdp.calltokens.keys import CallKey, PublicCallKey, keys_of
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.uses import MemoryUses
from pdp.calltokens.verifying import Verifier

WORDS = (
    *('"alg":"Ed25519"', '"alg":"none"', '"typ":"pdp-call+jwt"', '"typ":"at+jwt"', '"kid":"', '"crit":', '"jwk":'),
    *('"iss":"i"', '"aud":"a"', '"aud":["a","b"]', '"exp":1015', '"iat":1000', '"act":{"sub":', '"cnf":{"jkt":'),
    *('"x5t#S256":', '"anc":[]', '"res":["T","r"]', '"args":"sha256:', '"salt":', "9007199254740993", "1e2", "\x00"),
)
_NOW = 1001.0
# The same in each process: the corpus names it.
_KEY = CallKey(private=Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
_PRESENTER = Presenter(key="k" * 43)
_ARGUMENTS = b'{"a":[1,2.5,"\xc3\xa9"]}'
_SALT = bytes(16)
_CLAIMS = written(
    CallClaims(
        issuer="i",
        audience="a",
        id="j" * 43,
        issued_at=1000,
        expires_at=1015,
        decision_id="dec_1",
        session_id="ses_1",
        session_epoch=1,
        ancestor_ids=(),
        user="u",
        agent="g",
        tenant="t",
        environment="",
        server="s",
        tool="t",
        definition_digest="sha256:" + "d" * 64,
        arguments_digest=arguments_digest(_ARGUMENTS, _SALT),
        salt=_SALT,
        resource_type="T",
        resource_id="r",
        bundle_version="b",
        presenter=_PRESENTER,
    )
)
_HEADER = json.dumps({"alg": ALGORITHM, "typ": TYPE, "kid": _KEY.public.id}).encode()
SEEDS = (
    _HEADER + b"\0" + _CLAIMS + b"\0" + _ARGUMENTS,
    _HEADER + b"\0" + _CLAIMS.replace(b'"a"', b'["a","b"]') + b"\0{}",
    b'{"alg":"none"}\0{"iss":"i"}\0{"a":1e400}',
    b"=e30.e30.",
    json.dumps({"keys": [_KEY.public.jwk]}).encode(),
    b'\0\0{"a":9007199254740993,"b":0.1,"c":"\\ud800","d":-0.0,"e":1e-7}',
)


class _Keys:
    def key(self, key_id: str) -> PublicCallKey:
        if key_id != _KEY.public.id:
            raise CallTokenRefusedError(Reason.UNKNOWN_KEY, "not published")
        return _KEY.public


def run(data: bytes) -> None:
    """Verify a token for some arguments, or read a set of keys."""
    if data.startswith(b'{"keys"'):
        _read_keys(data)
        return
    header, _, rest = data.partition(b"\0")
    claims, _, arguments = rest.partition(b"\0")
    _canonical(arguments)
    if data.startswith(b"="):
        token = data[1:].decode("latin-1")
    else:
        message = f"{encoded(header)}.{encoded(claims)}"
        token = f"{message}.{encoded(_KEY.private.sign(message.encode()))}"
    verifier = Verifier(issuer="i", audience="a", keys=_Keys(), uses=MemoryUses(wall=lambda: 0.0), wall=lambda: _NOW)
    try:
        found = verifier.verify(token, server="s", tool="t", arguments=arguments, presenter=_PRESENTER)
    except CallTokenRefusedError as error:
        assert str(error).isprintable(), "a reason that is not one printable line"
        return
    head, said = json.loads(header), json.loads(claims)
    assert {"alg": ALGORITHM, "typ": TYPE, "kid": _KEY.public.id} == head
    assert ("i", "a", "s", "t") == (said["iss"], said["aud"], said["srv"], said["tool"])
    assert said["iat"] <= _NOW + 5
    assert said["exp"] > _NOW - 5
    assert found.presenter == _PRESENTER
    assert arguments_digest(arguments, found.salt) == said["args"]


def _canonical(arguments: bytes) -> None:
    """Hold the canonical form against the library of the server."""
    try:
        value = parse(arguments)
        text = canonical(value)
    except CallTokenRefusedError:
        return
    assert rfc8785.dumps(value) == text, "another canonical form"
    # A large double is written as an integer.
    assert canonical(json.loads(text, parse_int=float)) == text, "a canonical form that is not one"


def _read_keys(data: bytes) -> None:
    try:
        keys = keys_of(data)
    except CallTokenRefusedError as error:
        assert str(error).isprintable(), "a message that is not one printable line"
        return
    assert all(key.id == name for name, key in keys.items())
