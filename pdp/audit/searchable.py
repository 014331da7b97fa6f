"""A folder of the log that can be searched: its index opens at the first question, and catches up at each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock

from pdp.audit.index import AuditIndex, Progress
from pdp.audit.search import Search
from pdp.errors import UnavailableError

# About a second of work: a server reads this much before it asks the caller to repeat the question.
SERVER_BYTES = 32 * 1024 * 1024


class SearchableRecord:
    """Searches one folder of the log, and with `shared` the copies of other servers in that. Safe for threads.

    `most_bytes` bounds how much of the log one question reads; None reads all of it and calls `on_progress`.
    The index leaves `keep_bytes` of its disk free.
    """

    def __init__(
        self,
        folder: Path,
        *,
        shared: Path | None = None,
        index_file: Path | None = None,
        most_bytes: int | None = None,
        keep_bytes: int = 0,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._folder, self._shared = folder, shared
        self._index_file = index_file
        self._most_bytes = most_bytes
        self._keep_bytes = keep_bytes
        self._on_progress = on_progress
        self._lock = Lock()
        self._index: AuditIndex | None = None

    def search(self) -> Search:
        """Return the search, after everything new in the log is indexed.

        Raise `UnavailableError` when the index cannot be used, or when so much is new that the next question must
        go on reading it.
        """
        with self._lock:
            if self._index is None:
                self._index = AuditIndex(
                    self._folder, self._index_file, shared=self._shared, keep_bytes=self._keep_bytes
                )
            index = self._index
        progress = index.refresh(most_bytes=self._most_bytes, on_progress=self._on_progress)
        if not progress.complete and self._most_bytes is not None:
            percent = 100 * progress.read // progress.size
            raise UnavailableError(f"the index of the record is being built: {percent} %; ask again")
        return Search(index)

    def close(self) -> None:
        """Close the index. Twice is harmless."""
        with self._lock:
            if self._index is not None:
                self._index.close()
            self._index = None
