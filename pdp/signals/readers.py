"""What a request tells, by the rules of whoever sent it: the signature is verified here, and whom it is about said."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from pdp.clock import Clock
from pdp.errors import ConfigurationError
from pdp.identity.keysets import KeySet
from pdp.identity.tokens import TokenRules
from pdp.signals import events
from pdp.signals.github import GitHubReports
from pdp.signals.keys import SenderKeys
from pdp.signals.leaks import Leak, leaked
from pdp.signals.settings import Scanner, Sender, Transmitter
from pdp.signals.subjects import targets_of
from pdp.signals.words import Target

# The most bytes of a report: one can hold many matches.
_MOST_REPORT_BYTES: Final = 1024 * 1024
_LEAKED: Final = "secret-leaked"

Headers: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a request tells: the sender's id of it, when it was issued (unix seconds), which event, and about whom."""

    token_id: str
    issued_at: float
    event: str
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """How requests of a sender are read. `once` names headers that may be there once only.

    `read` raises `TokenRefusedError`, and `UnavailableError` while there are no keys.
    """

    keys: SenderKeys
    media_type: str
    most_bytes: int
    once: Collection[str]
    read: Callable[[Headers, bytes], Told]


class LeakFormat(Protocol):
    """How one scanner reports: in which form it publishes its keys, and what it signs. `once` is that of a reader."""

    once: tuple[str, ...]

    def as_jwks(self, name: str, text: bytes) -> bytes:
        """Return its published keys as a JSON Web Key Set. Raise `ConfigurationError`."""
        ...

    def read(self, headers: Headers, body: bytes, keys: KeySet) -> tuple[Leak, ...]:
        """Return the leaks of a report. Raise `TokenRefusedError`; nothing is parsed before the signature."""
        ...


# By the word of the settings.
LEAK_FORMATS: Final[Mapping[str, LeakFormat]] = {"github": GitHubReports()}


def reader_of(sender: Sender, *, clock: Clock, key: Callable[[], bytes]) -> Reader:
    """Return how the requests of a sender are read. `key` returns the key of fingerprints."""
    if isinstance(sender, Transmitter):
        return _of_tokens(sender, clock)
    if isinstance(sender, Scanner):
        return _of_reports(sender, clock, key())
    raise ConfigurationError(f"`{sender.name}` is neither a transmitter nor a scanner")


def _of_tokens(transmitter: Transmitter, clock: Clock) -> Reader:
    keys = SenderKeys(transmitter.keys, clock, lambda _, text: text)
    rules = TokenRules(
        issuer=transmitter.issuer,
        audience=transmitter.audience,
        algorithms=transmitter.algorithms,
        types=events.TYPES,
        leeway_seconds=events.LEEWAY_SECONDS,
        longest_seconds=0.0,
        kind=events.SECURITY_EVENT,
        most_characters=events.MOST_BYTES,
    )

    place = transmitter.subject_in

    def read(_: Headers, body: bytes) -> Told:
        token, now = body.decode("ascii", "replace"), clock.now().wall_at
        event = keys.using(lambda present: events.read_event(token, present, rules, now=now, place=place))
        targets = () if event.subject is None else targets_of(event.subject, transmitter.subjects)
        return Told(token_id=event.token_id, issued_at=event.issued_at, event=event.name, targets=targets)

    return Reader(keys=keys, media_type="application/secevent+jwt", most_bytes=events.MOST_BYTES, once=(), read=read)


def _of_reports(scanner: Scanner, clock: Clock, key: bytes) -> Reader:
    form = LEAK_FORMATS[scanner.format]
    keys = SenderKeys(scanner.keys, clock, form.as_jwks)

    def read(headers: Headers, body: bytes) -> Told:
        leaks = keys.using(lambda present: form.read(headers, body, present))
        # A report has no id and no time: what it says is its id.
        return Told(
            token_id=f"sha256:{hashlib.sha256(body).hexdigest()}",
            issued_at=clock.now().wall_at,
            event=_LEAKED,
            targets=leaked(leaks, scanner.leaks, key),
        )

    return Reader(keys=keys, media_type="application/json", most_bytes=_MOST_REPORT_BYTES, once=form.once, read=read)
