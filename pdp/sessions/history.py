"""Keep what calls left behind in memory: for tests, and for embedded use that does not need it after its end."""

from __future__ import annotations

import secrets
from threading import Lock

from pdp.errors import AlreadyReportedError, StoreUnavailableError
from pdp.sessions.values import Report

KEY_BYTES = 32


class MemorySessionHistory:
    """A `SessionHistory` that lives as long as its process. Safe for threads.

    It keeps the last `most` reports, some hundred bytes each.
    """

    def __init__(self, *, most: int = 20_000) -> None:
        self._most = most
        self._lock = Lock()
        self._key = secrets.token_bytes(KEY_BYTES)
        self._reports: dict[str, Report] = {}
        self._closed = False

    def key(self) -> bytes:
        """Return the random secret."""
        self._require_open()
        return self._key

    def keep_report(self, report: Report) -> None:
        """Keep a report, one for each decision."""
        with self._lock:
            self._require_open()
            require_same(self._reports.setdefault(report.decision_id, report).digest, report)
            if len(self._reports) > self._most:
                del self._reports[next(iter(self._reports))]

    def forget_reports(self, *, reported_before: float) -> int:
        """Remove the reports from before a time; return how many."""
        with self._lock:
            self._require_open()
            old = [one.decision_id for one in self._reports.values() if one.reported_at < reported_before]
            for decision_id in old:
                del self._reports[decision_id]
            return len(old)

    def close(self) -> None:
        """Forget everything; afterwards the history does not answer."""
        with self._lock:
            self._closed = True
            self._reports.clear()

    def _require_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError("the history of the sessions is closed")


def require_same(kept: bytes, report: Report) -> None:
    """Raise `AlreadyReportedError` unless the report that is kept says the same; `kept` is its digest."""
    if kept != report.digest:
        raise AlreadyReportedError("this call was reported already, and otherwise")
