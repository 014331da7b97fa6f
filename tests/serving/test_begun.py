"""Calls whose message has not come: which of them end for others, and which do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pdp.errors import OverloadedError, PDPError
from pdp.serving.begun import BegunCalls, Group
from pdp.serving.lanes import BoundedPool, Room
from pdp.testing.clock import FakeClock


class Silent:
    """A call whose message never comes. `seen` is called when its group is looked at."""

    def __init__(self, group: Group) -> None:
        self.waits = self.asked = self.over = False
        self.seen: Callable[[], object] = lambda: None
        self._group = group

    @property
    def group(self) -> Group:
        """Return its group."""
        self.seen()
        return self._group

    def ask(self) -> bool:
        """Take note that its message was asked for."""
        self.asked = True
        return False

    def follow(self) -> None:
        """Stay: its caller does."""

    def give_up(self, _: PDPError) -> None:
        """Leave its lane."""
        self.over = True
        if self._group:
            lane, owner = self._group
            lane.leave(owner)


def test_a_caller_with_its_whole_share_ends_no_call_of_others() -> None:
    """It is refused whatever others have, so nothing would be won; a caller with less ends one of whom most wait."""
    lane = BoundedPool("calls", Room(threads=0, bound=140, share=70))
    begun = BegunCalls(FakeClock(), limit=5.0, unknown=1)
    waiting = [Silent((lane, "one")) for _ in range(70)]
    for call in waiting:
        begun.enter(lane, "one")
        begun.begin(call)
        begun.enter(lane, "other")

    with pytest.raises(OverloadedError, match=r"^140 calls are open"):
        begun.enter(lane, "other")
    lost = sum(call.over for call in waiting)
    begun.enter(lane, "third")

    assert (0, 1) == (lost, sum(call.over for call in waiting))


def test_a_call_without_credentials_never_waits_for_its_turn() -> None:
    """Not even if the one that was to end for it ends by itself just then."""
    begun = BegunCalls(FakeClock(), limit=5.0, unknown=1)
    first, second = Silent(()), Silent(())
    begun.begin(first)

    def ends() -> None:
        first.seen = lambda: None
        assert begun.take(first)

    first.seen = ends
    begun.begin(second)

    assert (False, True) == (first.over, second.asked)
