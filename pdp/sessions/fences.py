"""What the writes of each thread have waited for, so that the answer to a request can say it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pdp.sessions.lease import Fence, FencedBy


class Fences:
    """Notes the fences of a store, for each thread apart. Safe for threads.

    `count` is told of each, as words for what ended it and its seconds.
    """

    def __init__(self, count: Callable[[str, float], None] | None = None) -> None:
        self._local = threading.local()
        self._count = count

    def note(self, fence: Fence) -> None:
        """Note a fence. Several count as one: it took their time, and confirmed are all or none."""
        if self._count is not None:
            self._count(fence.by.value, fence.seconds)
        before = self.take()
        if before is not None:
            by = FencedBy.WAITED if FencedBy.WAITED in (before.by, fence.by) else FencedBy.CONFIRMED
            fence = Fence(by=by, seconds=before.seconds + fence.seconds)
        self._local.fence = fence

    def take(self) -> Fence | None:
        """Return what this thread has noted since the last time; None for nothing."""
        fence: Fence | None = getattr(self._local, "fence", None)
        self._local.fence = None
        return fence
