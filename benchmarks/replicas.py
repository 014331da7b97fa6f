"""Measure PDPs on PostgreSQL, under a lease, beside SQLite, the control: `python -m benchmarks.replicas`.

What a decision costs in each way of asking of `benchmarks.memory`: CPU of this process, without that of the database;
how many changes there are in a second, by eight threads; and how long a start takes with many live sessions, and in how
much memory, beside one with few. Each is repeated in rounds, in which those that are compared take turns. The server of
PostgreSQL is that of `make replicas`, and flushes each commit. Every answer is checked.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import psycopg

from benchmarks.memory import files, microseconds, ways
from pdp.app.embedded import Embedded, open_embedded
from pdp.bench.sessions import APPROVER, PEP
from pdp.clock import SystemClock
from pdp.model import Call, CallRequest
from pdp.registry.words import Selector, SessionRequest
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
# What the store with many sessions is called in the database, beside the usual one.
_MANY: Final = "many"
_QUARTILES: Final = "median | lower quartile | upper quartile"
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
        self.folder, self.conninfo = folder, conninfo
        if not self._policies.exists():
            write_folder(self._policies, files())

    @contextmanager
    def on_sqlite(self) -> Iterator[Embedded]:
        """Open a PDP on files of SQLite in the `with` block."""
        store = SQLiteSessionStore(self.folder / "sessions.sqlite")
        history = SQLiteSessionHistory(self.folder / "history.sqlite")
        with closing(open_embedded(self._policies, sessions=store, history=history, compile_files=compile_here)) as pdp:
            yield pdp

    @contextmanager
    def on_postgres(self, namespace: str = "pdp") -> Iterator[Embedded]:
        """Open a PDP on the database in the `with` block, which has a lease."""
        terms = LeaseTerms(file=self.folder / f"lease-{namespace}", seconds=_LEASE_SECONDS, clock=SystemClock())
        store = PostgresSessionStore(self.conninfo, namespace=namespace, lease=terms)
        history = PostgresSessionHistory(self.conninfo, namespace=namespace)
        with closing(open_embedded(self._policies, sessions=store, history=history, compile_files=compile_here)) as pdp:
            wait_until(lambda: store.lease() is not None)
            yield pdp

    def fill(self, sessions: int) -> None:
        """Copy the latest session of the store with many so often."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(f"SET search_path = {_MANY}_sessions")
            connection.execute(_FILL, (sessions,))
            connection.execute("ANALYZE")

    @property
    def _policies(self) -> Path:
        return self.folder / "policies"


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured, in turns; at least 2")
    parser.add_argument("--calls", type=int, default=1000, help="calls of a measurement")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long changes of a kind are made in a round")
    parser.add_argument("--sessions", type=int, default=100_000, help="live sessions of the start")
    parser.add_argument("--start", nargs=4, metavar="TEXT", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.start:
        _start(*chosen.start)
        return 0
    with running(18, durable=True) as server, TemporaryDirectory(prefix="pdp-bench-") as folder:
        places = Places(Path(folder), server.conninfo)
        with places.on_sqlite() as control, places.on_postgres() as leased:
            pdps = {_CONTROL: control, _LEASED: leased}
            _print_decisions(pdps, chosen.rounds, chosen.calls)
            _print_changes(pdps, chosen.rounds, chosen.seconds)
        _print_starts(places, chosen.rounds, chosen.sessions)
    return 0


def _print_decisions(pdps: Mapping[str, Embedded], rounds: int, calls: int) -> None:
    asked = {name: ways(pdp) for name, pdp in pdps.items()}
    print(f"| call | CPU µs on SQLite | on PostgreSQL | times SQLite: {_QUARTILES} |\n|---|---|---|---|---|---|")
    for way in asked[_CONTROL]:
        found: dict[str, list[float]] = {name: [] for name in pdps}
        # The first round warms up.
        for number in range(rounds + 1):
            for name in _turns(pdps, number):
                spent = microseconds(asked[name][way], calls)
                if number:
                    found[name].append(spent)
        costs = " | ".join(f"{statistics.median(found[name]):.1f}" for name in (_CONTROL, _LEASED))
        print(f"| {way} | {costs} | {_quartiles(_ratios(found), 2)} |", flush=True)


def _print_changes(pdps: Mapping[str, Embedded], rounds: int, seconds: float) -> None:
    found = [{name: _changes(pdps[name], seconds) for name in _turns(pdps, number)} for number in range(rounds)]
    print(f"\n| changes a second | on SQLite | on PostgreSQL | times SQLite: {_QUARTILES} |\n|---|---|---|---|---|---|")
    for place, kind in enumerate(("requests of sessions", "revocations")):
        rates = {name: [one[name][place] for one in found] for name in pdps}
        medians = " | ".join(f"{statistics.median(rates[name]):.0f}" for name in (_CONTROL, _LEASED))
        print(f"| {kind} | {medians} | {_quartiles(_ratios(rates), 2)} |", flush=True)


def _turns(names: Mapping[str, object] | Sequence[str], number: int) -> list[str]:
    """Return names in the order of a round: each is the first one in its turn."""
    listed = list(names)
    return listed[number % len(listed) :] + listed[: number % len(listed)]


def _ratios(found: Mapping[str, Sequence[float]]) -> list[float]:
    """Return the ratio to the control in each round."""
    return [there / here for here, there in zip(found[_CONTROL], found[_LEASED], strict=True)]


def _quartiles(values: Sequence[float], digits: int) -> str:
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median:.{digits}f} | {lower:.{digits}f} | {upper:.{digits}f}"


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


def _print_starts(places: Places, rounds: int, sessions: int) -> None:
    handles = {namespace: _opened(places, namespace) for namespace in ("pdp", _MANY)}
    places.fill(sessions)
    found: dict[str, list[tuple[float, float]]] = {namespace: [] for namespace in handles}
    for number in range(rounds):
        for namespace in _turns(handles, number):
            found[namespace].append(_started(places, namespace, handles[namespace]))
    for place, what in enumerate(("seconds from the start to the first right answer", "MB of memory then")):
        print(f"\n| live sessions | {what}: {_QUARTILES} |\n|---|---|---|---|")
        for namespace, name in (("pdp", "few"), (_MANY, f"{sessions}")):
            print(f"| {name} | {_quartiles([one[place] for one in found[namespace]], 2)} |")


def _opened(places: Places, namespace: str) -> str:
    """Open a session in a store; return its handle."""
    with places.on_postgres(namespace) as pdp:
        view, handle = pdp.registrar.request(_WANTED, PEP)
        pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)
    return handle


def _started(places: Places, namespace: str, handle: str) -> tuple[float, float]:
    """Start a process on a store; return the seconds until its first answer, and the megabytes that it has then."""
    command = [sys.executable, "-m", "benchmarks.replicas", "--start"]
    given = (str(places.folder), places.conninfo, namespace, handle)
    done = subprocess.run([*command, *given], check=True, capture_output=True, text=True)
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes


def _start(folder: str, conninfo: str, namespace: str, handle: str) -> None:
    """Open a PDP in this process, ask once, and print the seconds and the megabytes that it took."""
    began = time.monotonic()
    with Places(Path(folder), conninfo).on_postgres(namespace) as pdp:
        call = Call(session_handle=handle, server="bench", tool="plain", arguments_json=b'{"item": "a"}')
        if not pdp.authorizer.authorize(CallRequest(call=call), PEP).allowed:
            raise SystemExit("every call must be allowed")
        print(time.monotonic() - began, _resident())


def _resident() -> float:
    """Return the memory of this process, in megabytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    sys.exit(main())
