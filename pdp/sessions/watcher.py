"""Read sessions quickly; each read sees every write that any process has acknowledged.

Writers announce their commits (`changesignal.py`), so a read without a new announcement answers from memory.
Otherwise, and at least every `trust_seconds`, the database is asked: on a connection that only reads, SQLite's
`PRAGMA data_version` shows commits by all other connections, in this process and in others (it does not change on the
connection that wrote). Then the sessions that `changes` lists since the last revision seen are dropped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from sys import getsizeof
from threading import Lock
from typing import Any, TypeVar

import apsw
from cachetools import LRUCache

from pdp.errors import StoreUnavailableError
from pdp.foundation.sqlite import ENGINE_ERRORS, unavailable
from pdp.model import Scope, Session
from pdp.sessions.changesignal import ChangeSignal
from pdp.sessions.database import Database, require_known_schema
from pdp.sessions.freezes import Freeze, freeze_of
from pdp.sessions.rows import scope_from, session_of
from pdp.sessions.scopes import ScopePool
from pdp.sessions.values import ActiveBundle, Cut, StoreView

# The memory for sessions, and what each one takes beyond its texts.
MOST_SESSION_BYTES = 48 * 1024 * 1024
_SESSION_BYTES, _PLACE_BYTES = 1024, 64

Key = TypeVar("Key", str, bytes)
Value = str | bytes | float
Chain = tuple[Session, ...]


class RowReader:
    """Builds sessions from rows, on one connection."""

    def __init__(self, connection: apsw.Connection, scopes: ScopePool) -> None:
        self._connection = connection
        self._scopes = scopes

    def all(self, sql: str, bindings: tuple[Value, ...]) -> Chain:
        """Return the sessions whose texts a query selects."""
        # Fetch all rows first: a statement that an error leaves open would hold an old snapshot.
        rows = self._connection.execute(sql, bindings).fetchall()
        return tuple(session_of(str(text), self._scope) for (text,) in rows)

    def by_id(self, session_id: str) -> Session | None:
        """Return the session with this id, or None."""
        found = self.all(BY_ID, (session_id,))
        return found[0] if found else None

    def _scope(self, scope_id: str) -> Scope:
        known = self._scopes.find(scope_id)
        if known is not None:
            return known
        text = self._connection.execute("SELECT tools_json FROM scopes WHERE id = ?", (scope_id,)).get
        if text is None:
            raise StoreUnavailableError(f"the session store lacks scope `{scope_id}`")
        return self._scopes.share(scope_from(scope_id, text))


class RecentSessions(LRUCache[bytes, Session]):
    """The sessions last used, by handle digest and by id: at most `sessions_kept`, in at most 48 MiB."""

    def __init__(self, sessions_kept: int) -> None:
        super().__init__(MOST_SESSION_BYTES, getsizeof=_weight)
        self._most = sessions_kept
        self._digests: dict[str, bytes] = {}

    def keep(self, session: Session) -> None:
        """Remember a session."""
        self[session.handle_digest] = session
        self._digests[session.id] = session.handle_digest
        while len(self) > self._most:
            self.popitem()

    def drop(self, session_id: str) -> None:
        """Forget a session."""
        digest = self._digests.pop(session_id, None)
        if digest is not None:
            del self[digest]

    def popitem(self) -> tuple[bytes, Session]:
        """Forget the least recently used session."""
        digest, session = super().popitem()
        del self._digests[session.id]
        return digest, session

    def clear(self) -> None:
        """Forget all sessions."""
        super().clear()
        self._digests.clear()

    def by_id(self, session_id: str) -> Session | None:
        """Return the session with this id if it is remembered."""
        digest = self._digests.get(session_id)
        return None if digest is None else self[digest]

    def chain_by_handle(self, handle_digest: bytes) -> Chain | None:
        """Return a session and its ancestors if all of them are remembered."""
        return self._chain(self.get(handle_digest))

    def chain_by_id(self, session_id: str) -> Chain | None:
        """Return a session and its ancestors if all of them are remembered."""
        return self._chain(self.by_id(session_id))

    def _chain(self, session: Session | None) -> Chain | None:
        if session is None:
            return None
        chain = [session]
        for ancestor_id in session.ancestor_ids:
            ancestor = self.by_id(ancestor_id)
            if ancestor is None:
                return None
            chain.append(ancestor)
        return tuple(chain)


def _weight(session: Session) -> int:
    """Return about how many bytes a session takes, without what many share, such as their scope."""
    own = (session.purpose, session.reason, session.user_attributes_json, session.terms_json)
    lists = (
        *(*session.labels, *session.grants, *session.tool_patterns, *session.user_groups),
        *session.label_origins.values(),
    )
    return _SESSION_BYTES + sum(map(getsizeof, own)) + sum(_PLACE_BYTES + getsizeof(text) for text in lists)


class Watcher:
    """The `SessionReader` of a store in one process, and its active bundle. Safe for threads.

    For `trust_seconds` after a read of the database, memory answers while nothing was announced. This limits how long
    a removed file, or a write by a foreign program, goes unnoticed. `monotonic` returns seconds.
    """

    def __init__(
        self,
        database: Database,
        scopes: ScopePool,
        signal: ChangeSignal,
        *,
        sessions_kept: int,
        trust_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = Lock()
        self._signal = signal
        self._trust_seconds = trust_seconds
        self._monotonic = monotonic
        self._announced = b""
        self._trusted_until = 0.0
        self._database = database
        self._connection = database.connect()
        self._connection.execute("PRAGMA query_only=ON")
        self._cursor = self._connection.cursor()
        self._reader = RowReader(self._connection, scopes)
        self._recent = RecentSessions(sessions_kept)
        # No commit has this number, so the first read loads everything.
        self._data_version = -1
        self._revision = -1
        self._bundle: ActiveBundle | None = None
        self._cuts: tuple[Cut, ...] = ()
        self._freezes: tuple[Freeze, ...] = ()
        self._high_water_at = 0.0

    def view(self, handle_digest: bytes) -> StoreView:
        """Return the session with this handle digest, its ancestors and the active bundle."""
        with self._lock:
            chain = self._read(handle_digest, self._recent.chain_by_handle, BY_HANDLE)
            return StoreView(
                chain=chain,
                bundle=self._bundle,
                high_water_at=self._high_water_at,
                freeze=freeze_of(chain[0].tenant, self._freezes) if self._freezes and chain else None,
            )

    def get(self, session_id: str) -> Chain:
        """Return a session by public id and its ancestors, nearest first; empty when there is none."""
        with self._lock:
            return self._read(session_id, self._recent.chain_by_id, BY_ID)

    def active_bundle(self) -> ActiveBundle | None:
        """Return the active bundle, or None before the first activation."""
        with self._lock:
            self._read("", _no_session, BY_ID)
            return self._bundle

    def freezes(self) -> tuple[Freeze, ...]:
        """Return all freezes, that of all tenants first."""
        with self._lock:
            self._read("", _no_session, BY_ID)
            return self._freezes

    def high_water_at(self) -> float:
        """Return the latest wall time that was ever stored."""
        with self._lock:
            self._read("", _no_session, BY_ID)
            return self._high_water_at

    def revision(self) -> int:
        """Return the revision of the last write."""
        with self._lock:
            self._read("", _no_session, BY_ID)
            return self._revision

    def close(self) -> None:
        """Close the connection and forget all sessions."""
        with self._lock:
            self._recent.clear()
            self._connection.close()

    def _read(self, key: Key, remembered: Callable[[Key], Chain | None], sql: str) -> Chain:
        # INVARIANT: the announcement is read before the data, so that the next read notices a later write.
        announced, read_at = self._signal.read(), self._monotonic()
        if announced == self._announced and read_at < self._trusted_until:
            chain = remembered(key)
            if chain is not None:
                return chain
        chain = self._read_database(key, remembered, sql)
        self._announced = announced
        self._trusted_until = read_at + self._trust_seconds if self._signal.shared() else 0.0
        return chain

    def _read_database(self, key: Key, remembered: Callable[[Key], Chain | None], sql: str) -> Chain:
        try:
            self._database.require_same_file()
            # `get` reads to the end: an open statement would hold an old snapshot.
            data_version: int = self._cursor.execute("PRAGMA data_version").get
            if data_version == self._data_version:
                chain = remembered(key)
                if chain is not None:
                    return chain
            with snapshot(self._connection):
                self._catch_up()
                chain = remembered(key)
                if chain is None:
                    chain = self._load(sql, key)
            # INVARIANT: the number was read before the snapshot. A commit between the two is already in the snapshot,
            # and is read once more next time; it is never missed.
            self._data_version = data_version
        except ENGINE_ERRORS as error:
            raise unavailable(error) from None
        return chain

    def _catch_up(self) -> None:
        schema_version, revision, forgotten, high_water_at, version, *how = self._connection.execute(_META).get
        require_known_schema(schema_version)
        # A lower revision means that a backup was restored into the file.
        if not forgotten <= self._revision <= revision:
            self._recent.clear()
        cuts = cuts_on(self._connection)
        if cuts != self._cuts:
            self._recent.clear()
            self._cuts = cuts
        self._freezes = freezes_on(self._connection)
        for (session_id,) in self._connection.execute(_CHANGED, (self._revision,)).fetchall():
            self._recent.drop(str(session_id))
        self._bundle = activation_of(version, *how) if version else None
        self._high_water_at = high_water_at
        self._revision = revision

    def _load(self, sql: str, key: str | bytes) -> Chain:
        chain = list(self._reader.all(sql, (key,)))
        for ancestor_id in chain[0].ancestor_ids if chain else ():
            ancestor = self._recent.by_id(ancestor_id) or self._reader.by_id(ancestor_id)
            if ancestor is None:
                raise StoreUnavailableError(f"the session store lacks session `{ancestor_id}`")
            chain.append(ancestor)
        # INVARIANT: sessions are remembered with the present cuts applied.
        chain = list(applied(self._cuts, chain))
        for member in reversed(chain):
            self._recent.keep(member)
        return tuple(chain)


@contextmanager
def snapshot(connection: apsw.Connection) -> Iterator[None]:
    """Have all that is read in the `with` block be of one moment."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def cuts_on(connection: apsw.Connection) -> tuple[Cut, ...]:
    """Return the cuts that a store holds."""
    rows: list[tuple[Any, ...]] = connection.execute("SELECT tenant, user, agent, at, by, reason FROM cuts").fetchall()
    return tuple(
        Cut(tenant=tenant, user=user, agent=agent, at=at, by=by, reason=reason)
        for tenant, user, agent, at, by, reason in rows
    )


def freezes_on(connection: apsw.Connection) -> tuple[Freeze, ...]:
    """Return the freezes that a store holds, that of all tenants first."""
    rows: list[tuple[Any, ...]] = connection.execute(_FREEZES).fetchall()
    return tuple(
        Freeze(
            tenant=tenant,
            id=freeze_id,
            set_at=set_at,
            set_by=set_by,
            reason=reason,
            confirmed_at=confirmed_at,
            confirmed_by=confirmed_by,
        )
        for tenant, freeze_id, set_at, set_by, reason, confirmed_at, confirmed_by in rows
    )


def applied(cuts: tuple[Cut, ...], sessions: Iterable[Session]) -> Chain:
    """Return sessions as they are after cuts."""
    found = tuple(sessions)
    for cut in cuts:
        found = tuple(map(cut.applied, found))
    return found


def activation_of(
    version: str,
    activated_at: float,
    activated_by: str,
    reason: str,
    chosen: int,
    number: int,
    signed_by: str,
    counted_json: str = "[]",
) -> ActiveBundle:
    """Return the activation that a row holds."""
    return ActiveBundle(
        version=version,
        activated_at=activated_at,
        activated_by=activated_by,
        reason=reason,
        chosen=bool(chosen),
        number=number,
        signed_by=signed_by,
        counted=_counted(counted_json),
    )


def _counted(text: str) -> tuple[tuple[str, float], ...]:
    try:
        return tuple((str(name), float(since)) for name, since in json.loads(text))
    except (ValueError, TypeError):
        # What is not known to be counted is a deny.
        return ()


def _no_session(_: str) -> Chain:
    return ()


BY_ID = "SELECT session_json FROM sessions WHERE id = ?"
BY_HANDLE = "SELECT session_json FROM sessions WHERE handle_digest = ?"
_META = (
    "SELECT schema_version, revision, forgotten_revision, high_water_at,"
    " bundle_version, bundle_activated_at, bundle_activated_by,"
    " bundle_reason, bundle_chosen, bundle_number, bundle_signed_by, bundle_counted FROM meta"
)
_CHANGED = "SELECT id FROM changes WHERE kind = 'session' AND revision > ?"
_FREEZES = "SELECT tenant, id, set_at, set_by, reason, confirmed_at, confirmed_by FROM freezes ORDER BY tenant"
