"""Call one tool from many threads of a process of its own until it is denied: `counting_process.py FOLDER HANDLE`.

It prints what the answers rest on, and how often.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pdp.app.embedded import Embedded, open_embedded
from pdp.model import Basis, Call, CallRequest
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.sqlitehistory import SQLiteSessionHistory
from pdp.testing.bundles import compile_here
from tests.machinery.oracle.opened import GATEWAY

THREADS = 16


def opened(folder: Path) -> Embedded:
    """Open a PDP on the files in a folder, which others can share."""
    return open_embedded(
        folder / "policies",
        sessions=SQLiteSessionStore(folder / "sessions.db"),
        history=SQLiteSessionHistory(folder / "history.db"),
        compile_files=compile_here,
    )


def bases(embedded: Embedded, handle: str) -> Counter[str]:
    """Call until the policies deny it."""
    request = CallRequest(call=Call(session_handle=handle, server="git", tool="commit"))
    found: Counter[str] = Counter()
    while not found["forbid"]:
        basis = embedded.authorizer.authorize(request, GATEWAY).ruling.basis
        # Too many calls wait for each other: the answer says to ask again, and a gateway does.
        if basis is not Basis.LEDGER_UNAVAILABLE:
            found[basis.value] += 1
    return found


def main(folder: Path, handle: str) -> None:
    """Call from all threads at once."""
    embedded = opened(folder)
    threading.stack_size(4 * 1024 * 1024)
    with ThreadPoolExecutor(max_workers=THREADS) as threads:
        found = sum(threads.map(lambda _: bases(embedded, handle), range(THREADS)), Counter[str]())
    sys.stdout.write("".join(f"{basis} {number}\n" for basis, number in found.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
