"""Verify call tokens, for tool servers and whatever else stands in front of one.

    verifier = Verifier(issuer="pdp", audience="https://git.example", keys=PublishedKeys(fetch), uses=MemoryUses())
    claims = verifier.verify(token, server="git", tool="git_commit", arguments=parsed, presenter=presenter)

What passes is to be executed as it was given here: canonicalise the arguments that the tool gets, not the bytes that
the network brought.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Final, Protocol

from pdp.calltokens.canonical import arguments_digest
from pdp.calltokens.claims import MOST_SECONDS, CallClaims, Presenter
from pdp.calltokens.keys import PublicCallKey, claims_by
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.uses import Uses

# By how many seconds two clocks may differ.
SKEW_SECONDS: Final = 5.0
_KEEP_SECONDS: Final = 300.0
_PAUSE_SECONDS: Final = 10.0

# Raises `CallTokenRefusedError` unless the PDP says that the token still counts.
LiveCheck = Callable[[str, CallClaims], None]


class Keys(Protocol):
    """Where a verifier finds the key that a token names."""

    def key(self, key_id: str) -> PublicCallKey:
        """Return a key. Raise `CallTokenRefusedError` when there is none, or when that cannot be told."""
        ...


class PublishedKeys:
    """The keys that a PDP publishes, kept for five minutes. Safe for threads.

    `fetch` returns the keys by their ids, such as `keys_of` of a JSON Web Key Set; what it raises is a refusal. For a
    key that is not among them it is called again, but not within ten seconds of the last time.
    """

    def __init__(
        self, fetch: Callable[[], Mapping[str, PublicCallKey]], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._lock = Lock()
        self._keys: Mapping[str, PublicCallKey] = {}
        self._asked_at = float("-inf")
        self._read_at = float("-inf")

    def key(self, key_id: str) -> PublicCallKey:
        """Return the published key with an id."""
        with self._lock:
            now = self._monotonic()
            old = now - self._read_at >= _KEEP_SECONDS
            if (old or key_id not in self._keys) and now - self._asked_at >= _PAUSE_SECONDS:
                self._asked_at = now
                self._read(now)
            if now - self._read_at >= _KEEP_SECONDS:
                raise CallTokenRefusedError(Reason.UNAVAILABLE, "the published keys cannot be read")
            try:
                return self._keys[key_id]
            except KeyError:
                raise CallTokenRefusedError(Reason.UNKNOWN_KEY, "signed by a key that is not published") from None

    def _read(self, now: float) -> None:
        try:
            self._keys, self._read_at = self._fetch(), now
        except Exception:  # noqa: BLE001 - whatever a foreign function raises, the keys stay as they are until they are old
            return


class Verifier:
    """Verifies the call tokens for one audience. Safe for threads.

    Without a `live` check a token counts until its end, at most a minute, even if its session was revoked meanwhile.
    `wall` returns unix seconds.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        keys: Keys,
        uses: Uses,
        live: LiveCheck | None = None,
        skew_seconds: float = SKEW_SECONDS,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if not issuer or not audience:
            raise ValueError("`issuer` and `audience` must not be empty")
        self._issuer, self._audience = issuer, audience
        self._keys, self._uses, self._live = keys, uses, live
        self._skew = skew_seconds
        self._wall = wall

    def verify(
        self,
        token: str,
        *,
        server: str,
        tool: str,
        arguments: bytes | dict[str, Any],
        presenter: Presenter | None = None,
    ) -> CallClaims:
        """Return what a token states, and use it up; a call may then be made exactly once.

        `presenter` is who presented it: from the certificate of the connection, or from a proof of possession that the
        caller of this method has checked; `Presenter()` for a process on the same machine, over a Unix socket, and None
        when that is unknown. Raise `CallTokenRefusedError`; then the call must not be made.
        """
        claims = self._presented(token, presenter)
        if (claims.server, claims.tool) != (server, tool):
            raise CallTokenRefusedError(Reason.TOOL, "for another tool")
        if arguments_digest(arguments, claims.salt) != claims.arguments_digest:
            raise CallTokenRefusedError(Reason.ARGUMENTS, "for other arguments")
        return self._used_up(token, claims)

    def verify_behind(self, token: str, *, server: str, presenter: Presenter | None) -> CallClaims:
        """Do what `verify` does for what a tool server calls, and not its agent: it never sees tool and arguments.

        The tool server, to whose certificate or key the token is bound, has checked them by a token of its own.
        """
        claims = self._presented(token, presenter)
        if claims.server != server:
            raise CallTokenRefusedError(Reason.TOOL, "for another tool server")
        return self._used_up(token, claims)

    def _presented(self, token: str, presenter: Presenter | None) -> CallClaims:
        # The order matters: nothing is looked up before the signature, and nothing is used up by what is refused.
        claims = claims_by(token, self._keys.key)
        self._require_addressed(claims)
        self._require_now(claims)
        require_presenter(claims, presenter)
        return claims

    def _used_up(self, token: str, claims: CallClaims) -> CallClaims:
        if self._live is not None:
            _asked(self._live, token, claims)
        self._uses.use(claims, now=self._wall(), skew=self._skew)
        return claims

    def _require_addressed(self, claims: CallClaims) -> None:
        if claims.issuer != self._issuer:
            raise CallTokenRefusedError(Reason.ISSUER, "of another issuer")
        if claims.audience != self._audience:
            raise CallTokenRefusedError(Reason.AUDIENCE, "for another audience")

    def _require_now(self, claims: CallClaims) -> None:
        now = self._wall()
        if not 0 < claims.expires_at - claims.issued_at <= MOST_SECONDS:
            raise CallTokenRefusedError(Reason.TIME, f"its life is not between 1 and {MOST_SECONDS} seconds")
        if now >= claims.expires_at + self._skew:
            raise CallTokenRefusedError(Reason.TIME, "over")
        if now < claims.issued_at - self._skew:
            raise CallTokenRefusedError(Reason.TIME, "from the future: the clocks differ")


def require_presenter(claims: CallClaims, presenter: Presenter | None) -> None:
    """Raise unless the presenter is the one to which the token is bound."""
    bound = claims.presenter
    if presenter is None or (bound is None and presenter != Presenter()):
        raise CallTokenRefusedError(Reason.PRESENTER, "nobody is known to present it")
    if bound is None:
        return
    same = presenter.certificate == bound.certificate if bound.certificate else presenter.key == bound.key
    if not same:
        raise CallTokenRefusedError(Reason.PRESENTER, "bound to another certificate or key")


def _asked(live: LiveCheck, token: str, claims: CallClaims) -> None:
    try:
        live(token, claims)
    except CallTokenRefusedError:
        raise
    except Exception:  # noqa: BLE001 - whatever a foreign function raises is a refusal
        raise CallTokenRefusedError(Reason.UNAVAILABLE, "the live check does not answer") from None
