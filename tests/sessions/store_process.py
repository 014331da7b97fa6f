"""Use a session store from a process of its own: `store_process.py PATH obey` or `store_process.py PATH write PREFIX`.

`obey` reads one command per line and answers each with one line; `write` writes until it is killed, and prints what
the store acknowledged.
"""

from __future__ import annotations

import sys
from itertools import count

from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.testing.stores.samples import make_bundle, make_session, revoked, successor_of, unchanged


def obey(store: SQLiteSessionStore) -> None:
    """Do what each line says: `insert NAME`, `revoke NAME`, `activate VERSION` or `view NAME`."""
    for line in sys.stdin:
        verb, name = line.split()
        session = make_session(name)
        if verb == "insert":
            store.insert(session, wall_at=1000.0)
        elif verb == "revoke":
            store.change_tree(session.id, revoked, wall_at=1000.0)
        elif verb == "activate":
            store.activate_bundle(make_bundle(name), b"", unchanged)
        view = store.view(session.handle_digest)
        states = ",".join(each.state.value for each in view.chain) or "-"
        say(f"{states} {view.bundle.version if view.bundle else '-'}")


def write(store: SQLiteSessionStore, prefix: str) -> None:
    """Insert sessions and update each, for ever; print name and epoch when the store has acknowledged."""
    for number in count():
        session = make_session(f"{prefix}-{number}")
        store.insert(session, wall_at=1000.0)
        say(f"{session.id} 1")
        store.update([successor_of(session)], wall_at=1000.0)
        say(f"{session.id} 2")


def say(line: str) -> None:
    """Print a line at once and as a whole."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    path, task, *rest = sys.argv[1:]
    with_store = SQLiteSessionStore(path, busy_seconds=240.0)
    if task == "obey":
        obey(with_store)
    else:
        write(with_store, *rest)
