"""The tokens of a person's connection, as they are sealed: together, with how long they are good for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Self

from pdp.broker.oauth.answers import Granted
from pdp.broker.words import MOST_SECRET_BYTES, NeedsPersonError, Secret
from pdp.clock import Deadline, Instant

# For a provider that gives a refresh token, and does not say how long the access token is good for.
_UNSAID_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPair:
    """An access token, and the refresh token by which another one is got, if there is one.

    The access token was asked for at `asked`, and is good for `seconds`; 0 means that it has no end that is known.
    After the `share` of its life another one is to be got.
    """

    access: Secret
    refresh: Secret | None
    asked: Instant
    seconds: float
    share: float

    @classmethod
    def of(cls, got: Granted, *, asked: Instant, share: float, former: Secret | None = None) -> Self:
        """Return the tokens that a provider granted. Without a new refresh token, the former one goes on."""
        return cls(access=got.secret, refresh=got.refresh or former, asked=asked, seconds=got.seconds, share=share)

    @classmethod
    def unpacked(cls, secret: Secret) -> Self:
        """Return the tokens of a secret."""
        said = json.loads(secret.reveal())
        refresh = said["refresh"]
        return cls(
            access=Secret(said["access"].encode(), version=secret.version),
            refresh=None if refresh is None else Secret(refresh.encode(), version=secret.version),
            asked=Instant(**said["asked"]),
            seconds=said["seconds"],
            share=said["share"],
        )

    def packed(self) -> bytes:
        """Return what is sealed. Raise `NeedsPersonError` for tokens that are too long to be kept."""
        said = {
            "access": self.access.reveal().decode(),
            "refresh": self.refresh.reveal().decode() if self.refresh else None,
            "asked": self.asked._asdict(),
            "seconds": self.seconds,
            "share": self.share,
        }
        packed = json.dumps(said).encode()
        if len(packed) > MOST_SECRET_BYTES:
            raise NeedsPersonError(f"it gives tokens of more than {MOST_SECRET_BYTES} bytes")
        return packed

    @property
    def ends(self) -> Deadline | None:
        """Return the end of the access token; None when it has none that is known."""
        return Deadline.after(self.asked, self.seconds) if self.seconds else None

    def is_good(self, now: Instant) -> bool:
        """Say whether the access token has not reached its end."""
        return self.ends is None or not self.ends.passed(now)

    def is_old(self, now: Instant) -> bool:
        """Say whether another access token is to be got."""
        if self.refresh is None:
            return not self.is_good(now)
        return Deadline.after(self.asked, (self.seconds or _UNSAID_SECONDS) * self.share).passed(now)
