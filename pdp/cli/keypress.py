"""Keys as they are pressed on a terminal, without waiting for the end of a line."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Waits for at most this many seconds, and returns the key that was pressed; empty when there was none.
Pressed = Callable[[float], str]


@contextmanager
def keys() -> Iterator[Pressed]:
    """Yield a function that waits for a key; without a terminal it only waits.

    Ctrl-C keeps its effect.
    """
    if not sys.stdin.isatty():
        yield _wait
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield lambda seconds: _key(terminal, seconds)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _wait(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def _key(terminal: int, seconds: float) -> str:
    readable, _, _ = select.select([terminal], [], [], seconds)
    return os.read(terminal, 1).decode("ascii", "replace") if readable else ""
