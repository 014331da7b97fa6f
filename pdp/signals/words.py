"""What the parts share that receive signals: a signal, whom it is about, and what has become of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pdp.errors import NotFoundError, UnavailableError, WrongStateError


class What(StrEnum):
    """What a signal is about, as the settings say it."""

    USER = "user"
    SESSION = "session"
    CONNECTION = "connection"


class State(StrEnum):
    """What has become of a signal."""

    WAITING = "waiting"  # it is still to be carried out
    APPLIED = "applied"  # it was carried out
    HELD = "held"  # a person has to say whether it is
    DISMISSED = "dismissed"  # a person has said that it is not
    PREVIEWED = "previewed"  # it was only looked at what it would end
    UNMATCHED = "unmatched"  # nothing here is meant by it


# Of these somebody, or the program, still has to do something.
OPEN = frozenset({State.WAITING, State.HELD})


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Target:
    """A user, a session or a connection of a tenant."""

    what: What
    tenant: str
    id: str

    @property
    def text(self) -> str:
        """Return it for people and for the record."""
        return f"{self.what} {self.id} of {self.tenant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A signal that was accepted. `..._at` are unix seconds.

    `token_id` is the transmitter's id of it, and `event` its kind in one word. `targets` are those that are still to be
    revoked; `outcomes` says what was done so far. `by` is the person who released or dismissed it; what a person has
    released is carried out without a bound.
    """

    id: str
    transmitter: str
    token_id: str
    event: str
    issued_at: float
    received_at: float
    state: State
    targets: tuple[Target, ...] = ()
    outcomes: tuple[str, ...] = ()
    by: str = ""


class ForgottenError(WrongStateError):
    """A signal is so old that it may have been received and forgotten: do not act on it."""


class TooManyOpenError(UnavailableError):
    """Too many signals of a transmitter wait or are held: take no more until some are answered."""


class UnknownSignalError(NotFoundError):
    """No signal has this id: check it."""
