"""What the servers on one database ask of each other about bundles: to load one, and who follows its source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Replicas(Protocol):
    """The servers on the same database as this one. Safe for threads.

    None of it makes an answer right or wrong: a server that lacks the active bundle gives none, and what is activated
    out of turn is refused by the store.
    """

    def begin(self, load: Callable[[bytes], None]) -> None:
        """Call `load` with each packed bundle that another server is about to activate, in a separate thread.

        It raises `PDPError` when this server cannot run the bundle.
        """
        ...

    def prepare(self, content: bytes) -> tuple[str, ...]:
        """Have all other servers load a packed bundle, and return when each has tried, or after ten seconds.

        Return one line for each that lacks it then: its name, and why. Never raises.
        """
        ...

    def turn(self) -> str | None:
        """Return the turn in which this server may follow its source now; None while another server has it.

        A turn is over as soon as another one begins, which this server may not know yet. So what comes of it is
        activated only with the turn in `Expected`, and the turn is taken before the source is read.
        """
        ...

    def close(self) -> None:
        """Stop waiting for the others, loading for them, and following. Calling it twice is harmless."""
        ...
