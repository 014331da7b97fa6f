"""Remember in memory which changes were made under which request ids."""

from __future__ import annotations

from pdp.errors import ConflictError
from pdp.sessions.writes import MOST_WRITES, WRITE_SECONDS, Write, Written, remembers


class MemoryWrites:
    """The changes that a store in memory remembers; its user holds a lock."""

    def __init__(self) -> None:
        # The oldest first.
        self._kept: dict[bytes, tuple[Written, float]] = {}

    def require_new(self, write: Write | None, *, wall_at: float) -> None:
        """Raise `ConflictError` when the request id of a change is in use."""
        if write is not None and self._recent(write, wall_at) is not None:
            raise ConflictError("a change under this request id was made meanwhile")

    def remember(self, write: Write | None, session_ids: tuple[str, ...], *, wall_at: float) -> None:
        """Remember a change."""
        if write is None or not remembers(write, session_ids):
            return
        self._kept.pop(write.key, None)
        self._kept[write.key] = Written(write.digest, session_ids), wall_at
        if len(self._kept) > MOST_WRITES:
            del self._kept[next(iter(self._kept))]

    def find(self, write: Write, *, wall_at: float) -> tuple[str, ...] | None:
        """Return the ids that a remembered change has written; None for another one."""
        found = self._recent(write, wall_at)
        return found.answer(write) if found else None

    def _recent(self, write: Write, wall_at: float) -> Written | None:
        written, at = self._kept.get(write.key, (None, 0.0))
        return written if written and wall_at < at + WRITE_SECONDS else None
