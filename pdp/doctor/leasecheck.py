"""Check the lease of this machine, under which its servers answer from memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from pdp.doctor.finding import Deployment, Finding, fine, problem
from pdp.doctor.listening import serves_here
from pdp.errors import reason_of
from pdp.sessions.lease import LeaseTerms
from pdp.sessions.leasepage import LeasePage


def lease_findings(deployment: Deployment, database: str) -> Iterator[Finding]:
    """Report the lease of this machine, if a server runs here that should have one.

    `database` names the database.
    """
    settings, clock = deployment.settings, deployment.clock
    seconds, file = settings.sessions.lease_seconds, settings.lease_file
    if not seconds or not file.exists() or not serves_here(deployment):
        return
    try:
        page = LeasePage(LeaseTerms(file=file, seconds=seconds, clock=clock), deployment=database)
    except OSError as error:
        yield problem("store", f"`{file}`: {reason_of(error)}", "run `pdp doctor` as the user of the server")
        return
    with closing(page):
        lease = page.held()
    if lease is None:
        found = (
            "a server runs here, and this machine has no lease: it is not ready, and each decision asks the database"
        )
        yield problem("store", found, "its log says why")
    else:
        age = clock.now().boot_at - lease.begun.boot_at
        yield fine("store", f"the lease of this machine began {age:.1f} seconds ago, and lasts {lease.seconds:g}")
