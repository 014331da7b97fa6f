"""Measure a read of a session under a lease beside SQLite, the control: `python -m benchmarks.leases`.

A read is the view of a session that the process remembers, as each decision takes it; a third store asks PostgreSQL at
each. A decision that depends on labels reads these at the primary, in the last row. The cost is CPU time of the calling
thread, without that of the database, and beside it the time until the answer. Every answer is checked. The server of
PostgreSQL is that of `make replicas`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from pdp.clock import SystemClock
from pdp.sessions.lease import MOST_LEASE_SECONDS, LeaseTerms
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.store import SessionStore
from pdp.sessions.values import StoreView
from pdp.testing.stores.samples import make_session
from tests.sessions.postgres.postgresserver import running

_CONTROL, _ASKED, _LEASED = "SQLite", "PostgreSQL, asked", "PostgreSQL, under a lease"
_LABELLED = f"{_LEASED}, with labels"
_SESSION = make_session("measured")

# Microseconds for a read: of CPU, and until the answer.
Cost = tuple[float, float]
Read = Callable[[], StoreView]


def main() -> None:
    """Measure in rounds, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds, in each of which the stores take turns")
    parser.add_argument("--reads", type=int, default=20_000, help="reads of each store in a round")
    given = parser.parse_args()
    with ExitStack() as opened:
        stores = _stores(opened)
        for store in stores.values():
            store.insert(_SESSION, wall_at=time.time())
        reads = {name: partial(store.view, _SESSION.handle_digest, labels=False) for name, store in stores.items()}
        reads[_LABELLED] = partial(stores[_LEASED].view, _SESSION.handle_digest)
        rounds = [_round(reads, given.reads, first=number) for number in range(given.rounds)]
    print("| store | CPU µs a read | times SQLite | µs until the answer |")
    print("|---|---|---|---|")
    for name in reads:
        ratio = statistics.median(one[name][0] / one[_CONTROL][0] for one in rounds)
        cpu, passed = (statistics.median(one[name][which] for one in rounds) for which in (0, 1))
        print(f"| {name} | {cpu:.1f} | {ratio:.2f} | {passed:.1f} |")


def _stores(opened: ExitStack) -> Mapping[str, SessionStore]:
    folder = Path(opened.enter_context(TemporaryDirectory(prefix="pdp-leases-")))
    conninfo = opened.enter_context(running(18)).conninfo
    lease = LeaseTerms(file=folder / "lease", seconds=MOST_LEASE_SECONDS, clock=SystemClock())
    made: Mapping[str, Callable[[], SessionStore]] = {
        _CONTROL: lambda: SQLiteSessionStore(folder / "sessions.sqlite"),
        _ASKED: lambda: PostgresSessionStore(conninfo, namespace="asked"),
        _LEASED: lambda: PostgresSessionStore(conninfo, namespace="leased", lease=lease),
    }
    return {name: opened.enter_context(closing(make())) for name, make in made.items()}


def _round(reads: Mapping[str, Read], times: int, *, first: int) -> Mapping[str, Cost]:
    names = list(reads)
    turns = names[first % len(names) :] + names[: first % len(names)]
    return {name: _cost(reads[name], times) for name in turns}


def _cost(read: Read, times: int) -> Cost:
    expected = (_SESSION,)
    began, cpu_began = time.perf_counter(), time.thread_time()
    right = sum(read().chain == expected for _ in range(times))
    cpu, passed = time.thread_time() - cpu_began, time.perf_counter() - began
    if right != times:
        raise SystemExit(f"error: {times - right} of {times} answers were wrong")
    return cpu / times * 1e6, passed / times * 1e6


if __name__ == "__main__":
    main()
