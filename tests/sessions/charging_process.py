"""Charge one budget from a process of its own until nothing is left: `charging_process.py PATH MOST`.

It prints what is used up after each charge, when the history has acknowledged it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pdp.sessions.sqlitehistory import SQLiteSessionHistory
from pdp.sessions.values import Charge, Debit


def charge(history: SQLiteSessionHistory, most: int) -> None:
    """Take one call after another of a session and of the one above it."""
    debits = tuple(
        Debit(session_id=name, budget="max_calls", amount=1, most=most, window=0, ends_at=5000.0)
        for name in ("ses_child", "ses_parent")
    )
    while used := history.charge(Charge(debits=debits, retry_digest=b"", at=1000.0)).used:
        sys.stdout.write(f"{' '.join(map(str, used))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    charge(SQLiteSessionHistory(Path(sys.argv[1])), int(sys.argv[2]))
