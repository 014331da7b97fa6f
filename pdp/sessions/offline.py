"""Lift a freeze while no server runs: the owner of the data folder needs no second person."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from pdp.clock import Instant, no_earlier
from pdp.errors import NotFoundError, StoreUnavailableError
from pdp.sessions.changesignal import unused
from pdp.sessions.database import signal_path
from pdp.sessions.freezes import Freeze
from pdp.sessions.sqlite import SQLiteSessionStore

# Recorded as the caller that lifted it.
BY = "freeze-lift"


def lift_offline(path: Path, freeze_id: str, *, now: Instant, known_revision: int = 0) -> Freeze:
    """Lift a freeze in the store at `path`, and return it; without an id, the only one that there is.

    A store that lacks changes up to `known_revision` is refused. Raise `StoreUnavailableError` when a server uses the
    store, and `NotFoundError` when there is no such freeze, or there are several.
    """
    if not path.exists():
        raise StoreUnavailableError(f"there is no session store: `{path}`")
    try:
        # A server that starts from here on does no harm: who may do this may do it at any time.
        with unused(signal_path(path)):
            pass
    except BlockingIOError:
        raise StoreUnavailableError(f"a server uses the session store: `{path}`; stop it, then lift") from None
    with closing(SQLiteSessionStore(path, known_revision=known_revision)) as store:
        freeze = _chosen(store.freezes(), freeze_id)
        store.change_freeze(freeze.id, lambda _: None, wall_at=no_earlier(now, store.high_water_at()).wall_at)
    return freeze


def _chosen(freezes: tuple[Freeze, ...], freeze_id: str) -> Freeze:
    found = [one for one in freezes if freeze_id in ("", one.id)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(f"`{one.id}` ({one.tenant or 'all tenants'})" for one in freezes)
    raise NotFoundError(f"name one of {listed}" if listed else "nothing is frozen")
