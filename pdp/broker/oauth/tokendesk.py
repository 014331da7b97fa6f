"""Where access tokens are got and kept in memory while they are young: one thread asks, and the others wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pdp.broker.oauth.answers import Granted
from pdp.broker.words import Connection, Secret, TokenRefusedError, TokensUnavailableError
from pdp.clock import Clock, Deadline, Instant
from pdp.errors import UnavailableError

# Of a token's life, after which another one is got.
_YOUNG: Final = 0.7
# After a failure the provider is left alone: many calls could otherwise lock the client out, or wait in a row.
_PAUSE_SECONDS: Final = 5.0


class TokenDesk:
    """Keeps one token of one connection. Safe for threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Who holds it may ask, and change the rest.
        self._asking = threading.Lock()
        self._kept: _Kept | None = None
        self._failed: _Failed | None = None

    def token(self, connection: Connection, get: Callable[[], Granted]) -> Secret:
        """Return a token that is good, and `get` one when the present one is old.

        While another thread asks, or the provider does not answer, the present one is used until its end; one that was
        refused ends it. Raise what `get` raises; a failure of the provider is raised again for some seconds.
        """
        kept = self._kept_for(connection)
        if kept and self._asking.locked() and not kept.ends.passed(self._clock.now()):
            return kept.secret
        with self._asking:
            return self._fresh(connection, get)

    def is_waited_for(self) -> bool:
        """Say whether somebody asks for a token now, or nobody may for a moment."""
        failed = self._failed
        return self._asking.locked() or (failed is not None and not failed.pause.passed(self._clock.now()))

    def _fresh(self, connection: Connection, get: Callable[[], Granted]) -> Secret:
        """Return a young token, and get one unless another thread just did."""
        # In this order: the time that is compared is not before the token.
        kept, now = self._kept_for(connection), self._clock.now()
        if kept and not kept.old.passed(now):
            return kept.secret
        try:
            self._require_no_pause(connection, now)
            got = self._got(connection, get)
        except UnavailableError:
            # A refusal ends the present token, too: the client may have been shut out.
            if kept and not kept.ends.passed(self._clock.now()):
                return kept.secret
            raise
        self._kept = _Kept.since(now, connection, got)
        return self._kept.secret

    def _got(self, connection: Connection, get: Callable[[], Granted]) -> Granted:
        try:
            return get()
        except (TokenRefusedError, TokensUnavailableError) as error:
            pause = Deadline.after(self._clock.now(), _PAUSE_SECONDS)
            self._failed = _Failed(connection=connection, kind=type(error), problem=str(error), pause=pause)
            self._kept = None if isinstance(error, TokenRefusedError) else self._kept
            raise

    def _kept_for(self, connection: Connection) -> _Kept | None:
        """Return the token that was got for the connection as it is now."""
        kept = self._kept
        return kept if kept and kept.connection == connection else None

    def _require_no_pause(self, connection: Connection, now: Instant) -> None:
        """Raise the last problem while the provider is left alone."""
        failed = self._failed
        if failed and failed.connection == connection and not failed.pause.passed(now):
            raise failed.kind(failed.problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A token, for the connection as it was then: another secret, upstream or scope makes it useless."""

    connection: Connection
    secret: Secret
    old: Deadline
    ends: Deadline

    @classmethod
    def since(cls, asked: Instant, connection: Connection, got: Granted) -> _Kept:
        """Return a token whose life began when it was asked for, at the latest."""
        return cls(
            connection=connection,
            secret=Secret(got.secret.reveal(), version=connection.version),
            old=Deadline.after(asked, got.seconds * _YOUNG),
            ends=Deadline.after(asked, got.seconds),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failed:
    """Why there was no token, and until when nobody asks again."""

    connection: Connection
    kind: type[TokenRefusedError | TokensUnavailableError]
    problem: str
    pause: Deadline
