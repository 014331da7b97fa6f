"""What a token says about its holder, in the forms that issuers use: a person or a program, and the groups.

These forms occur in tokens of Keycloak, Entra ID, Auth0, Okta and Cognito. A program's token can look like a person's:
it has its own subject, a name, an e-mail address. So a person needs a positive sign, and these signs count against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Claims = Mapping[str, Any]

# Claims that name the client to which the token was issued: RFC 9068, OpenID Connect, Entra ID (version 1), Okta.
_CLIENT_CLAIMS = ("client_id", "azp", "appid", "cid")


def claim_at(claims: Claims, name: str) -> object:
    """Return the claim of this name, or else the one at its path, as in `realm_access.roles`.

    The name can be a URL with dots. Return None when there is no claim.
    """
    if name in claims:
        found: object = claims[name]
        return found
    inner: object = claims
    for part in name.split("."):
        inner = inner.get(part) if isinstance(inner, Mapping) else None
    return inner


def texts_at(claims: Claims, name: str) -> tuple[str, ...] | None:
    """Return the texts of a claim; () when it is absent, None when it holds anything but texts."""
    found = claim_at(claims, name)
    several = found if isinstance(found, list) else [] if found is None else [found]
    texts = tuple(one for one in several if isinstance(one, str))
    return texts if len(texts) == len(several) else None


def client_of(claims: Claims) -> str:
    """Return the client to which the token was issued; empty when no claim says it, or when two differ."""
    named = {claims[name] for name in _CLIENT_CLAIMS if isinstance(claims.get(name), str)}
    return named.pop() if len(named) == 1 else ""


def sign_of_program(claims: Claims) -> str:
    """Return the sign of a program, also of one that acts for a person; empty without a sign."""
    subject = claims["sub"]
    signs = (
        (subject in [claims.get(name) for name in _CLIENT_CLAIMS], "its subject is the client itself"),
        ("act" in claims, "another party acts for its subject (`act`)"),
        (claims.get("idtyp", "user") != "user", "it belongs to an application (`idtyp`)"),
        ("gty" in claims, "it was granted to a client (`gty`)"),
        (subject.endswith("@clients"), "its subject is a client (`@clients`)"),
        (
            str(claims.get("preferred_username")).startswith("service-account-"),
            "it belongs to a service account (`preferred_username`)",
        ),
    )
    return next((text for shown, text in signs if shown), "")


def is_sign(claims: Claims, wanted: str) -> bool:
    """Say whether a claim matches a setting. `NAME` must be `true`, `NAME=TEXT` must be or hold the text."""
    name, equals, text = wanted.rpartition("=")
    if not equals:
        return claim_at(claims, wanted) is True
    found = claim_at(claims, name)
    return found == text or (isinstance(found, list) and text in found)
