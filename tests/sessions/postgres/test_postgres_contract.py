"""What is kept in PostgreSQL keeps the contracts of stores and histories."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdp.sessions.history import ReopeningHistory
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.sessions.store import BundleHistory, SessionStore
from pdp.testing.stores.access import AccessRequestsContract
from pdp.testing.stores.contract import StoreContract
from pdp.testing.stores.past import SessionHistoryContract
from pdp.testing.stores.telling import TellingAccessContract, TellingStoreContract
from tests.sessions.postgres.conftest import PATIENT, leased_store

pytestmark = pytest.mark.replicas


class OnPostgres:
    """Gives the tests of a class their server, with empty tables."""

    @pytest.fixture(autouse=True)
    def _use(self, conninfo: str) -> None:
        self.conninfo = conninfo


class TestPostgresSessionStore(OnPostgres, StoreContract):
    """The published suite of a store."""

    tells_labels = False

    def make_store(self, folder: Path) -> SessionStore:  # noqa: ARG002 - nothing is kept in files
        """Return an empty store."""
        return PostgresSessionStore(self.conninfo, **PATIENT)

    @pytest.mark.long
    def test_the_past_outlives_the_content(self, store: BundleHistory) -> None:
        """It takes a thousand activations."""
        super().test_the_past_outlives_the_content(store)


@pytest.mark.long
class TestForgetfulPostgresSessionStore(OnPostgres, StoreContract):
    """The same on a store that can remember next to nothing."""

    forgetful = True
    tells_labels = False

    def make_store(self, folder: Path) -> SessionStore:  # noqa: ARG002 - the same
        """Return an empty store."""
        return PostgresSessionStore(self.conninfo, **PATIENT, sessions_kept=1, changes_kept=1)


@pytest.mark.long
class TestLeasedPostgresSessionStore(OnPostgres, StoreContract):
    """The same on a store that answers from memory under a lease."""

    tells_labels = False

    def make_store(self, folder: Path) -> SessionStore:
        """Return an empty store."""
        return leased_store(self.conninfo, folder / "lease")


class TestTellingPostgresStore(OnPostgres, TellingStoreContract):
    """The published suite of a store that tells."""

    def make_store(self, folder: Path) -> SessionStore:  # noqa: ARG002 - the same
        """Return an empty store that tells."""
        return PostgresSessionStore(self.conninfo, **PATIENT, tells=True)

    def make_silent_store(self, folder: Path) -> SessionStore:  # noqa: ARG002 - the same
        """Return one that does not."""
        return PostgresSessionStore(self.conninfo, namespace="silent", **PATIENT)


class TestPostgresSessionHistory(OnPostgres, SessionHistoryContract):
    """The published suite of a history."""

    def make_store(self, folder: Path) -> SessionHistory:  # noqa: ARG002 - the same
        """Return an empty history."""
        return PostgresSessionHistory(self.conninfo, **PATIENT)


class TestPostgresAccessRequests(OnPostgres, AccessRequestsContract):
    """The published suite of access requests, in a history that is opened when it is needed."""

    def make_store(self, folder: Path) -> SessionHistory:  # noqa: ARG002 - the same
        """Return an empty history."""
        return ReopeningHistory(lambda: PostgresSessionHistory(self.conninfo, **PATIENT), on_failure=lambda _: None)


class TestTellingPostgresHistory(OnPostgres, TellingAccessContract):
    """The published suite of access requests that are told."""

    def make_store(self, folder: Path) -> SessionHistory:  # noqa: ARG002 - the same
        """Return an empty history that tells."""
        return PostgresSessionHistory(self.conninfo, **PATIENT, tells=True)
