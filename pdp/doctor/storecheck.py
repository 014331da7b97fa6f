"""Check the session store: sound, writable, of a schema that this program knows, and not ahead of the clock.

Of the history beside it, that it is sound.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pdp.clock import utc_text
from pdp.doctor.diskspace import store_trouble
from pdp.doctor.finding import Deployment, Finding, fine, problem, warning
from pdp.doctor.leasecheck import lease_findings
from pdp.doctor.listening import serves_here
from pdp.doctor.stepscheck import server_findings, step_findings
from pdp.errors import ConfigurationError, StoreUnavailableError
from pdp.foundation.counting import counted
from pdp.foundation.extras import missing
from pdp.sessions.care import StoreReport, inspect, inspect_history
from pdp.sessions.postgressteps import SAYING_VERSION
from pdp.sessions.sharedclock import MOST_APART_SECONDS
from pdp.sessions.sqlitehistory import HISTORY_REMEDY
from pdp.starting import postgres_of

_CHECK: Final = "store"
# Clocks are often set by small steps.
_STEP_SECONDS: Final = 5.0
_ROOM: Final = "free space on its disk"
_CORRECT: Final = "correct the clock; until it catches up, time stands still for sessions"
_TAKE_BACK: Final = f"{_CORRECT}; if the clock of the database was ahead, `pdp store restore` takes that back"
# Three heartbeats of the server.
_SILENT_SECONDS: Final = 30.0


def store(deployment: Deployment) -> Iterator[Finding]:
    """Check the whole store."""
    settings = deployment.settings
    if settings.sessions.store == "postgres":
        yield from _postgres_findings(deployment)
        return
    if settings.sessions.store != "sqlite":
        yield warning(
            _CHECK,
            f"`sessions.store` is `{settings.sessions.store}`: sessions and revocations end with the process",
            "set it to `sqlite`, unless this is intended",
        )
        return
    # On a full disk neither file can be read.
    if not store_trouble(settings):
        yield from _history_findings(settings.history_file)
    path = settings.sessions_file
    if not path.exists():
        yield fine(_CHECK, f"`{path}` does not exist; the first start creates it")
        return
    try:
        report = inspect(path)
    except StoreUnavailableError as error:
        # Even reading needs some space: for the shared memory of the log.
        trouble = store_trouble(settings)
        remedy = "check the file and its folder; `pdp store restore` restores a backup"
        yield problem(_CHECK, f"{error}: {trouble}" if trouble else str(error), _ROOM if trouble else remedy)
        return
    now = deployment.clock.now().wall_at
    yield from _findings(report)
    yield from _write_findings(report, deployment, now)
    yield from _clock_findings(report, now, _CORRECT)


def _postgres_findings(deployment: Deployment) -> Iterator[Finding]:
    try:
        from pdp.sessions.postgrescare import (  # noqa: PLC0415 - an extra brings it
            heard_after,
            inspect_postgres,
            live_servers,
            silent_machines,
        )

        conninfo = postgres_of(deployment.settings)
    except (ConfigurationError, ImportError) as error:
        # A wrong file is reported as a need of the start.
        if isinstance(error, ImportError):
            yield problem(_CHECK, missing(error) or str(error), "install it")
        return
    before = deployment.clock.now().wall_at
    try:
        report = inspect_postgres(conninfo)
        heard = heard_after(conninfo)
        silent, seconds = silent_machines(conninfo) if report.tables is not None else (0, 0.0)
        # Only where servers say what they know.
        servers = live_servers(conninfo) if report.there >= SAYING_VERSION else ()
    except (ConfigurationError, StoreUnavailableError) as error:
        yield problem(_CHECK, str(error), "check the connection string, the network and PostgreSQL's own log")
        return
    for name in report.unsafe:
        found = f"PostgreSQL runs with `{name}=off`: what was acknowledged can be lost when its machine crashes"
        yield problem(_CHECK, found, "turn it on")
    if heard is None:
        found = "a notification through PostgreSQL does not come back: a pooler is in between"
        yield problem(_CHECK, found, "name PostgreSQL itself in `sessions.postgres_file`")
    yield from _apart_findings(before, report.at, deployment.clock.now().wall_at)
    if silent:
        found = f"{silent} of the machines with leases are silent: the next change waits {seconds:g} seconds for them"
        yield warning(_CHECK, found, "see to their servers; one that is gone is forgotten by that change")
    yield from _failover_findings(deployment.settings.sessions.replication, report.standbys)
    if report.tables is None:
        yield fine(_CHECK, "the database has no tables; the first start creates them")
        return
    if report.tables.newer or report.tables.damage:
        yield from _findings(report.tables)
    else:
        yield from step_findings(report.tables, there=report.there, begun=report.begun)
    yield from server_findings(servers, known=report.tables.known_schema, begun=report.begun)
    yield from _clock_findings(report.tables, deployment.clock.now().wall_at, _TAKE_BACK)
    yield from lease_findings(deployment, report.deployment)


def _apart_findings(before: float, database_at: float, after: float) -> Iterator[Finding]:
    """Report a clock that is far from that of the database, which was read between two readings of this one."""
    if database_at < before - MOST_APART_SECONDS:
        found = f"the clock is {before - database_at:.1f} seconds ahead of that of the database: no call is answered"
        yield problem("clock", found, "synchronize both clocks, that of the database first")
    elif database_at > after + MOST_APART_SECONDS:
        found = f"the clock is {database_at - after:.1f} seconds behind that of the database: there is no lease"
        yield warning("clock", found, "synchronize both clocks, that of the database first")


def _failover_findings(replication: str, names: str) -> Iterator[Finding]:
    """Report what is lost when PostgreSQL fails over."""
    from pdp.sessions.postgresfailover import standbys_in  # noqa: PLC0415 - an extra brings its driver

    standbys = standbys_in(names)
    if replication == "async":
        found = "`sessions.replication` is `async`: a failover can lose what was acknowledged"
        yield warning(_CHECK, found, "use `quorum`, with two synchronous standbys, unless this is intended")
    elif replication == "quorum" and standbys == 0:
        found = "`synchronous_standby_names` is empty, so with `sessions.replication: quorum` no server starts"
        yield problem(_CHECK, found, "name two standbys: `ANY 1 (a, b)`")
    elif replication == "quorum" and standbys == 1:
        found = (
            "`synchronous_standby_names` has one standby: when that is down, nothing can change, and no call is allowed"
        )
        yield warning(_CHECK, found, "name two: `ANY 1 (a, b)`")
    elif replication == "quorum":
        yield fine(_CHECK, f"what is acknowledged is on a standby: `synchronous_standby_names` is `{names}`")


def _findings(report: StoreReport) -> Iterator[Finding]:
    if report.newer:
        found = f"the store has schema {report.schema_version}, and this program knows {report.known_schema}"
        yield problem(_CHECK, found, "upgrade the program, or restore an earlier backup")
    elif report.damage:
        for one in report.damage:
            yield problem(_CHECK, one, "stop the server, and restore a backup: `pdp store restore`")
    elif report.older:
        found = f"the store has schema {report.schema_version}; the next start upgrades it to {report.known_schema}"
        yield warning(_CHECK, found, "back it up first: `pdp store backup`")
    else:
        found = f"sound to read, schema {report.schema_version}, {counted(sum(report.sessions.values()), 'session')}"
        yield fine(_CHECK, found)


def _history_findings(path: Path) -> Iterator[Finding]:
    """Report a history that no server could use; each starts without one, and denies what needs it."""
    if not path.exists():
        return
    try:
        damage = inspect_history(path)
    except StoreUnavailableError as error:
        damage = (str(error),)
    for one in damage:
        yield problem(_CHECK, one, HISTORY_REMEDY)


def _write_findings(report: StoreReport, deployment: Deployment, now: float) -> Iterator[Finding]:
    """Report what a sound store does not show: a full disk, or no writes by a server."""
    silent = now - report.high_water_at
    if trouble := store_trouble(deployment.settings):
        yield problem(_CHECK, f"the store takes no sessions at present: {trouble}", _ROOM)
    elif silent > _SILENT_SECONDS and serves_here(deployment):
        found = f"the server has written nothing to the store for {silent:.0f} seconds, and tries every 10"
        yield problem(_CHECK, found, "its log says why; until then sessions and bundles cannot change")


def _clock_findings(report: StoreReport, now: float, remedy: str) -> Iterator[Finding]:
    ahead = report.high_water_at - now
    if ahead > _STEP_SECONDS:
        found = (
            f"the clock is {ahead:.0f} seconds behind the last write of the store, at {utc_text(report.high_water_at)}"
        )
        yield problem("clock", found, remedy)
