"""Security event tokens: what must be true of one before it is acted on, and which event it tells.

The rules are those of RFC 8417 and of section 4.1 of OpenID Shared Signals Framework 1.0. It forbids `exp` and `sub`,
so that no other token of the same issuer is taken for one. The events are those of CAEP 1.0 and RISC 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from pdp.identity.keysets import KeySet
from pdp.identity.tokens import Kind, TokenRefusedError, TokenRules, signed_claims, text_claim, time_claim
from pdp.signals.subjects import COMPLEX

# The largest that a transmitter may send.
MOST_BYTES: Final = 16 * 1024
TYPES: Final = frozenset({"secevent+jwt", "application/secevent+jwt"})
SECURITY_EVENT: Final = Kind(
    name="a security event token",
    foreign_claims=("exp", "sub", "nonce", "at_hash", "c_hash", "s_hash", "auth_time", "azp"),
    kind_claims={},
)
# By how many seconds the transmitter's clock may be ahead of ours.
LEEWAY_SECONDS: Final = 300.0

_BASE: Final = "https://schemas.openid.net/secevent"
_CREDENTIAL_CHANGE: Final = f"{_BASE}/caep/event-type/credential-change"
_ACTED_ON: Final[Mapping[str, str]] = {
    f"{_BASE}/caep/event-type/session-revoked": "session-revoked",
    _CREDENTIAL_CHANGE: "credential-change",
    f"{_BASE}/risc/event-type/account-disabled": "account-disabled",
    f"{_BASE}/risc/event-type/account-purged": "account-purged",
    f"{_BASE}/risc/event-type/sessions-revoked": "sessions-revoked",
}
_VERIFICATION: Final = f"{_BASE}/ssf/event-type/verification"
# Of a credential. A new one takes nothing from anybody.
_CHANGES: Final = {"create": False, "revoke": True, "update": True, "delete": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityEvent:
    """What a token tells. `name` is one word; `subject` is None where nothing here is to be done about it."""

    token_id: str
    issued_at: float
    name: str
    subject: Mapping[str, Any] | None = field(repr=False)


class SubjectPlace(StrEnum):
    """Where a transmitter says whom its event is about."""

    TOKEN = "token"  # noqa: S105 - no secret: in `sub_id`, as the final specifications want it
    EVENT = "event"  # in `subject` of the event, as drafts had it


def read_event(
    token: str, keys: KeySet, rules: TokenRules, *, now: float, place: SubjectPlace = SubjectPlace.TOKEN
) -> SecurityEvent:
    """Return what a token tells. Raise `TokenRefusedError`; nothing but the header is read before the signature."""
    claims, _ = signed_claims(token, keys, rules)
    token_id, issued_at = text_claim(claims, "jti"), time_claim(claims, "iat")
    if issued_at > now + rules.leeway_seconds:
        raise TokenRefusedError("it is from the future (`iat`)")
    events = claims.get("events")
    if not isinstance(events, dict) or not events or not all(isinstance(one, dict) for one in events.values()):
        raise TokenRefusedError("its `events` is not an object of objects, or empty")
    uri = _acted_on(events)
    return SecurityEvent(
        token_id=token_id,
        issued_at=issued_at,
        name=_ACTED_ON[uri] if uri else "verification" if _VERIFICATION in events else "other",
        subject=_subject_of(claims, events[uri], place) if uri else None,
    )


def _subject_of(claims: Mapping[str, Any], event: Mapping[str, Any], place: SubjectPlace) -> Mapping[str, Any]:
    """Return whom an event is about. It is looked for in one place: two could name two persons."""
    where, name = (claims, "sub_id") if place is SubjectPlace.TOKEN else (event, "subject")
    subject = where.get(name)
    if not isinstance(subject, dict):
        raise TokenRefusedError(f"it has no `{name}`")
    # Drafts had no word for several identifiers of one subject.
    return subject if name == "sub_id" or "format" in subject else {**subject, "format": COMPLEX}


def _acted_on(events: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the first event of a token that ends authority; empty without one."""
    for uri in _ACTED_ON:
        if uri not in events:
            continue
        if uri != _CREDENTIAL_CHANGE:
            return uri
        change = events[uri].get("change_type")
        if not isinstance(change, str) or change not in _CHANGES:
            raise TokenRefusedError("its `change_type` is missing or unknown")
        if _CHANGES[change]:
            return uri
    return ""
