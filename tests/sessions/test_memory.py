"""The memory store keeps the contract."""

from __future__ import annotations

from pathlib import Path

from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.store import SessionStore
from pdp.testing.stores.contract import StoreContract


class TestMemorySessionStore(StoreContract):
    """Run the published suite."""

    def make_store(self, folder: Path) -> SessionStore:  # noqa: ARG002 - nothing is kept in files
        """Return an empty store."""
        return MemorySessionStore()
