"""Whom a signal is about: the subject identifier of a token (RFC 9493), by the rules of the settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pdp.identity.tokens import TokenRefusedError
from pdp.signals.words import Target, What

# Per format, the members of an identifier: the one that is compared with the rule, or none, and the one that names.
FORMATS: Final[Mapping[str, tuple[str, str]]] = {
    "iss_sub": ("iss", "sub"),
    "email": ("", "email"),
    "opaque": ("", "id"),
}
# Of the Shared Signals Framework: several identifiers of one subject.
COMPLEX: Final = "complex"
_ID_CHARACTERS: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectRule:
    """How identifiers of one format name something of a tenant.

    `within` is the issuer of an `iss_sub`, and the domain of an `email` in lower case. With `names` only those listed
    are meant, and each is what it is listed with; None stands for an identifier that is the id itself. `strips_domain`
    takes the part of an address before the `@` for the id.
    """

    format: str
    about: What
    tenant: str
    within: str = ""
    names: Mapping[str, str] | None = None
    strips_domain: bool = False

    def target(self, subject: Mapping[str, Any]) -> Target | None:
        """Return what an identifier names; None when this rule is not about it. Raise `TokenRefusedError`."""
        if subject.get("format") != self.format:
            return None
        issuer, naming = FORMATS[self.format]
        text = _text(subject, naming)
        if issuer and _text(subject, issuer) != self.within:
            return None
        if self.format == "email":
            text = text.lower()
            local, at, domain = text.rpartition("@")
            if not local or not at:
                raise TokenRefusedError("its subject has no `email`")
            if domain != self.within:
                return None
            text = local if self.strips_domain and self.names is None else text
        named = text if self.names is None else self.names.get(text, "")
        return Target(what=self.about, tenant=self.tenant, id=named) if named else None


def targets_of(subject: Mapping[str, Any], rules: Iterable[SubjectRule]) -> tuple[Target, ...]:
    """Return all that an identifier names by the rules, sorted. Raise `TokenRefusedError` when it is malformed.

    Of a complex identifier its `user` counts: sessions and devices of elsewhere are not known here, so what it says of
    these narrows nothing.
    """
    if subject.get("format") == COMPLEX:
        user = subject.get("user")
        if not isinstance(user, dict) or user.get("format") == COMPLEX:
            return ()
        subject = user
    _text(subject, "format")
    return tuple(sorted({found for rule in rules if (found := rule.target(subject)) is not None}))


def _text(subject: Mapping[str, Any], name: str) -> str:
    value = subject.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _ID_CHARACTERS or not value.isprintable():
        raise TokenRefusedError(f"its subject has no `{name}`")
    return value
