"""How people are known to the console: log-ins in memory, which end when they are idle and at a fixed time."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from pdp.clock import Clock
from pdp.console.drafts import Draft
from pdp.v1.caller_pb2 import Caller

T = TypeVar("T")

# Of all people, and of one.
MOST_LOGINS, MOST_OF_ONE = 4096, 64
_MOST_DRAFTS = 16
_MOST_FENCES = 8
# A revocation can name many sessions.
_MOST_REVOKED = 1
_SECRET_BYTES = 32


class Recent(Generic[T]):
    """The last few values by name; the oldest goes when there are too many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[str, T] = OrderedDict()

    def keep(self, name: str, value: T) -> None:
        """Keep a value as the newest."""
        self._values[name] = value
        self._values.move_to_end(name)
        while len(self._values) > self._most:
            self._values.popitem(last=False)

    def get(self, name: str) -> T | None:
        """Return a value, or None when it is not kept."""
        return self._values.get(name)

    def take(self, name: str) -> T | None:
        """Return a value and forget it."""
        return self._values.pop(name, None)

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._values.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What the console presents to the server for a person. All texts are secrets.

    `access_token` is empty where the client has its own credential. `id_token` proves when the person logged in.
    `subject` is who the provider says they are; empty on one machine. `ends_at` is when the access token ends, on the
    wall clock, and 0.0 when that is unknown; `id_token_ends_at` the same of the ID token.
    """

    access_token: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    id_token: str = field(default="", repr=False)
    id_token_ends_at: float = 0.0
    subject: str = ""
    ends_at: float = 0.0

    def proof(self, now_at: float) -> str:
        """Return the ID token while it is good; empty after that."""
        return self.id_token if now_at < self.id_token_ends_at else ""


class Revoked(NamedTuple):
    """Which sessions a person has revoked, and what that has waited for."""

    session_ids: Sequence[str]
    waited: str


@dataclass(slots=True, kw_only=True)
class Login:
    """One person in one browser.

    `form_token` is in every form of theirs, so that no other site can send one. `caller` is what the server knows of
    the person. `drafts` hold what they chose of requests, for as long as they decide, `fences` what their last changes
    have waited for, and `revoked` what they revoked last.
    """

    caller: Caller
    credential: Credential
    form_token: str = field(repr=False)
    began_at: float
    used_at: float
    drafts: Recent[Draft] = field(default_factory=lambda: Recent(_MOST_DRAFTS))
    fences: Recent[str] = field(default_factory=lambda: Recent(_MOST_FENCES))
    revoked: Recent[Revoked] = field(default_factory=lambda: Recent(_MOST_REVOKED))
    streams: int = 0
    # When the person logged in because an approval wanted that, on the boot clock.
    proved_at: float = float("-inf")
    renewing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Logins:
    """All log-ins, at most `most`, and `each` of one person: the one that was idle longest goes first. For one thread.

    A log-in ends when it was not used for `idle_seconds`, and at the latest after `longest_seconds`. Its secret is in
    the browser's cookie alone; here is only a digest of it.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        idle_seconds: float,
        longest_seconds: float,
        most: int = MOST_LOGINS,
        each: int = MOST_OF_ONE,
    ) -> None:
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._longest_seconds = longest_seconds
        self._most, self._each = most, each
        self._by_digest: OrderedDict[bytes, Login] = OrderedDict()

    def begin(self, caller: Caller, credential: Credential, earlier: Login | None = None) -> str:
        """Begin a log-in, and return its secret. It takes over what the same person chose in an earlier one."""
        now_at, secret = self._clock.now().boot_at, secrets.token_urlsafe(_SECRET_BYTES)
        login = Login(
            caller=caller,
            credential=credential,
            form_token=secrets.token_urlsafe(_SECRET_BYTES),
            began_at=now_at,
            used_at=now_at,
        )
        if earlier is not None and earlier.credential.subject == credential.subject:
            login.drafts = earlier.drafts
        self._by_digest[digest_of(secret)] = login
        # In the order of their last use.
        own = [digest for digest, one in self._by_digest.items() if one.credential.subject == credential.subject]
        for digest in own[: -self._each]:
            del self._by_digest[digest]
        while len(self._by_digest) > self._most:
            self._by_digest.popitem(last=False)
        return secret

    def find(self, secret: str, *, used: bool) -> Login | None:
        """Return the log-in of a secret, or None when it is over. `used` says whether the person did something."""
        digest = digest_of(secret)
        login = self._by_digest.get(digest)
        if login is None:
            return None
        now_at = self._clock.now().boot_at
        idle, old = now_at - login.used_at, now_at - login.began_at
        if idle >= self._idle_seconds or old >= self._longest_seconds:
            del self._by_digest[digest]
            return None
        if used:
            login.used_at = now_at
            self._by_digest.move_to_end(digest)
        return login

    def end(self, secret: str) -> Login | None:
        """End a log-in, and return it."""
        return self._by_digest.pop(digest_of(secret), None)

    def __len__(self) -> int:
        return len(self._by_digest)


class PersonToken:
    """The token of the person whose request is being answered: `token=` of the client that asks for them."""

    def __init__(self) -> None:
        self._current: ContextVar[str] = ContextVar("person_token", default="")

    def __call__(self) -> str:
        """Return the token of this request. Raise `LookupError` without one: nothing is asked as nobody."""
        token = self._current.get()
        if not token:
            raise LookupError("nobody is logged in")
        return token

    def take(self, credential: Credential) -> None:
        """Ask for a person in the task that runs now."""
        self._current.set(credential.access_token)


def digest_of(secret: str) -> bytes:
    """Return what is kept of a secret in a cookie; a cookie can hold any bytes."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
