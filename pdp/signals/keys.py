"""The keys of a transmitter: read again while it runs, and at once for a token that names a new one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Final

from pdp.clock import Clock
from pdp.errors import ConfigurationError
from pdp.foundation.ownership import read_own
from pdp.foundation.webfile import WebEndpoint, WebFile
from pdp.identity.keysets import JWKS_BYTES, KeySet, TrustedKeys
from pdp.identity.tokens import TokenRules, UnknownKeyError
from pdp.signals.events import LEEWAY_SECONDS, MOST_BYTES, SECURITY_EVENT, TYPES, SecurityEvent, read_event
from pdp.signals.settings import DANGER, Transmitter

# Keys that nobody has confirmed for a day no longer count: a transmitter may have withdrawn them.
_LONGEST_SECONDS: Final = 86400.0
# A transmitter waits for its answer while a new key is looked for.
_FETCH_SECONDS: Final = 5.0


class TransmitterKeys:
    """The keys of one transmitter, by which its tokens are read. Safe for threads."""

    def __init__(self, transmitter: Transmitter, clock: Clock) -> None:
        self._clock, self._lock = clock, Lock()
        self._rules = TokenRules(
            issuer=transmitter.issuer,
            audience=transmitter.audience,
            algorithms=transmitter.algorithms,
            types=TYPES,
            leeway_seconds=LEEWAY_SECONDS,
            longest_seconds=0.0,
            kind=SECURITY_EVENT,
            most_characters=MOST_BYTES,
        )
        read, name, self.close = _source(transmitter)
        self._keys = TrustedKeys(read, name=name, clock=clock, longest_seconds=_LONGEST_SECONDS)

    def load(self) -> None:
        """Read the keys for the first time. Raise `ConfigurationError` when there is no usable key."""
        self._keys.load()

    def refresh(self) -> None:
        """Read the keys again, and keep the present ones when that fails. Never raises."""
        with self._lock:
            self._keys.refresh()

    def current(self) -> KeySet:
        """Return the keys. Raise `UnavailableError` while there are none."""
        return self._keys.current()

    def read(self, token: str) -> SecurityEvent:
        """Return what a token tells. Raise `TokenRefusedError`, and `UnavailableError` while there are no keys.

        For an unknown key the keys are read again first, once in ten seconds.
        """
        now = self._clock.now().wall_at
        try:
            return read_event(token, self.current(), self._rules, now=now)
        except UnknownKeyError:
            with self._lock:
                if self._keys.read_again():
                    self._keys.refresh()
            return read_event(token, self.current(), self._rules, now=now)


def _source(transmitter: Transmitter) -> tuple[Callable[[], bytes | None], str, Callable[[], None]]:
    """Return what reads the keys, its name, and what ends a reading."""
    path = transmitter.keys_file
    if path is not None:
        return (lambda: _of_file(path)), str(path), lambda: None
    endpoint = WebEndpoint(url=transmitter.keys_url, ca_file=transmitter.keys_ca_file)
    file = WebFile(
        endpoint,
        JWKS_BYTES,
        accept="application/jwk-set+json, application/json",
        step_seconds=_FETCH_SECONDS,
        whole_seconds=_FETCH_SECONDS,
    )

    def read() -> bytes | None:
        found = file.fetch()
        return found[0] if found is not None else None

    return read, endpoint.shown, file.close


def _of_file(path: Path) -> bytes:
    text = read_own(path, DANGER, most=JWKS_BYTES + 1)
    if len(text) > JWKS_BYTES:
        raise ConfigurationError(f"`{path}` is larger than {JWKS_BYTES} bytes")
    return text
