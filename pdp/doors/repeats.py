"""How often the same call was denied: a model that only repeats it gets nowhere, and costs money."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

# Calls that are remembered; the one that was denied longest ago is forgotten first.
_MOST_CALLS = 1024


class Repeats:
    """Counts denies of the same call in a row. Safe to use from many threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._denied: OrderedDict[bytes, int] = OrderedDict()

    def denied(self, *parts: str | bytes) -> bool:
        """Count a deny of the call with these parts, and say whether it is one too many.

        The count then begins anew, for the next run.
        """
        key = _key(parts)
        with self._lock:
            count = self._denied.pop(key, 0) + 1
            if count > self._most:
                return True
            self._denied[key] = count
            if len(self._denied) > _MOST_CALLS:
                self._denied.popitem(last=False)
        return False

    def allowed(self, *parts: str | bytes) -> None:
        """Forget the denies of a call that was allowed."""
        with self._lock:
            self._denied.pop(_key(parts), None)


def _key(parts: tuple[str | bytes, ...]) -> bytes:
    """Return a digest: arguments and handles are not kept."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.digest()
