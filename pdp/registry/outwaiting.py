"""What a caller hears of a change that another has made: only what holds for all, and after a crash too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from pdp.errors import WrongStateError


class Outwaits(Protocol):
    """What can wait until all that was read is safe: `Sessions`, or `AccessRequests`."""

    def outwait(self, found: Sequence[str] = ()) -> None:
        """Return when what was read before, and what was `found` over, is acknowledged, and cannot be lost."""
        ...


@contextmanager
def outwaiting(store: Outwaits, about: str) -> Iterator[None]:
    """Have an error that says what became of what has the id `about` be true for all: who hears it counts on it."""
    try:
        yield
    except WrongStateError:
        # Another who has done it may not have been answered yet.
        store.outwait((about,))
        raise
