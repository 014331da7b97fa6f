"""Watch the source of bundles: take a change only when it has settled, and ask a URL at intervals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pdp.foundation.repeating import Repeater
from pdp.policy.contents import belongs

Signature = tuple[tuple[str, int, int, int], ...]

# Two scans this many seconds apart must agree: a half-copied folder is not a change.
SETTLE_SECONDS = 0.5


def signature(root: Path) -> Signature:
    """Return names, sizes and times, which identify a state of a folder or packed file. Never raises.

    One of the times also tells that only an owner or a mode has changed: what could not be read before now can be.
    """
    found = []
    try:
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            if belongs(name) or path == root:
                status = path.stat()
                found.append((name, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    except OSError:
        # A file vanished during the scan or cannot be read: the result differs from that of a complete scan.
        found.append(("", -1, len(found), 0))
    return tuple(found)


class Settling:
    """Decides, scan by scan, when a change has settled. It scans nothing itself: it is given the signatures."""

    def __init__(self, loaded: Signature) -> None:
        self._loaded = loaded
        self._before = loaded

    def settled(self, now: Signature) -> bool:
        """Take the next scan; return whether it differs from what is loaded and equals the last scan."""
        agrees = now == self._before
        self._before = now
        if not agrees or now == self._loaded:
            return False
        self._loaded = now
        return True


class FolderWatch(Repeater):
    """Calls `changed` after a settled change, and repeats the call until it returns True.

    Watches a folder, or a packed file. `changed` handles its own errors.
    """

    def __init__(self, folder: Path, changed: Callable[[], bool], interval: float = SETTLE_SECONDS) -> None:
        super().__init__("policy-watch", self._scan, every=interval, at_once=False)
        self._folder = folder
        self._changed = changed
        # The folder may have changed since it was loaded, so the first state counts as a change.
        self._settling = Settling(())

    def _scan(self) -> None:
        if self._settling.settled(signature(self._folder)) and not self._changed():
            self._settling = Settling(())


class PollWatch(Repeater):
    """Calls `ask` every `interval` seconds; it handles its own errors. `abort` ends its running call and later ones."""

    def __init__(self, ask: Callable[[], object], interval: float, *, abort: Callable[[], None]) -> None:
        super().__init__("policy-poll", ask, every=interval, at_once=False)
        self._abort = abort

    def stop(self) -> None:
        """Stop asking, and wait until the thread has ended."""
        self._abort()
        super().stop()
