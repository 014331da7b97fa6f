"""Check how far an upgrade of servers on one PostgreSQL is: what its tables are prepared for, and what waits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from pdp.doctor.finding import Finding, fine, warning
from pdp.foundation.counting import counted
from pdp.sessions.care import StoreReport
from pdp.sessions.postgressteps import STEPS, needed, numbered

if TYPE_CHECKING:
    from pdp.sessions.postgresbeginning import ServerRow

_CHECK: Final = "store"


def step_findings(tables: StoreReport, *, there: int, begun: int) -> Iterator[Finding]:
    """Report what the next start of this program does to the tables."""
    has, knows = tables.schema_version, tables.known_schema
    if has < needed(STEPS):
        found = f"the store has schema {has}; the next start upgrades it to {knows}, and earlier servers are refused"
        yield warning(_CHECK, found, "back the database up, and stop all servers first")
    elif there < knows:
        found = f"the store has schema {has}; the next start prepares it for {knows}, and earlier servers go on"
        yield fine(_CHECK, found)
    elif there > knows:
        found = (
            f"a newer program has prepared schema {there}; this one goes on until all servers know more than {knows}"
        )
        yield fine(_CHECK, found)
    else:
        found = f"sound to read, schema {begun}, {counted(sum(tables.sessions.values()), 'session')}"
        yield fine(_CHECK, found)


def server_findings(servers: Sequence[ServerRow], *, known: int, begun: int) -> Iterator[Finding]:
    """Report what each server that is there knows, and what waits for those that do not know enough."""
    if not servers:
        return
    most = max(known, *(one.knows for one in servers))
    yield fine(
        _CHECK, "servers that are there: " + ", ".join(f"`{one.name}` knows schema {one.knows}" for one in servers)
    )
    if begun >= most:
        return
    behind = [one for one in servers if one.knows < most]
    waiting = "".join(f"; {step.brings}" for number, step in numbered(STEPS) if step.brings and number > begun)
    if behind:
        names = ", ".join(f"`{one.name}`" for one in behind)
        found = f"schema {most} waits for servers that do not know it: {names}{waiting}"
        yield warning(_CHECK, found, "upgrade them; one that has ended counts for another minute")
    else:
        yield fine(_CHECK, f"all servers know schema {most}; it begins after a minute in which that stays so{waiting}")
