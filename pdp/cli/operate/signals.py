"""The signals of a server, as numbers in a pipe."""

from __future__ import annotations

import os
import signal
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)


def receive_signals() -> tuple[int, int]:
    """Return a descriptor to read signals' numbers from, and one to add a number.

    An added number acts like a received signal. A second SIGTERM or SIGINT has its usual effect. A thread that waits on
    a lock or an event can miss a signal: when it comes just before the wait begins, or to another thread. A number in a
    pipe is not missed.
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
