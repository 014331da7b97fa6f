"""Signals that a server obeys, as numbers in a pipe."""

from __future__ import annotations

import os
import signal
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)


def receive_signals() -> tuple[int, int]:
    """Return a descriptor to read the numbers of signals from, and one to add a number as if it had been received.

    A second SIGTERM or SIGINT has its usual effect. Who waits on a lock or an event can miss a signal: when it comes
    just before the waiting begins, or to another thread. What is in a pipe is not missed.
    """
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender)

    def leave_next_to_the_system(_number: int, _frame: FrameType | None) -> None:
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)

    for number in STOPPING:
        signal.signal(number, leave_next_to_the_system)
    signal.signal(signal.SIGHUP, lambda _number, _frame: None)
    return receiver, sender
