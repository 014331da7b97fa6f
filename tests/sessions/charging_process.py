"""Charge from a process of its own until nothing is left: `charging_process.py PATH MOST budget|count THREADS`.

It prints what is used up of a budget, or how many calls are counted, after each charge that the history acknowledged.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pdp.errors import ConflictError
from pdp.sessions.sqlitehistory import SQLiteSessionHistory
from pdp.sessions.values import Addend, Charge, Count, Debit
from pdp.testing.stores.samples import make_moment

SESSIONS = ("ses_child", "ses_parent")
# One that waits for the file only looks now and then, and others can take it in between for as long as they have work.
PATIENCE = 240.0


def charge(history: SQLiteSessionHistory, most: int) -> Iterator[tuple[int, ...]]:
    """Take one call after another of the budgets of a session and of the one above it."""
    debits = tuple(
        Debit(session_id=name, budget="max_calls", amount=1, most=most, window=0, ends_at=5000.0) for name in SESSIONS
    )
    while used := history.charge(Charge(debits=debits, retry_digest=b"", now=make_moment(1000.0))).used:
        yield used


def count(history: SQLiteSessionHistory, most: int) -> Iterator[tuple[int, ...]]:
    """Count one call after another in a session and in the one above it, each for the counts that it has seen."""
    addends = tuple(Addend(name, "git/commit", 5000.0) for name in SESSIONS)
    while True:
        found = history.counts(SESSIONS, ["git/commit"]).of
        seen = {(name, "git/commit"): found.get((name, "git/commit"), Count()) for name in SESSIONS}
        if any(one.made >= most for one in seen.values()):
            return
        try:
            history.charge(Charge(debits=(), retry_digest=b"", now=make_moment(1000.0), addends=addends, seen=seen))
        except ConflictError:
            continue
        yield tuple(one.made + 1 for one in seen.values())


def say(lines: Iterator[tuple[int, ...]]) -> None:
    """Print each at once."""
    for numbers in lines:
        sys.stdout.write(f"{' '.join(map(str, numbers))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    shared = SQLiteSessionHistory(Path(sys.argv[1]), busy_seconds=PATIENCE)
    kind = {"budget": charge, "count": count}[sys.argv[3]]
    with ThreadPoolExecutor(max_workers=int(sys.argv[4])) as threads:
        for done in [threads.submit(say, kind(shared, int(sys.argv[2]))) for _ in range(int(sys.argv[4]))]:
            done.result()
