"""JSON Web Tokens: what must be true of a token before its content is believed.

The rules are those of RFC 7519, RFC 8725 (best practice) and RFC 9068 (access tokens).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from pdp.errors import InvalidJSONError
from pdp.foundation.jsontext import parse_object
from pdp.identity.claims import claim_at, client_of, is_sign, sign_of_program, texts_at
from pdp.identity.denied import web_token_digests
from pdp.identity.keysets import KeySet, VerifyingKey
from pdp.limits import USER_GROUP_CHARACTERS

# Larger tokens do not fit into the metadata of a call.
TOKEN_CHARACTERS = 6144

_THREE_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_NAME = re.compile(r"[A-Za-z0-9._:+/-]{1,64}")
# These bring keys along or change what the signature covers; a token that needs one of them is refused.
_REFUSED_PARAMETERS = ("crit", "jwk", "jku", "x5u", "x5c", "b64", "zip", "enc")
_LATEST = 2.0**40
_ID_CHARACTERS = 255


class TokenRefusedError(Exception):
    """A token is not accepted; the message says why, for the log and never for the caller, without secrets."""


class UnknownKeyError(TokenRefusedError):
    """A token names an unknown key, which may have been published since the keys were read."""


class WrongSignatureError(TokenRefusedError):
    """Another key than the one that it names has signed a token, or it was changed since."""


class ForeignIssuerError(TokenRefusedError):
    """A token has a good signature, and names another issuer."""


class ForeignAudienceError(TokenRefusedError):
    """A token is from the right issuer, for somebody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of token: claims that only other kinds have, and the claims in which some issuers name the kind.

    A token `for_its_client` has been issued to its audience, and its `azp` may name no other client.
    """

    name: str
    foreign_claims: tuple[str, ...]
    kind_claims: Mapping[str, str]
    for_its_client: bool = False


# Claims of other kinds only: of ID tokens, and of security events such as a logout.
ACCESS_TOKEN = Kind(
    name="an access token",
    foreign_claims=("nonce", "at_hash", "c_hash", "s_hash", "events"),
    kind_claims={"typ": "Bearer", "token_use": "access"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """What a token must say. `leeway_seconds` is how far the issuer's clock may be ahead of ours.

    `types` are the accepted values of the header's `typ`, in lower case; an empty one accepts its absence.
    `person_claim` names a claim that shows a person, besides `auth_time`; `groups_claim` holds the groups, and
    `id_claim` the id of a caller that is known by a group. `user_group_prefix` is what the groups of a person are
    called in the directory, before their name; empty where they are none there.
    """

    issuer: str
    audience: str
    algorithms: frozenset[str]
    types: frozenset[str]
    leeway_seconds: float
    longest_seconds: float
    person_claim: str = ""
    groups_claim: str = ""
    user_group_prefix: str = ""
    id_claim: str = "sub"
    kind: Kind = ACCESS_TOKEN
    most_characters: int = TOKEN_CHARACTERS


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """The content of a verified token. Times are unix seconds.

    `no_person` says why it does not count as a person's; it is empty when the token has a positive sign of a person and
    none of a program. `authenticated_at` is 0.0 when the token does not say when the person last authenticated
    (`auth_time`). `client` is the program that it was issued to, empty when that is not clear. `name` is the text of
    the claim with the id of a caller that is known by a group. `user_groups` are the groups of a person by their names
    in the directory, sorted; None where tokens do not say that. `digests` are those that can deny the token.
    """

    subject: str
    client: str
    name: str
    groups: tuple[str, ...]
    user_groups: tuple[str, ...] | None
    token_id: str
    begins_at: float
    ends_at: float
    no_person: str
    authenticated_at: float
    digests: frozenset[bytes] = field(repr=False)

    def require_time(self, now_at: float) -> None:
        """Raise `TokenRefusedError` before the token's start and from its end on."""
        if now_at < self.begins_at:
            raise TokenRefusedError("it is not valid yet (`nbf`, `iat`)")
        if now_at >= self.ends_at:
            raise TokenRefusedError("it has expired (`exp`)")


def verify(token: str, keys: KeySet, rules: TokenRules) -> VerifiedToken:
    """Return the content of a token, without checking its times. Raise `TokenRefusedError`.

    Only the header is read before the signature is verified.
    """
    claims, digests = signed_claims(token, keys, rules)
    return _read(claims, rules, digests)


def signed_claims(token: str, keys: KeySet, rules: TokenRules) -> tuple[dict[str, Any], frozenset[bytes]]:
    """Return the claims of a token of the right kind, issuer and audience, and the digests that can deny it.

    Raise `TokenRefusedError`. What the claims say besides is not looked at.
    """
    if len(token) > rules.most_characters:
        raise TokenRefusedError(f"it is longer than {rules.most_characters} characters")
    match = _THREE_PARTS.fullmatch(token)
    if match is None:
        raise TokenRefusedError("it is not three parts of base64url")
    header, payload, signature = (_decoded(part) for part in match.groups())
    name, key = _key_of(_object("header", header), keys, rules)
    signed = token.rpartition(".")[0].encode("ascii")
    try:
        genuine = JWSRegistry.algorithms[name].verify(signed, signature, key.public)
    except (JoseError, ValueError):
        genuine = False
    if not genuine:
        raise WrongSignatureError("its signature is wrong")
    claims = _object("payload", payload)
    _require_kind(claims, rules.kind)
    _require_parties(claims, rules)
    return claims, web_token_digests(token, name, signature)


def _decoded(part: str) -> bytes:
    content = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) if len(part) % 4 != 1 else b""
    # Otherwise the same token could be written in several ways.
    if base64.urlsafe_b64encode(content).decode("ascii").rstrip("=") != part:
        raise TokenRefusedError("it is not canonical base64url")
    return content


def _object(what: str, text: bytes) -> dict[str, Any]:
    try:
        return parse_object(text)
    except InvalidJSONError as error:
        raise TokenRefusedError(f"its {what} is refused: {error}") from None


def _key_of(header: dict[str, Any], keys: KeySet, rules: TokenRules) -> tuple[str, VerifyingKey]:
    for parameter in _REFUSED_PARAMETERS:
        if parameter in header:
            raise TokenRefusedError(f"its header holds `{parameter}`")
    name = header.get("alg")
    if not isinstance(name, str) or name not in rules.algorithms:
        raise TokenRefusedError(f"its algorithm is not allowed: {_shown(name)}")
    kind = header.get("typ", "")
    if not isinstance(kind, str) or kind.lower() not in rules.types:
        raise TokenRefusedError(f"it is not {rules.kind.name} by its `typ`: {_shown(kind or None)}")
    key_id = header.get("kid")
    if not isinstance(key_id, str):
        raise TokenRefusedError("it names no key (`kid`)")
    key = keys.get(key_id)
    if key is None:
        raise UnknownKeyError(f"its key is not known: {_shown(key_id)}")
    if name not in key.algorithms:
        raise TokenRefusedError(f"its key is not for its algorithm: {_shown(name)}")
    return name, key


def _require_kind(claims: dict[str, Any], kind: Kind) -> None:
    for name in kind.foreign_claims:
        if name in claims:
            raise TokenRefusedError(f"it is not {kind.name}: it has `{name}`")
    for name, right in kind.kind_claims.items():
        if claims.get(name, right) != right:
            raise TokenRefusedError(f"it is not {kind.name} by its `{name}`: {_shown(claims[name])}")
    if "cnf" in claims:
        raise TokenRefusedError("it is bound to a key of its holder (`cnf`), which this server does not support")


def _require_parties(claims: dict[str, Any], rules: TokenRules) -> None:
    if claims.get("iss") != rules.issuer:
        raise ForeignIssuerError(f"it is from another issuer: {_shown(claims.get('iss'))}")
    audience = claims.get("aud")
    several = audience if isinstance(audience, list) else [audience]
    if not all(isinstance(one, str) for one in several) or rules.audience not in several:
        raise ForeignAudienceError(f"it is for another audience: {_shown(audience)}")
    if rules.kind.for_its_client and claims.get("azp", rules.audience) != rules.audience:
        raise TokenRefusedError(f"it was issued to another client (`azp`): {_shown(claims['azp'])}")


def _read(claims: dict[str, Any], rules: TokenRules, digests: frozenset[bytes]) -> VerifiedToken:
    ends_at, issued_at = time_claim(claims, "exp"), time_claim(claims, "iat")
    begins_at = max(issued_at, time_claim(claims, "nbf") if "nbf" in claims else issued_at)
    if ends_at <= begins_at:
        raise TokenRefusedError("it ends before it begins")
    if ends_at - issued_at > rules.longest_seconds:
        raise TokenRefusedError(f"it lives longer than {rules.longest_seconds:g} seconds (`jwt.longest_seconds`)")
    authenticated_at = time_claim(claims, "auth_time") if "auth_time" in claims else 0.0
    if authenticated_at > issued_at + rules.leeway_seconds:
        raise TokenRefusedError("its `auth_time` is later than its `iat`")
    if "act" in claims and not isinstance(claims["act"], dict):
        raise TokenRefusedError("its `act` is not an object")
    subject, name = text_claim(claims, "sub"), claim_at(claims, rules.id_claim)
    groups = texts_at(claims, rules.groups_claim) if rules.groups_claim else ()
    if groups is None:
        raise TokenRefusedError(f"its `{rules.groups_claim}` is not a list of strings")
    no_person = _no_person(claims, authenticated_at, rules.person_claim)
    return VerifiedToken(
        subject=subject,
        client=client_of(claims),
        name=name if isinstance(name, str) else "",
        groups=groups,
        user_groups=_user_groups(() if no_person else groups, rules.user_group_prefix),
        token_id=text_claim(claims, "jti") if "jti" in claims else "",
        begins_at=begins_at - rules.leeway_seconds,
        ends_at=ends_at,
        no_person=no_person,
        authenticated_at=authenticated_at,
        digests=digests,
    )


def _user_groups(groups: tuple[str, ...], prefix: str) -> tuple[str, ...] | None:
    """Return the directory's names of groups; None without a prefix. The directory has none with a longer name."""
    if not prefix:
        return None
    names = {f"{prefix}{group}" for group in groups if group and group.isprintable()}
    return tuple(sorted(name for name in names if len(name) <= USER_GROUP_CHARACTERS))


def _no_person(claims: dict[str, Any], authenticated_at: float, person_claim: str) -> str:
    """Return why a token does not count as a person's; empty when it does."""
    # Some issuers write a time of 0 for a holder that never authenticated.
    if authenticated_at > 0 or (person_claim and is_sign(claims, person_claim)):
        return sign_of_program(claims)
    return sign_of_program(claims) or "nothing shows that it belongs to a person (`auth_time`, `jwt.person_claim`)"


def time_claim(claims: dict[str, Any], name: str) -> float:
    """Return a claim that is a time, in unix seconds. Raise `TokenRefusedError`."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= _LATEST:
        raise TokenRefusedError(f"its `{name}` is missing or not a time")
    return float(value)


def text_claim(claims: dict[str, Any], name: str) -> str:
    """Return a claim that is an id. Raise `TokenRefusedError`."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _ID_CHARACTERS or not value.isprintable():
        raise TokenRefusedError(f"its `{name}` is missing or not an id")
    return value


def _shown(value: object) -> str:
    """Return a value for the log, quoted only if it is a plain name: a caller can write anything."""
    if value is None:
        return "none"
    return f"`{value}`" if isinstance(value, str) and _NAME.fullmatch(value) else "something else"
