"""A machine whose store takes part in failovers, for tests; and what it says of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdp.clock import Deadline, SystemClock
from pdp.errors import OverloadedError, StoreUnavailableError
from pdp.model import Session
from pdp.sessions.lease import LeaseTerms
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgresfailover import Replication
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.sessions.postgressettling import ClosedAgain, Settling, SettlingStore, WentBack
from pdp.testing.stores.samples import make_session
from tests.sessions.postgres.conftest import PATIENT

# Long enough for an answer of a server that lives, on a busy machine; those that are gone are waited for as long.
HASTY: dict[str, Any] = {"busy_seconds": 6.0, "seconds": 6.0, "idle_seconds": 6.0}


@dataclass(kw_only=True)
class Machine:
    """A machine with a store on a database, and what it has said of failovers.

    With `reasserts`, it writes again what it has closed.
    """

    conninfo: str
    folder: Path
    replication: Replication
    reasserts: bool = False
    settling_seconds: float = 0.0
    lease_seconds: float = 0.0
    known_revision: int = 0
    options: dict[str, Any] = field(default_factory=lambda: PATIENT)
    told: list[WentBack] = field(default_factory=list)
    told_at: float = 0.0
    revoked: list[str] = field(default_factory=list)
    again: list[ClosedAgain] = field(default_factory=list)

    def opened(self) -> PostgresSessionStore:
        """Open its store."""

        def went_back(found: WentBack) -> None:
            self.told.append(found)
            self.told_at = time.monotonic()

        settling = Settling(
            opened=lambda: SettlingStore(self.conninfo, **self.options),
            history=lambda: PostgresSessionHistory(self.conninfo, **self.options),
            clock=SystemClock(),
            went_back=went_back,
            account=lambda _: (),
            revoked=lambda sessions: self.revoked.extend(one.id for one in sessions),
            again=self.again.append,
            seconds=self.settling_seconds,
        )
        lease = LeaseTerms(file=self.folder / "lease", seconds=self.lease_seconds, clock=SystemClock())
        closings = self.folder / "closings" if self.reasserts else None
        return PostgresSessionStore(
            self.conninfo,
            **self.options,
            known_revision=self.known_revision,
            lease=lease if self.lease_seconds else None,
            failover=settling.terms(self.replication, self.folder / "acknowledged", closings),
        )


def living(name: str) -> Session:
    """Return a session that lives longer than any test."""
    return make_session(name, deadline=Deadline(wall_at=time.time() + 3600, boot_at=0.0, boot_id="another boot"))


def can(call: Callable[[], object]) -> bool:
    """Say whether the store can do something now."""
    try:
        call()
    except (StoreUnavailableError, OverloadedError):
        return False
    return True
