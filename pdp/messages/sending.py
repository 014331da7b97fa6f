"""Send a message to its receiver: one attempt, and when to make the next."""

from __future__ import annotations

import http.client
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pdp import __version__
from pdp.errors import ConfigurationError
from pdp.foundation.egress import Egress, EgressError
from pdp.messages.forms import LinkTo, body_of
from pdp.messages.receivers import Receiver
from pdp.messages.signing import signed
from pdp.messages.sorting import Message

_STEP_SECONDS, _WHOLE_SECONDS = 5.0, 15.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 600.0
# At most so long a pause is taken from a receiver that names one.
_LONGEST_ASKED_SECONDS: Final = 3600
_NO_ANSWER: Final = "no_answer"
_TAKEN, _REDIRECTS = range(200, 300), range(300, 400)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of an attempt: the problem, empty when the message was taken; and the pause that was asked for.

    `status` is that of the answer, 0 without one.
    """

    problem: str = ""
    pause_seconds: float = 0.0
    status: int = 0

    @property
    def error(self) -> str:
        """Return one word for the problem; empty when the message was taken."""
        return "" if not self.problem else str(self.status or _NO_ANSWER)


class Post:
    """Sends messages to one receiver. For one thread, except `close`.

    `link_to` returns where a person finds what a message is about; with `purposes` it holds what agents wrote. The
    files of the receiver are read for each message, so a secret can be replaced while the server runs.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        link_to: LinkTo,
        purposes: bool,
        step_seconds: float = _STEP_SECONDS,
        whole_seconds: float = _WHOLE_SECONDS,
    ) -> None:
        self._receiver = receiver
        self._link_to = link_to
        self._purposes = purposes
        self._seconds = step_seconds, whole_seconds
        self._egress: Egress | None = None
        self._closed = False

    def attempt(self, message: Message, *, at: float) -> Attempt:
        """Send a message now, at a time in unix seconds. Never raises."""
        receiver = self._receiver
        body = body_of(message, receiver.form, self._link_to, purposes=self._purposes)
        headers = {"Content-Type": "application/json", "User-Agent": f"pdp/{__version__}"}
        step, whole = self._seconds
        try:
            secrets = receiver.secrets()
            headers |= signed(message.id, at, body, secrets) if secrets else {}
            self._egress = Egress(
                receiver.url(),
                ca_file=receiver.ca_file,
                private_hosts=receiver.private_hosts,
                step_seconds=step,
                whole_seconds=whole,
            )
            if self._closed:
                return Attempt("the server stops")
            # Of the answer only its beginning is read.
            return self._egress.ask("POST", headers, _attempt_of, body=body)
        except (EgressError, ConfigurationError) as error:
            return Attempt(str(error))

    def close(self) -> None:
        """End a running attempt; later ones fail at once."""
        self._closed = True
        egress = self._egress
        if egress is not None:
            egress.close()


def pause_after(failures: int, *, spread: Callable[[float, float], float] = random.uniform) -> float:
    """Return the seconds until the next attempt: twice as many after each failure, and not the same for all."""
    longest = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 30), _LONGEST_PAUSE_SECONDS)
    return spread(longest / 2, longest)


def _attempt_of(response: http.client.HTTPResponse) -> Attempt:
    if response.status in _TAKEN:
        return Attempt(status=response.status)
    if response.status in _REDIRECTS:
        return Attempt(f"answers `{response.status}`, but redirects are not followed", status=response.status)
    asked = response.getheader("Retry-After", "")
    pause = min(int(asked), _LONGEST_ASKED_SECONDS) if asked.isascii() and asked.isdecimal() and len(asked) < 10 else 0  # noqa: PLR2004 - digits
    return Attempt(f"answers `{response.status}`", float(pause), response.status)
