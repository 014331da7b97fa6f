"""Threads with large stacks: the size is a setting of the process, and comes back whatever starts at the same time."""

from __future__ import annotations

import threading
from pathlib import Path

import pdp
from pdp.foundation.threads import start_on_large_stack

PATIENCE = 30.0
OWNER = "foundation/threads.py"


class Slow(threading.Thread):
    """A thread whose start takes until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.starting, self.go_on = threading.Event(), threading.Event()

    def start(self) -> None:
        """Say that the start is under way, wait, start."""
        self.starting.set()
        assert self.go_on.wait(PATIENCE)
        super().start()


def test_two_starts_at_once_leave_the_size_as_it_was() -> None:
    """A start that begins while another is under way does not take the other's size for the one of before."""
    first, second = Slow(), Slow()
    starters = [threading.Thread(target=start_on_large_stack, args=(thread,)) for thread in (first, second)]
    starters[0].start()
    assert first.starting.wait(PATIENCE)
    starters[1].start()
    # It cannot begin before the first has ended; without the one lock it would, and would end last.
    overlapped = second.starting.wait(0.2)
    first.go_on.set()
    starters[0].join(PATIENCE)
    second.go_on.set()
    starters[1].join(PATIENCE)

    assert not overlapped
    assert threading.stack_size() == 0


def test_it_is_written_once() -> None:
    """Nothing else sets the size of stacks: two locks for one setting are none."""
    package = Path(pdp.__file__).parent
    found = {str(path.relative_to(package)) for path in package.rglob("*.py") if "stack_size(" in path.read_text()}

    assert found == {OWNER}
