"""The words of checkouts: credentials that are made for one session, and what became of them."""

from __future__ import annotations

import secrets
from base64 import b32encode
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pdp.errors import NotFoundError

_RANDOM_BYTES: Final = 17
_LENGTH: Final = 26
# What ends by itself is over so long after its end: another clock may differ.
MARGIN_SECONDS: Final = 30.0


class CredentialKind(StrEnum):
    """What is to be ended: what is handed out, kept for a session, or disconnected by a person."""

    LOGIN = "login"  # a role of a database, which must be dropped
    TOKEN = "token"  # noqa: S105 - no secret: an access token, which ends by itself
    KEPT = "kept"  # the same, which serves one session and stays in the broker
    CONSENT = "consent"  # the tokens of a person who disconnected: kept to be ended at their provider, for nothing else


class CheckoutState(StrEnum):
    """Where a checkout is. One that has ended is no longer stored."""

    BEGUN = "begun"  # a credential may have been made, and was not handed out yet
    OUT = "out"
    ENDING = "ending"  # it is to be ended now, and is tried until it is
    LASTING = "lasting"  # it cannot be ended, and is good until its end


class Outcome(StrEnum):
    """What became of a credential that was to be ended."""

    REVOKED = "revoked"  # it was ended, and that was seen
    GONE = "gone"  # it was not there any more, or its own end had come
    EXPIRES_AT = "expires_at"  # nobody can say that it was ended: it may be good until its own end
    FAILED = "failed"  # it could not be ended, and will be tried again


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A credential that is handed out, or about to be: for which call, until when, and when it is looked at again.

    `session_ids` are the session of the call and those above it: it ends with the first of them. Times are unix
    seconds; `ends_at` is 0 until it is handed out. `tries` counts how often it could not be ended, and `problem` says
    why, the last time. The tokens of a person belong to no call: these fields are empty, and where a refresh token has
    no end that is known, `ends_at` is when they should have ended.
    """

    id: str
    connection_id: str
    kind: CredentialKind
    token_id: str
    decision_id: str
    session_ids: tuple[str, ...]
    user: str
    agent: str
    action: str
    scopes: tuple[str, ...]
    begun_at: float
    ends_at: float = 0.0
    state: CheckoutState = CheckoutState.BEGUN
    next_at: float
    tries: int = 0
    problem: str = ""

    @property
    def is_login(self) -> bool:
        """Say whether it is a login."""
        return self.kind is CredentialKind.LOGIN

    @property
    def session_id(self) -> str:
        """Return the session of the call; empty where there is none."""
        return self.session_ids[0] if self.session_ids else ""

    @property
    def ends_itself(self) -> bool:
        """Say whether its own end comes, after which nothing is left to do: not for a login, or a refresh token."""
        if self.kind is CredentialKind.CONSENT:
            return self.ends_at > self.begun_at
        return not self.is_login

    @property
    def role(self) -> str:
        """Return the name of the role that is the login."""
        return f"pdp_{self.id}"

    def is_over(self, now_at: float, seconds: float) -> bool:
        """Say whether its own end has come for certain, also when a clock is wrong.

        `seconds` is how long it is there at least, by the clock that nobody sets.
        """
        if not self.ends_itself:
            return False
        life = self.ends_at - self.begun_at + MARGIN_SECONDS
        return now_at >= self.ends_at + MARGIN_SECONDS and seconds >= life

    def is_overdue(self, at: float) -> bool:
        """Say whether it should have ended before a time."""
        return 0 < self.ends_at < at


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many credentials may be out at once: of a session with those below it, of a user in a tenant, of a tenant."""

    session: int = 200
    user: int = 1000
    tenant: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the last look at the roles of a connection's database found: how many are ours and no checkout names.

    `problem` says why there was none; then `orphans` is 0.
    """

    connection_id: str
    at: float
    orphans: int
    problem: str = ""


class UnknownCheckoutError(NotFoundError):
    """There is no such checkout: it has ended, or never was."""


def due_at(ends_at: float, *, until: float, ends_itself: bool) -> float:
    """Return when a credential is to be looked at that is to be ended at `until`, at the latest."""
    if until < ends_at:
        return until
    return ends_at + (MARGIN_SECONDS if ends_itself else 0.0)


def new_checkout_id() -> str:
    """Return a new id of a checkout: `chk_` and 130 random bits."""
    return f"chk_{b32encode(secrets.token_bytes(_RANDOM_BYTES))[:_LENGTH].decode().lower()}"
