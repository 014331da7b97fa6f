"""Changes that their callers may ask for again: which one a request id names, and what became of it.

A store remembers such a change in the transaction in which it makes it, so that one whose answer was lost is told from
one that was not made. What it remembers holds no handle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from pdp.errors import RequestIdConflictError

# How long a change is remembered, in seconds. A client that has lost an answer asks again within seconds.
WRITE_SECONDS: Final = 900.0
# How many are remembered, the latest ones; and how many sessions one of them may name to be remembered.
MOST_WRITES: Final = 20_000
MOST_NAMED: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A change under a request id: `key` is the id as one of its caller, `digest` what is asked for; both SHA-256."""

    key: bytes
    digest: bytes


class Written(NamedTuple):
    """A change that was made: what was asked for, and the sessions that were written."""

    digest: bytes
    session_ids: tuple[str, ...]

    def answer(self, write: Write) -> tuple[str, ...]:
        """Return the sessions for the same change asked for again. Raise `RequestIdConflictError` for another one."""
        if self.digest != write.digest:
            raise RequestIdConflictError("the request id was used for another change; use a fresh one")
        return self.session_ids


def remembers(write: Write | None, session_ids: tuple[str, ...]) -> bool:
    """Say whether a change is remembered: one that changed nothing, or very many sessions, can be made again."""
    return write is not None and 0 < len(session_ids) <= MOST_NAMED
