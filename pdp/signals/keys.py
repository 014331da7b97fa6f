"""The keys of those who send signals: read again while the receiver runs, and at once for a new one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final, TypeVar

from pdp.clock import Clock
from pdp.errors import ConfigurationError
from pdp.foundation.ownership import read_own
from pdp.foundation.webfile import WebEndpoint, WebFile
from pdp.identity.keysets import JWKS_BYTES, KeySet, TrustedKeys
from pdp.identity.tokens import UnknownKeyError

T = TypeVar("T")

# Keys that nobody has confirmed for a day no longer count: their owner may have withdrawn them.
_LONGEST_SECONDS: Final = 86400.0
# Whoever sends a signal waits for its answer while a new key is looked for.
_FETCH_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPlace:
    """Where keys are published: at a URL, with roots to trust there or an empty name, or in a file."""

    url: str = ""
    ca_file: str = ""
    file: Path | None = None


class SenderKeys:
    """The keys of one sender. Safe for threads.

    `as_jwks` makes a JSON Web Key Set of what is published, and raises `ConfigurationError`.
    """

    def __init__(self, place: KeyPlace, clock: Clock, as_jwks: Callable[[str, bytes], bytes]) -> None:
        self._lock = Lock()
        read, name, self.close = _source(place)

        def converted() -> bytes | None:
            text = read()
            return None if text is None else as_jwks(name, text)

        self._keys = TrustedKeys(converted, name=name, clock=clock, longest_seconds=_LONGEST_SECONDS)

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

    def using(self, use: Callable[[KeySet], T]) -> T:
        """Return what `use` makes of the keys. For an unknown key they are read again first, once in ten seconds.

        Raise what it raises, and `UnavailableError` while there are no keys.
        """
        try:
            return use(self.current())
        except UnknownKeyError:
            with self._lock:
                if self._keys.read_again():
                    self._keys.refresh()
            return use(self.current())


def _source(place: KeyPlace) -> tuple[Callable[[], bytes | None], str, Callable[[], None]]:
    """Return what reads the keys, its name, and what ends a reading."""
    path = place.file
    if path is not None:
        return (lambda: _of_file(path)), str(path), lambda: None
    endpoint = WebEndpoint(url=place.url, ca_file=place.ca_file)
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
    text = read_own(path, "anyone could choose whose sessions are revoked", most=JWKS_BYTES + 1)
    if len(text) > JWKS_BYTES:
        raise ConfigurationError(f"`{path}` is larger than {JWKS_BYTES} bytes")
    return text
