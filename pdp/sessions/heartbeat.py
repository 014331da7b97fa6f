"""Write the time into the store regularly, to keep the clock's high-water mark recent and to show that writes work.

After a reboot the mark bounds how far the wall clock can go back.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from pdp.errors import PDPError
from pdp.foundation.repeating import Repeater

_LOG = logging.getLogger("pdp")

# A slower write, waiting included, counts as failed.
_LONGEST_SECONDS = 5.0


class Heartbeat(Repeater):
    """Calls `touch`, which can raise `PDPError`, every `every` seconds on its own thread once started."""

    def __init__(self, touch: Callable[[], None], *, every: float) -> None:
        super().__init__("heartbeat", self._beat, every=every, at_once=False)
        self._touch = touch
        self._problem = ""
        self._due_at = math.inf

    def writable(self) -> bool:
        """Say whether the last attempt to write the store succeeded in time."""
        return not self._problem and time.monotonic() < self._due_at

    def _beat(self) -> None:
        problem = self._problem_now()
        if problem and not self._problem:
            _LOG.error("the session store cannot be written, so sessions and bundles cannot change: %s", problem)
        elif self._problem and not problem:
            _LOG.warning("the session store can be written again")
        self._problem = problem

    def _problem_now(self) -> str:
        self._due_at = time.monotonic() + _LONGEST_SECONDS
        try:
            self._touch()
        except PDPError as error:
            return str(error)
        finally:
            self._due_at = math.inf
        return ""
