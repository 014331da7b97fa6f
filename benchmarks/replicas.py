"""Measure PDPs on PostgreSQL, under a lease, beside SQLite, the control: `python -m benchmarks.replicas`.

What a decision costs in each way of asking of `benchmarks.memory`: CPU of this process, without that of the database;
how many changes there are in a second, by eight threads; and how long a start takes with many live sessions, and in how
much memory. The server of PostgreSQL is that of `make replicas`, and flushes each commit. Every answer is checked.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import psycopg

from benchmarks.memory import files, microseconds, ways
from pdp.app import Embedded, open_embedded
from pdp.bench.sessions import APPROVER, PEP
from pdp.clock import SystemClock
from pdp.model import Call, CallRequest
from pdp.registry.registrar import Selector, SessionRequest
from pdp.sessions.lease import LeaseTerms
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.sqlitehistory import SQLiteSessionHistory
from pdp.testing.bundles import compile_here
from pdp.testing.inprocess import write_folder
from pdp.testing.waiting import wait_until
from tests.sessions.postgres.postgresserver import running

_CONTROL: Final = "SQLite"
_LEASED: Final = "PostgreSQL, under a lease"
_WANTED: Final = SessionRequest(user="alice", agent="worker", purpose="benchmark", tool_patterns=("bench/*",))
_WRITERS: Final = 8
_LEASE_SECONDS: Final = 1.0
# Copies of the one session that there is.
_FILL: Final = """
INSERT INTO sessions (id, handle_digest, state, tenant, "user", agent, opened_by, requested_at, epoch, parent_id, depth,
  session_json, scope_id, ends_at, expiry_noted)
SELECT 'ses_' || lpad(number::text, 26, '0'), sha256(number::text::bytea), state, tenant, "user", agent, opened_by,
  requested_at, epoch, parent_id, depth,
  replace(replace(session_json, id, 'ses_' || lpad(number::text, 26, '0')), encode(handle_digest, 'hex'),
    encode(sha256(number::text::bytea), 'hex')),
  scope_id, ends_at, expiry_noted
FROM (SELECT * FROM sessions WHERE state = 'active' ORDER BY requested_at DESC LIMIT 1) AS one,
  generate_series(1, %s) AS number
"""


class Places:
    """The folder of the policies and files of SQLite, and the database."""

    def __init__(self, folder: Path, conninfo: str) -> None:
        self._folder, self._conninfo = folder, conninfo
        write_folder(folder / "policies", files())

    @contextmanager
    def on_sqlite(self) -> Iterator[Embedded]:
        """Open a PDP on files of SQLite in the `with` block."""
        store = SQLiteSessionStore(self._folder / "sessions.sqlite")
        history = SQLiteSessionHistory(self._folder / "history.sqlite")
        with closing(open_embedded(self._policies, sessions=store, history=history, compile_files=compile_here)) as pdp:
            yield pdp

    @contextmanager
    def on_postgres(self) -> Iterator[Embedded]:
        """Open a PDP on the database in the `with` block, which has a lease."""
        terms = LeaseTerms(file=self._folder / "lease", seconds=_LEASE_SECONDS, clock=SystemClock())
        store, history = PostgresSessionStore(self._conninfo, lease=terms), PostgresSessionHistory(self._conninfo)
        with closing(open_embedded(self._policies, sessions=store, history=history, compile_files=compile_here)) as pdp:
            wait_until(lambda: store.lease() is not None)
            yield pdp

    def fill(self, sessions: int) -> None:
        """Copy the latest session in the database so often."""
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            connection.execute("SET search_path = pdp_sessions")
            connection.execute(_FILL, (sessions,))
            connection.execute("ANALYZE")

    @property
    def _policies(self) -> Path:
        return self._folder / "policies"


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often each decision is measured, in turns")
    parser.add_argument("--calls", type=int, default=1000, help="calls of a measurement")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long changes are made")
    parser.add_argument("--sessions", type=int, default=100_000, help="live sessions of the start")
    chosen = parser.parse_args()
    with running(18, durable=True) as server, TemporaryDirectory(prefix="pdp-bench-") as folder:
        places = Places(Path(folder), server.conninfo)
        with places.on_sqlite() as control, places.on_postgres() as leased:
            pdps = {_CONTROL: control, _LEASED: leased}
            _print_decisions(pdps, chosen.rounds, chosen.calls)
            _print_changes(pdps, chosen.seconds)
        _print_starts(places, chosen.sessions)
    return 0


def _print_decisions(pdps: Mapping[str, Embedded], rounds: int, calls: int) -> None:
    asked = {name: ways(pdp) for name, pdp in pdps.items()}
    print(
        "| call | CPU µs on SQLite | on PostgreSQL | times SQLite, median | least | most |\n|---|---|---|---|---|---|"
    )
    for way in asked[_CONTROL]:
        found: dict[str, list[float]] = {name: [] for name in pdps}
        # The first round warms up.
        for number in range(rounds + 1):
            for name in pdps:
                spent = microseconds(asked[name][way], calls)
                if number:
                    found[name].append(spent)
        ratios = [there / here for here, there in zip(found[_CONTROL], found[_LEASED], strict=True)]
        costs = " | ".join(f"{statistics.median(found[name]):.1f}" for name in (_CONTROL, _LEASED))
        print(f"| {way} | {costs} | {statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |")


def _print_changes(pdps: Mapping[str, Embedded], seconds: float) -> None:
    print("\n| store | requests of sessions a second | revocations a second |\n|---|---|---|")
    for name, pdp in pdps.items():
        print(f"| {name} | {' | '.join(f'{rate:.0f}' for rate in _changes(pdp, seconds))} |")


def _changes(pdp: Embedded, seconds: float) -> tuple[float, float]:
    """Return how many sessions eight threads request in a second, and how many of these they revoke."""

    def request(_: int) -> list[str]:
        ends_at, ids = time.monotonic() + seconds, list[str]()
        while time.monotonic() < ends_at:
            ids.append(pdp.registrar.request(_WANTED, PEP)[0].session.id)
        return ids

    def revoke(ids: list[str]) -> int:
        ends_at = time.monotonic() + seconds
        for number, session_id in enumerate(ids):
            if time.monotonic() >= ends_at:
                return number
            selector = Selector(kind="session", value=session_id)
            if pdp.registrar.revoke(selector, reason="enough", caller=APPROVER) != (session_id,):
                raise SystemExit("every revocation must change its session")
        return len(ids)

    with ThreadPoolExecutor(max_workers=_WRITERS) as threads:
        requested = list(threads.map(request, range(_WRITERS)))
        began = time.monotonic()
        revoked = sum(threads.map(revoke, requested))
        took = time.monotonic() - began
    return sum(map(len, requested)) / seconds, revoked / took


def _print_starts(places: Places, sessions: int) -> None:
    with places.on_postgres() as pdp:
        view, handle = pdp.registrar.request(_WANTED, PEP)
        pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)
    print("\n| live sessions | seconds until the first answer | MB more of memory |\n|---|---|---|")
    _print_start(places, "few", handle)
    places.fill(sessions)
    _print_start(places, f"{sessions}", handle)


def _print_start(places: Places, name: str, handle: str) -> None:
    gc.collect()
    before, began = _resident(), time.monotonic()
    with places.on_postgres() as pdp:
        call = Call(session_handle=handle, server="bench", tool="plain", arguments_json=b'{"item": "a"}')
        if not pdp.authorizer.authorize(CallRequest(call=call), PEP).allowed:
            raise SystemExit("every call must be allowed")
        took = time.monotonic() - began
        print(f"| {name} | {took:.2f} | {_resident() - before:.1f} |")


def _resident() -> float:
    """Return the memory of this process, in megabytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    sys.exit(main())
