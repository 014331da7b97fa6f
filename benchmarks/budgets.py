"""Measure budgets in slices beside exact ones, on PostgreSQL that two PDPs share: `python -m benchmarks.budgets`.

Four threads at each PDP make calls of one session with one budget, exact and in slices in turns: how many are allowed
in a second, and how many transactions of the database that write each of them costs, renewals of leases included. The
server of PostgreSQL flushes each commit. Every answer is checked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import psycopg

from pdp.app.embedded import Embedded, open_embedded
from pdp.bench.sessions import APPROVER, PEP
from pdp.clock import SystemClock
from pdp.model import Call, CallRequest
from pdp.registry.words import SessionRequest
from pdp.sessions.lease import LeaseTerms
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.testing.bundles import bundle_files, compile_here, tool, with_terms
from pdp.testing.inprocess import write_folder
from pdp.testing.waiting import wait_until
from tests.sessions.postgres.postgresserver import running

_EXACT: Final = "exact"
# Each is the name of a term, and the same limit.
_WAYS: Final = {
    _EXACT: "max_calls",
    '@slices("1000"), of 100 calls': "max_calls_of_read_only",
    '@slices("10"), of 10,000 calls': "max_calls_of_many",
}
_MOST: Final = 100_000
_THREADS: Final = 4
_LEASE_SECONDS: Final = 1.0
_TERMS: Final = (
    'max_calls?: Long, @slices("1000") max_calls_of_read_only?: Long, @slices("10") max_calls_of_many?: Long'
)
_FILES: Final = bundle_files(
    policies={"bench": '@id("bench/all") permit (principal, action, resource);'},
    tools={"bench": [tool("plain")]},
    overlays={"bench": "risk: read_only\ntools: {plain: {groups: [many]}}"},
    directory=json.dumps({"users": {"alice": {}}, "agents": {"worker": {"ceiling": ["bench/*"]}}}),
    manifest="groups: {many: {meaning: all tools}}",
    schema=with_terms(_TERMS),
)
# The next number of a transaction that writes.
_WRITTEN: Final = "SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint)"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each way is measured, in turns")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long calls are made")
    chosen = parser.parse_args()
    with ExitStack() as opened:
        folder = Path(opened.enter_context(TemporaryDirectory(prefix="pdp-bench-")))
        write_folder(folder / "policies", _FILES)
        conninfo = opened.enter_context(running(18, durable=True)).conninfo
        pdps = [opened.enter_context(_on_postgres(folder, name, conninfo)) for name in ("here", "there")]
        database = opened.enter_context(psycopg.connect(conninfo, autocommit=True))
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in _WAYS}
        # The first round warms up.
        for number in range(chosen.rounds + 1):
            for way, term in _WAYS.items():
                measured = _measured(pdps, database, term, chosen.seconds)
                if number:
                    found[way].append(measured)
    _print(found)
    return 0


@contextmanager
def _on_postgres(folder: Path, name: str, conninfo: str) -> Iterator[Embedded]:
    """Open a PDP on the database in the `with` block, which has a lease."""
    terms = LeaseTerms(file=folder / name, seconds=_LEASE_SECONDS, clock=SystemClock())
    store = PostgresSessionStore(conninfo, lease=terms)
    history = PostgresSessionHistory(conninfo, beside=store)
    policies = folder / "policies"
    with closing(open_embedded(policies, sessions=store, history=history, compile_files=compile_here)) as pdp:
        wait_until(lambda: store.lease() is not None)
        yield pdp


def _measured(
    pdps: Sequence[Embedded], database: psycopg.Connection[tuple[int]], term: str, seconds: float
) -> tuple[float, float]:
    """Return how many calls of a new session are allowed in a second, and how many transactions write for each."""
    wanted = SessionRequest(
        user="alice",
        agent="worker",
        purpose="benchmark",
        tool_patterns=("bench/*",),
        terms_json=json.dumps({term: _MOST}).encode(),
    )
    view, handle = pdps[0].registrar.request(wanted, PEP)
    pdps[0].registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)
    asked = CallRequest(call=Call(session_handle=handle, server="bench", tool="plain", arguments_json=b""))

    def ask(pdp: Embedded) -> int:
        ends_at, calls = time.monotonic() + seconds, 0
        while time.monotonic() < ends_at:
            if not pdp.authorizer.authorize(asked, PEP).allowed:
                raise SystemExit("every call must be allowed")
            calls += 1
        return calls

    before = _written(database)
    with ThreadPoolExecutor(max_workers=len(pdps) * _THREADS) as threads:
        calls = sum(threads.map(ask, [*pdps] * _THREADS))
    return calls / seconds, (_written(database) - before) / calls


def _written(database: psycopg.Connection[tuple[int]]) -> int:
    ((number,),) = database.execute(_WRITTEN).fetchall()
    return number


def _print(found: dict[str, list[tuple[float, float]]]) -> None:
    print("| budget | calls a second, median | least | most | times exact | transactions a call |")
    print("|---|---|---|---|---|---|")
    exact = statistics.median(rate for rate, _ in found[_EXACT])
    for way, measured in found.items():
        rates = [rate for rate, _ in measured]
        median, writes = statistics.median(rates), statistics.median(one for _, one in measured)
        print(f"| {way} | {median:.0f} | {min(rates):.0f} | {max(rates):.0f} | {median / exact:.1f} | {writes:.4f} |")


if __name__ == "__main__":
    sys.exit(main())
