"""Tokens that are forged or wrong, each with the reason for which it must be refused.

After the attacks on JSON Web Tokens that are known: RFC 8725, CVE-2015-9235 (algorithm confusion), CVE-2018-0114
(embedded key), CVE-2022-21449 (empty signature values), CVE-2022-29217, CVE-2024-54150, and the mistakes of issuers.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey, OKPKey, RSAKey

from tests.machinery.credentials.issuer import ISSUER, NOW, SUBJECT, Issuer, decoded, encoded, good_claims

UNSIGNED = encoded(b'{"alg": "none", "typ": "at+jwt", "kid": "ES256"}')

Make = Callable[[Issuer], str]
Row = tuple[Make, str]

SIGNATURE = "its signature is wrong"
ALGORITHM = "its algorithm is not allowed"
KIND = "it is not an access token by its `typ`"
PARTS = "it is not three parts of base64url"
CANONICAL = "it is not canonical base64url"
UNKNOWN_KEY = "its key is not known"
NO_KEY = "it names no key (`kid`)"
OTHER_KEY = "its key is not for its algorithm"
ANOTHER_ISSUER = "it is from another issuer"
ANOTHER_AUDIENCE = "it is for another audience"
NO_CALLER = "no caller has its subject"
HEADER = "its header is refused: "
PAYLOAD = "its payload is refused: "
EARLY = "it is not valid yet"
LATE = "it has expired"


def _header(**parameters: Any) -> Make:
    return lambda issuer: issuer.token(header=parameters)


def _claims(**claims: Any) -> Make:
    return lambda issuer: issuer.token(**claims)


def _without(name: str) -> Make:
    return lambda issuer: issuer.token(without=(name,))


def _raw_header(text: bytes) -> Make:
    return lambda issuer: issuer.sign(text, json.dumps(good_claims()).encode())


def _raw_payload(text: bytes) -> Make:
    return lambda issuer: issuer.sign(b'{"typ": "at+jwt", "alg": "ES256", "kid": "ES256"}', text)


def _added_claim(text: str) -> Make:
    """Return a token whose payload ends with more JSON text, as no JSON library would write it."""
    return _raw_payload(json.dumps(good_claims())[:-1].encode() + f", {text}}}".encode())


def _changed(change: Callable[[str, str, str], str], algorithm: str = "ES256") -> Make:
    """Return a good token whose parts were changed afterwards."""
    return lambda issuer: change(*issuer.token(algorithm).split("."))


def _with_signature(change: Callable[[bytes], bytes], algorithm: str = "ES256") -> Make:
    return _changed(lambda h, p, s: f"{h}.{p}.{encoded(change(decoded(s)))}", algorithm)


def _hmac(algorithm: str, secret: Callable[[Issuer], bytes]) -> Make:
    """Return a token that is signed with a public key as if it were a shared secret."""

    def make(issuer: Issuer) -> str:
        header = json.dumps({"typ": "at+jwt", "alg": algorithm, "kid": "RS256"}).encode()
        text = f"{encoded(header)}.{encoded(json.dumps(good_claims()).encode())}"
        digest = getattr(hashlib, algorithm.replace("HS", "sha"))
        return f"{text}.{encoded(hmac.new(secret(issuer), text.encode(), digest).digest())}"

    return make


def _pem(issuer: Issuer) -> bytes:
    return issuer.keys["RS256"].as_pem(private=False)


def _der(issuer: Issuer) -> bytes:
    return issuer.keys["RS256"].public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _as_der(signature: bytes) -> bytes:
    half = len(signature) // 2
    return encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))


def _spelled_otherwise(token: str) -> str:
    header, payload, signature = token.split(".")
    return f"{_spare_bit(header)}.{payload}.{signature}"


def _other_text_signed(issuer: Issuer, token: str) -> str:
    header, payload, _ = token.split(".")
    return f"{header}.{payload}.{issuer.sign(b'{}', decoded(payload)).split('.')[2]}"


def _spare_bit(part: str) -> str:
    """Return another spelling of the same bytes: the last letter has bits that mean nothing."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spare = {2: 16, 3: 4}[len(part) % 4]
    place = letters.index(part[-1])
    return part[:-1] + letters[place // spare * spare + (place + 1) % spare]


def _attacker(**parameters: Callable[[ECKey], Any]) -> Make:
    """Return a token that is signed with a key of the attacker's, and brings this key along."""

    def make(issuer: Issuer) -> str:
        key = ECKey.generate_key("P-256")
        return issuer.token(header={name: value(key) for name, value in parameters.items()}, key=key)

    return make


def _other_claims(part: str, **claims: Any) -> str:
    return encoded(json.dumps(json.loads(decoded(part)) | claims).encode())


_ED_ORDER = 2**252 + 27742317777372353535851937790883648493


def _same_point(signature: bytes) -> bytes:
    """Return an Ed25519 signature with another S that leads to the same point."""
    return signature[:32] + (int.from_bytes(signature[32:], "little") + _ED_ORDER).to_bytes(32, "little")


STRUCTURE: Mapping[str, Row] = {
    "one dot alone": (lambda _: ".", PARTS),
    "two dots alone": (lambda _: "..", PARTS),
    "two parts": (_changed(lambda h, p, _: f"{h}.{p}"), PARTS),
    "four parts": (_changed(lambda h, p, s: f"{h}.{p}.{s}.{s}"), PARTS),
    "five parts, as if encrypted": (_changed(lambda h, p, s: f"{h}.{p}.{s}.{p}.{s}"), PARTS),
    "no header": (_changed(lambda _, p, s: f".{p}.{s}"), PARTS),
    "no payload, as if detached": (_changed(lambda h, _, s: f"{h}..{s}"), PARTS),
    "a dot before": (_changed(lambda h, p, s: f".{h}.{p}.{s}"), PARTS),
    "a dot after": (_changed(lambda h, p, s: f"{h}.{p}.{s}."), PARTS),
    "padding in the payload": (_changed(lambda h, p, s: f"{h}.{p}=.{s}"), PARTS),
    "padding in the signature": (_changed(lambda h, p, s: f"{h}.{p}.{s}=="), PARTS),
    "letters of plain base64": (_changed(lambda h, p, s: f"{h}.{p}.{s[:-4]}ab+/"), PARTS),
    "a percent sign": (_changed(lambda h, p, s: f"{h}.{p}.{s}%3d"), PARTS),
    "a second token after a comma": (_changed(lambda h, p, s: f"{h}.{p}.{s},{h}.{p}.{s}"), PARTS),
    "the JSON form": (
        _changed(lambda h, p, s: f'{{"protected":"{h}","payload":"{p}","signature":"{s}","iss":"a.b"}}'),
        PARTS,
    ),
    "another spelling of the header": (
        lambda issuer: _spelled_otherwise(issuer.sign(b'{"typ":"at+jwt","alg":"ES256","kid":"ES256"}', b"{}")),
        CANONICAL,
    ),
    "another spelling of the signature": (_changed(lambda h, p, s: f"{h}.{p}.{_spare_bit(s)}"), CANONICAL),
    "a length that no bytes have": (_changed(lambda h, p, s: f"{h}.{p}.{s}AAA"), CANONICAL),
    "longer than any token": (_claims(note="x" * 4700), "it is longer than 6144 characters"),
}

HEADERS: Mapping[str, Row] = {
    "no header parameters": (_raw_header(b"{}"), ALGORITHM),
    "a header that is a list": (_raw_header(b"[]"), f"{HEADER}not a JSON object"),
    "a header that is a text": (_raw_header(b'"ES256"'), f"{HEADER}not a JSON object"),
    "a header that is nothing": (_raw_header(b"null"), f"{HEADER}not a JSON object"),
    "a header that is no JSON": (_raw_header(b"ES256"), f"{HEADER}not JSON"),
    "a header with a comma too many": (_raw_header(b'{"alg": "ES256",}'), f"{HEADER}not JSON"),
    "a header with more behind it": (_raw_header(b'{"alg": "ES256"} {"alg": "none"}'), f"{HEADER}not JSON"),
    "a header with a mark before it": (_raw_header(b'\xef\xbb\xbf{"alg": "ES256"}'), HEADER),
    "a header in UTF-16": (_raw_header('{"alg": "ES256"}'.encode("utf-16")), f"{HEADER}not UTF-8"),
    "a header with broken UTF-8": (_raw_header(b'{"alg": "ES256", "kid": "\xff"}'), f"{HEADER}not UTF-8"),
    "a header with NaN": (_raw_header(b'{"alg": "ES256", "x": NaN}'), f"{HEADER}NaN"),
    "a header too deep": (_raw_header(b'{"x": ' + b"[" * 99 + b"]" * 99 + b"}"), f"{HEADER}deeper than"),
    "two algorithms": (
        _raw_header(b'{"typ": "at+jwt", "alg": "none", "kid": "ES256", "alg": "ES256"}'),
        f"{HEADER}a key appears twice",
    ),
    "two algorithms, one escaped": (
        _raw_header(b'{"typ": "at+jwt", "\\u0061lg": "none", "kid": "ES256", "alg": "ES256"}'),
        f"{HEADER}a key appears twice",
    ),
    "two keys": (
        _raw_header(b'{"typ": "at+jwt", "alg": "ES256", "kid": "RS256", "kid": "ES256"}'),
        f"{HEADER}a key appears twice",
    ),
    "crit": (_header(crit=["exp"]), "its header holds `crit`"),
    "crit, empty": (_header(crit=[]), "its header holds `crit`"),
    "crit, nothing": (_header(crit=None), "its header holds `crit`"),
    "crit and b64": (_header(crit=["b64"], b64=False), "its header holds `crit`"),
    "b64": (_header(b64=False), "its header holds `b64`"),
    "embedded key": (_attacker(jwk=lambda key: key.as_dict(private=False)), "its header holds `jwk`"),
    "embedded key, private": (_attacker(jwk=lambda key: key.as_dict(private=True)), "its header holds `jwk`"),
    "embedded key, empty": (_header(jwk={}), "its header holds `jwk`"),
    "keys elsewhere": (_attacker(jku=lambda _: "https://attacker.example/keys"), "its header holds `jku`"),
    "keys of the issuer by URL": (_header(jku=f"{ISSUER}/keys"), "its header holds `jku`"),
    "certificate elsewhere": (_attacker(x5u=lambda _: "https://attacker.example/c"), "its header holds `x5u`"),
    "embedded certificate": (_attacker(x5c=lambda _: ["MIIB"]), "its header holds `x5c`"),
    "compressed": (_header(zip="DEF"), "its header holds `zip`"),
    "encrypted": (_header(enc="A128GCM"), "its header holds `enc`"),
    "algorithm none, no signature": (
        _changed(lambda _, p, __: f"{UNSIGNED}.{p}."),
        f"{ALGORITHM}: `none`",
    ),
    "algorithm none, with a signature": (_header(alg="none"), f"{ALGORITHM}: `none`"),
    "algorithm None": (_header(alg="None"), f"{ALGORITHM}: `None`"),
    "algorithm NONE": (_header(alg="NONE"), f"{ALGORITHM}: `NONE`"),
    "algorithm nOnE": (_header(alg="nOnE"), f"{ALGORITHM}: `nOnE`"),
    "no algorithm": (_without("alg"), f"{ALGORITHM}: none"),
    "algorithm null": (_header(alg=None), f"{ALGORITHM}: none"),
    "algorithm empty": (_header(alg=""), f"{ALGORITHM}: something else"),
    "algorithm a number": (_header(alg=256), f"{ALGORITHM}: something else"),
    "algorithm a list": (_header(alg=["ES256"]), f"{ALGORITHM}: something else"),
    "algorithm an object": (_header(alg={"ES256": 1}), f"{ALGORITHM}: something else"),
    "algorithm in lower case": (_header(alg="es256"), f"{ALGORITHM}: `es256`"),
    "algorithm with a blank": (_header(alg="ES256 "), f"{ALGORITHM}: something else"),
    "algorithm with a line end": (_header(alg="ES256\nforged log line"), f"{ALGORITHM}: something else"),
    "algorithm on a curve of its own": (_header(alg="ES256K"), f"{ALGORITHM}: `ES256K`"),
    "algorithm with SHA-1": (_header(alg="RS1"), f"{ALGORITHM}: `RS1`"),
    "algorithm of encryption": (_header(alg="RSA-OAEP"), f"{ALGORITHM}: `RSA-OAEP`"),
    "algorithm of passwords": (_header(alg="PBES2-HS256+A128KW", p2c=2**31), f"{ALGORITHM}: `PBES2-HS256+A128KW`"),
    "algorithm that is known and not allowed": (lambda issuer: issuer.token("ES384"), f"{ALGORITHM}: `ES384`"),
    "confusion: HS256 with the public key in PEM": (_hmac("HS256", _pem), f"{ALGORITHM}: `HS256`"),
    "confusion: HS256 with the public key in DER": (_hmac("HS256", _der), f"{ALGORITHM}: `HS256`"),
    "confusion: HS256 with the JWKS": (_hmac("HS256", lambda issuer: issuer.jwks()), f"{ALGORITHM}: `HS256`"),
    "confusion: HS256 with nothing": (_hmac("HS256", lambda _: b""), f"{ALGORITHM}: `HS256`"),
    "confusion: HS384": (_hmac("HS384", _pem), f"{ALGORITHM}: `HS384`"),
    "confusion: HS512": (_hmac("HS512", _pem), f"{ALGORITHM}: `HS512`"),
    "confusion: RS256 with a key of a curve": (_header(alg="RS256"), f"{OTHER_KEY}: `RS256`"),
    "confusion: PS256 with the key of RS256": (
        lambda issuer: issuer.token("PS256", header={"kid": "RS256"}, key=issuer.keys["RS256"]),
        f"{OTHER_KEY}: `PS256`",
    ),
    "confusion: RS256 with the key of PS256": (
        lambda issuer: issuer.token("RS256", header={"kid": "PS256"}, key=issuer.keys["PS256"]),
        f"{OTHER_KEY}: `RS256`",
    ),
    "confusion: ES256 with an RSA key": (_header(kid="RS256"), f"{OTHER_KEY}: `ES256`"),
    "confusion: ES256 with a key of P-384": (_header(kid="ES384"), f"{OTHER_KEY}: `ES256`"),
    "confusion: ES256 with an Ed25519 key": (_header(kid="Ed25519"), f"{OTHER_KEY}: `ES256`"),
    "no type": (_without("typ"), f"{KIND}: none"),
    "type of any token": (_header(typ="JWT"), f"{KIND}: `JWT`"),
    "type null": (_header(typ=None), f"{KIND}: none"),
    "type a list": (_header(typ=["at+jwt"]), f"{KIND}: something else"),
    "type of a proof of possession": (_header(typ="dpop+jwt"), f"{KIND}: `dpop+jwt`"),
    "type of a logout": (_header(typ="logout+jwt"), f"{KIND}: `logout+jwt`"),
    "type of a security event": (_header(typ="secevent+jwt"), f"{KIND}: `secevent+jwt`"),
    "type of a request": (_header(typ="oauth-authz-req+jwt"), f"{KIND}: `oauth-authz-req+jwt`"),
    "no key id": (_without("kid"), NO_KEY),
    "key id null": (_header(kid=None), NO_KEY),
    "key id a number": (_header(kid=0), NO_KEY),
    "key id a list": (_header(kid=["ES256"]), NO_KEY),
    "key id unknown": (_header(kid="another"), f"{UNKNOWN_KEY}: `another`"),
    "key id empty": (_header(kid=""), f"{UNKNOWN_KEY}: something else"),
    "key id in lower case": (_header(kid="es256"), f"{UNKNOWN_KEY}: `es256`"),
    "key id a path": (_header(kid="../../../../dev/null"), f"{UNKNOWN_KEY}: `../../../../dev/null`"),
    "key id a query": (_header(kid="x' UNION SELECT 'key"), f"{UNKNOWN_KEY}: something else"),
    "key id a command": (_header(kid="x|/bin/sh"), f"{UNKNOWN_KEY}: something else"),
    "key id of an encryption key": (_header(kid="for-encryption"), f"{UNKNOWN_KEY}: `for-encryption`"),
}

SIGNATURES: Mapping[str, Row] = {
    "no signature": (_changed(lambda h, p, _: f"{h}.{p}."), SIGNATURE),
    "first bit changed": (_with_signature(lambda s: bytes([s[0] ^ 128]) + s[1:]), SIGNATURE),
    "last bit changed": (_with_signature(lambda s: s[:-1] + bytes([s[-1] ^ 1])), SIGNATURE),
    "a byte less": (_with_signature(lambda s: s[:-1]), SIGNATURE),
    "a byte more": (_with_signature(lambda s: s + b"\0"), SIGNATURE),
    "a byte more before": (_with_signature(lambda s: b"\0" + s), SIGNATURE),
    "twice": (_with_signature(lambda s: s + s), SIGNATURE),
    "halves changed round": (_with_signature(lambda s: s[32:] + s[:32]), SIGNATURE),
    "zeros": (_with_signature(lambda _: bytes(64)), SIGNATURE),
    "ones": (_with_signature(lambda _: b"\xff" * 64), SIGNATURE),
    "r and s of one": (_with_signature(lambda _: (bytes(31) + b"\1") * 2), SIGNATURE),
    "in the form of X.509": (_with_signature(_as_der), SIGNATURE),
    "RSA: zeros": (_with_signature(lambda _: bytes(256), "RS256"), SIGNATURE),
    "RSA: one": (_with_signature(lambda s: bytes(len(s) - 1) + b"\1", "RS256"), SIGNATURE),
    "RSA: a byte less": (_with_signature(lambda s: s[1:], "RS256"), SIGNATURE),
    "RSA: PSS changed": (_with_signature(lambda s: s[:-1] + bytes([s[-1] ^ 1]), "PS256"), SIGNATURE),
    "RSA: with another digest": (
        lambda issuer: issuer.token("RS512", header={"alg": "RS256", "kid": "RS256"}, key=issuer.keys["RS256"]),
        SIGNATURE,
    ),
    "Ed25519: zeros": (_with_signature(lambda _: bytes(64), "Ed25519"), SIGNATURE),
    "Ed25519: another S for the same point": (_with_signature(_same_point, "Ed25519"), SIGNATURE),
    "Ed25519: a point of small order": (_with_signature(lambda _: b"\1" + bytes(63), "EdDSA"), SIGNATURE),
    "by another key": (lambda issuer: issuer.token(key=ECKey.generate_key("P-256")), SIGNATURE),
    "by another RSA key": (lambda issuer: issuer.token("RS256", key=RSAKey.generate_key(2048)), SIGNATURE),
    "by another Ed25519 key": (lambda issuer: issuer.token("Ed25519", key=OKPKey.generate_key("Ed25519")), SIGNATURE),
    "by another key of the issuer": (
        lambda issuer: issuer.token("Ed25519", header={"kid": "EdDSA", "alg": "EdDSA"}),
        SIGNATURE,
    ),
    "of another token": (
        lambda issuer: ".".join((*issuer.token().split(".")[:2], issuer.token(jti="other").split(".")[2])),
        SIGNATURE,
    ),
    "changed subject": (_changed(lambda h, p, s: f"{h}.{_other_claims(p, sub='root')}.{s}"), SIGNATURE),
    "changed end": (_changed(lambda h, p, s: f"{h}.{_other_claims(p, exp=2**40)}.{s}"), SIGNATURE),
    "changed audience": (_changed(lambda h, p, s: f"{h}.{_other_claims(p, aud='other')}.{s}"), SIGNATURE),
    "a claim more": (_changed(lambda h, p, s: f"{h}.{_other_claims(p, admin=True)}.{s}"), SIGNATURE),
    "a blank in the payload": (_changed(lambda h, p, s: f"{h}.{encoded(decoded(p) + b' ')}.{s}"), SIGNATURE),
    "a changed header": (_changed(lambda h, p, s: f"{_other_claims(h, note='x')}.{p}.{s}"), SIGNATURE),
    "of the payload alone": (lambda issuer: _other_text_signed(issuer, issuer.token()), SIGNATURE),
}


CLAIMS: Mapping[str, Row] = {
    "a payload that is a list": (_raw_payload(b"[]"), f"{PAYLOAD}not a JSON object"),
    "a payload that is a text": (_raw_payload(b'"alice"'), f"{PAYLOAD}not a JSON object"),
    "a payload that is a number": (_raw_payload(b"1"), f"{PAYLOAD}not a JSON object"),
    "a payload that is no JSON": (_raw_payload(b"alice"), f"{PAYLOAD}not JSON"),
    "a payload with broken UTF-8": (_raw_payload(b'{"sub": "\xff"}'), f"{PAYLOAD}not UTF-8"),
    "a payload with half a character": (_added_claim('"x": "\\ud800"'), f"{PAYLOAD}a string holds a lone surrogate"),
    "a payload with NaN": (_added_claim('"x": NaN'), f"{PAYLOAD}NaN"),
    "a payload with Infinity": (_added_claim('"x": -Infinity'), f"{PAYLOAD}NaN"),
    "a payload too deep": (_added_claim('"x": ' + "[" * 99 + "]" * 99), f"{PAYLOAD}deeper than"),
    "a payload that names an entity": (_added_claim('"x": {"__entity": {}}'), f"{PAYLOAD}a key is reserved"),
    "two subjects": (_added_claim('"sub": "root"'), f"{PAYLOAD}a key appears twice"),
    "the same subject twice": (_added_claim(f'"sub": "{SUBJECT}"'), f"{PAYLOAD}a key appears twice"),
    "two subjects, one escaped": (_added_claim('"\\u0073ub": "root"'), f"{PAYLOAD}a key appears twice"),
    "two issuers": (_added_claim('"iss": "https://attacker.example"'), f"{PAYLOAD}a key appears twice"),
    "two audiences in two claims": (_added_claim('"aud": "other"'), f"{PAYLOAD}a key appears twice"),
    "two ends": (_added_claim('"exp": 9999999999'), f"{PAYLOAD}a key appears twice"),
    "two actors within": (_added_claim('"act": {"sub": "a", "sub": "b"}'), f"{PAYLOAD}a key appears twice"),
    "no issuer": (_without("iss"), f"{ANOTHER_ISSUER}: none"),
    "issuer null": (_claims(iss=None), f"{ANOTHER_ISSUER}: none"),
    "issuer a list": (_claims(iss=[ISSUER]), f"{ANOTHER_ISSUER}: something else"),
    "another issuer": (_claims(iss="https://attacker.example"), f"{ANOTHER_ISSUER}: `https://attacker.example`"),
    "issuer with a slash more": (_claims(iss=f"{ISSUER}/"), ANOTHER_ISSUER),
    "issuer with more behind it": (_claims(iss=f"{ISSUER}.attacker.example"), ANOTHER_ISSUER),
    "issuer with less": (_claims(iss=ISSUER[:-1]), ANOTHER_ISSUER),
    "issuer in other letters": (_claims(iss=ISSUER.upper()), ANOTHER_ISSUER),
    "issuer without encryption": (_claims(iss=ISSUER.replace("https", "http")), ANOTHER_ISSUER),
    "issuer with a blank": (_claims(iss=f" {ISSUER}"), f"{ANOTHER_ISSUER}: something else"),
    "no audience": (_without("aud"), f"{ANOTHER_AUDIENCE}: none"),
    "audience null": (_claims(aud=None), f"{ANOTHER_AUDIENCE}: none"),
    "audience empty": (_claims(aud=""), ANOTHER_AUDIENCE),
    "audience an empty list": (_claims(aud=[]), ANOTHER_AUDIENCE),
    "another audience": (_claims(aud="api.example.org"), f"{ANOTHER_AUDIENCE}: `api.example.org`"),
    "other audiences": (_claims(aud=["api.example.org", "console"]), ANOTHER_AUDIENCE),
    "audience any": (_claims(aud="*"), ANOTHER_AUDIENCE),
    "audience with more behind it": (_claims(aud="pdp.example.org.attacker.example"), ANOTHER_AUDIENCE),
    "audience with less": (_claims(aud="pdp.example"), ANOTHER_AUDIENCE),
    "audience in other letters": (_claims(aud="PDP.example.org"), ANOTHER_AUDIENCE),
    "audience an object": (_claims(aud={"pdp.example.org": True}), ANOTHER_AUDIENCE),
    "audience a number": (_claims(aud=1), ANOTHER_AUDIENCE),
    "audience a list in a list": (_claims(aud=[["pdp.example.org"]]), ANOTHER_AUDIENCE),
    "audience a list with a number": (_claims(aud=["pdp.example.org", 1]), ANOTHER_AUDIENCE),
    "audiences in one text": (_claims(aud="pdp.example.org api.example.org"), ANOTHER_AUDIENCE),
    "ID token: nonce": (_claims(nonce="n"), "it is not an access token: it has `nonce`"),
    "ID token: at_hash": (_claims(at_hash="h"), "it is not an access token: it has `at_hash`"),
    "ID token: c_hash": (_claims(c_hash="h"), "it is not an access token: it has `c_hash`"),
    "ID token: s_hash": (_claims(s_hash="h"), "it is not an access token: it has `s_hash`"),
    "ID token: by the issuer's own word": (_claims(typ="ID"), "it is not an access token by its `typ`: `ID`"),
    "ID token: by another word": (_claims(token_use="id"), "it is not an access token by its `token_use`: `id`"),  # noqa: S106 - no password
    "refresh token": (_claims(typ="Refresh"), "it is not an access token by its `typ`: `Refresh`"),
    "offline token": (_claims(typ="Offline"), "it is not an access token by its `typ`: `Offline`"),
    "logout token": (
        _claims(events={"http://schemas.openid.net/event/backchannel-logout": {}}),
        "it is not an access token: it has `events`",
    ),
    "bound to a certificate": (_claims(cnf={"x5t#S256": "x"}), "it is bound to a key of its holder"),
    "bound to a key": (_claims(cnf={"jkt": "x"}), "it is bound to a key of its holder"),
    "no end": (_without("exp"), "its `exp` is missing or not a time"),
    "end null": (_claims(exp=None), "its `exp` is missing or not a time"),
    "end a text": (_claims(exp=str(int(NOW) + 600)), "its `exp` is missing or not a time"),
    "end true": (_claims(exp=True), "its `exp` is missing or not a time"),
    "end a list": (_claims(exp=[NOW + 600]), "its `exp` is missing or not a time"),
    "end negative": (_claims(exp=-1), "its `exp` is missing or not a time"),
    "end beyond all time": (_claims(exp=10**30), "its `exp` is missing or not a time"),
    "end with an exponent": (_added_claim('"nbf": 1e400'), "its `nbf` is missing or not a time"),
    "end in milliseconds": (_claims(exp=int(NOW + 600) * 1000), "its `exp` is missing or not a time"),
    "expired": (_claims(auth_time=int(NOW) - 600, iat=int(NOW) - 600, exp=int(NOW) - 1), LATE),
    "expires now": (_claims(exp=int(NOW)), LATE),
    "expired by a part of a second": (_claims(exp=NOW - 0.001), LATE),
    "no time of issue": (_without("iat"), "its `iat` is missing or not a time"),
    "time of issue a text": (_claims(iat="now"), "its `iat` is missing or not a time"),
    "issued in the future": (_claims(iat=int(NOW) + 31), EARLY),
    "issued after its end": (_claims(iat=int(NOW) + 700), "it ends before it begins"),
    "not before, in the future": (_claims(nbf=int(NOW) + 31), EARLY),
    "not before its end": (_claims(nbf=int(NOW) + 600), "it ends before it begins"),
    "not before a text": (_claims(nbf="0"), "its `nbf` is missing or not a time"),
    "not before null": (_claims(nbf=None), "its `nbf` is missing or not a time"),
    "not before false": (_claims(nbf=False), "its `nbf` is missing or not a time"),
    "for ever": (_claims(exp=int(NOW) + 86400), "it lives longer than 86400 seconds"),
    "no subject": (_without("sub"), "its `sub` is missing or not an id"),
    "subject null": (_claims(sub=None), "its `sub` is missing or not an id"),
    "subject empty": (_claims(sub=""), "its `sub` is missing or not an id"),
    "subject a number": (_claims(sub=1), "its `sub` is missing or not an id"),
    "subject a list": (_claims(sub=[SUBJECT]), "its `sub` is missing or not an id"),
    "subject too long": (_claims(sub="a" * 256), "its `sub` is missing or not an id"),
    "subject with a line end": (_claims(sub=f"{SUBJECT}\n"), "its `sub` is missing or not an id"),
    "subject with a NUL": (_claims(sub=f"{SUBJECT}\0"), "its `sub` is missing or not an id"),
    "unknown subject": (_claims(sub="mallory@example.org"), NO_CALLER),
    "subject in other letters": (_claims(sub=SUBJECT.upper()), NO_CALLER),
    "subject with a blank": (_claims(sub=f"{SUBJECT} "), NO_CALLER),
    "subject that looks the same": (_claims(sub=SUBJECT.replace("a", "а", 1)), NO_CALLER),  # noqa: RUF001 - on purpose
    "subject that is a caller's id": (_claims(sub="alice"), NO_CALLER),
    "subject that is a caller with a token": (_claims(sub="pep"), NO_CALLER),
    "subject that is a SPIFFE id": (_claims(sub="spiffe://example.org/gateway"), NO_CALLER),
    "token id a number": (_claims(jti=1), "its `jti` is missing or not an id"),
    "token id empty": (_claims(jti=""), "its `jti` is missing or not an id"),
    "token id null": (_claims(jti=None), "its `jti` is missing or not an id"),
    "token id too long": (_claims(jti="x" * 256), "its `jti` is missing or not an id"),
    "actor a text": (_claims(act="agent"), "its `act` is not an object"),
    "actor null": (_claims(act=None), "its `act` is not an object"),
    "actor false": (_claims(act=False), "its `act` is not an object"),
    "actor a list": (_claims(act=[]), "its `act` is not an object"),
    "authenticated after it was issued": (_claims(auth_time=int(NOW) - 60 + 31), "its `auth_time` is later than"),
    "authenticated at no time": (_claims(auth_time="now"), "its `auth_time` is missing or not a time"),
    "authenticated null": (_claims(auth_time=None), "its `auth_time` is missing or not a time"),
    "authenticated true": (_claims(auth_time=True), "its `auth_time` is missing or not a time"),
}

CORPUS: Mapping[str, Row] = {
    f"{part}: {name}": row
    for part, rows in {
        "structure": STRUCTURE,
        "header": HEADERS,
        "signature": SIGNATURES,
        "claims": CLAIMS,
    }.items()
    for name, row in rows.items()
}
