"""Whom a leak report is about: the connection of the secret, by its fingerprint or by its type."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pdp.foundation.files import make_file
from pdp.foundation.jsontext import keyed_digest
from pdp.foundation.ownership import read_own
from pdp.signals.words import Target, What

KEY_FILE: Final = "leaks.key"
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """A secret that somebody found, and the name of its form at the scanner. It is not kept."""

    secret: str = field(repr=False)
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakRule:
    """The connection of a tenant that a secret belongs to: one with a fingerprint, or all of a type."""

    tenant: str
    connection: str
    fingerprint: str = ""
    type: str = ""

    def target(self, leak: Leak, fingerprint: str) -> Target | None:
        """Return the connection; None when the secret is another one's."""
        by_type = bool(self.type) and self.type == leak.type
        if not by_type and not hmac.compare_digest(self.fingerprint.encode(), fingerprint.encode()):
            return None
        return Target(what=What.CONNECTION, tenant=self.tenant, id=self.connection)


def leaked(leaks: Iterable[Leak], rules: Iterable[LeakRule], key: bytes) -> tuple[Target, ...]:
    """Return all connections that leaks are about, sorted."""
    rows, found = tuple(rules), set[Target]()
    for leak in leaks:
        fingerprint = fingerprint_of(leak.secret, key)
        found |= {target for rule in rows if (target := rule.target(leak, fingerprint)) is not None}
    return tuple(sorted(found))


def fingerprint_of(secret: str, key: bytes) -> str:
    """Return what a secret is compared by. Without the key, a short secret cannot be found by trial."""
    return keyed_digest(key, secret)


def fingerprint_key(folder: Path) -> bytes:
    """Return the key of fingerprints in the folder of a receiver, and make it when there is none."""
    path = folder / KEY_FILE
    make_file(path, lambda: secrets.token_bytes(_KEY_BYTES))
    return read_own(path, "anyone could choose which connection a secret belongs to")
