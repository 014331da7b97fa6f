"""Access requests: both stores pass the contract."""

from __future__ import annotations

from pathlib import Path

from pdp.sessions.history import MemorySessionHistory
from pdp.sessions.sqlitehistory import SQLiteSessionHistory
from pdp.sessions.store import SessionHistory
from pdp.testing.stores.access import AccessRequestsContract


class TestMemoryAccessRequests(AccessRequestsContract):
    """Those of the history in memory."""

    def make_store(self, folder: Path) -> SessionHistory:  # noqa: ARG002 - it needs no file
        """Return an empty history."""
        return MemorySessionHistory()


class TestSQLiteAccessRequests(AccessRequestsContract):
    """Those of the history in a file."""

    def make_store(self, folder: Path) -> SessionHistory:
        """Return an empty history."""
        return SQLiteSessionHistory(folder / "history.db")
