"""What a process remembers of the sessions in a store, and how it learns what has changed; for any engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from sys import getsizeof
from typing import ClassVar, Final, TypeVar

from cachetools import LRUCache

from pdp.errors import StoreUnavailableError, UnknownRevisionError
from pdp.model import Head, Session
from pdp.sessions.database import SCHEMA_VERSION, require_known_schema
from pdp.sessions.freezes import Freeze, freeze_of
from pdp.sessions.lease import Lease
from pdp.sessions.scopes import ScopePool
from pdp.sessions.sql import Statements
from pdp.sessions.sqlrows import BY_HANDLE, BY_ID, Chain, RowReader, activation_of, applied, cuts_on, freezes_on
from pdp.sessions.values import NOT_ITS_OWN, ActiveBundle, Cut, StoreView

# The memory for sessions, and what each one takes beyond its texts.
MOST_SESSION_BYTES: Final = 48 * 1024 * 1024
_SESSION_BYTES, _PLACE_BYTES = 1024, 64

Key = TypeVar("Key", str, bytes)


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


class Watching(ABC):
    """The `SessionReader` of a store in one process, and its active bundle. Safe for threads.

    An engine says when memory may answer: see `_read`. Reads hold `lock`, and use `connection`. `schema_version` is the
    latest that it knows, and `reader` is as in `SQLSessionStore`.
    """

    # Whether calls add labels without a revision, so that memory can lack them.
    _labels_apart: ClassVar[bool] = False

    def __init__(
        self,
        connection: Statements,
        scopes: ScopePool,
        lock: AbstractContextManager[object],
        *,
        sessions_kept: int,
        schema_version: int = SCHEMA_VERSION,
        reader: type[RowReader] = RowReader,
    ) -> None:
        self._lock = lock
        self._connection = connection
        self._schema_version = schema_version
        self._reader = reader(connection, scopes)
        self._recent = RecentSessions(sessions_kept)
        # No store has this revision, so the first read loads everything.
        self._revision = -1
        self._bundle: ActiveBundle | None = None
        self._cuts: tuple[Cut, ...] = ()
        self._freezes: tuple[Freeze, ...] = ()
        self._high_water_at = 0.0

    def view(self, handle_digest: bytes, least: Head | None = None, *, labels: bool = True) -> StoreView:
        """Return the session with this handle digest, its ancestors and the active bundle."""
        with self._lock:
            chain = self._read(handle_digest, self._recent.chain_by_handle, BY_HANDLE, least)
            if least is not None and not self._has(least):
                raise UnknownRevisionError(NOT_ITS_OWN)
            if labels and self._labels_apart:
                chain = self._with_labels(chain)
            self._require_vouched()
            return StoreView(
                chain=chain,
                bundle=self._bundle,
                high_water_at=self._high_water_at,
                freeze=freeze_of(chain[0].tenant, self._freezes) if self._freezes and chain else None,
                labelled=labels or not self._labels_apart,
            )

    def get(self, session_id: str) -> Chain:
        """Return a session by public id and its ancestors, nearest first; empty when there is none."""
        with self._lock:
            chain = self._read(session_id, self._recent.chain_by_id, BY_ID)
            return self._with_labels(chain) if self._labels_apart else chain

    def find(self, handle_digest: bytes) -> Chain:
        """Return what `get` does, by handle digest."""
        with self._lock:
            chain = self._read(handle_digest, self._recent.chain_by_handle, BY_HANDLE)
            return self._with_labels(chain) if self._labels_apart else chain

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

    def head(self) -> Head:
        """Return the last write."""
        with self._lock:
            self._read("", _no_session, BY_ID)
            return self._head()

    def lease(self) -> Lease | None:
        """Return the lease by which memory answers; None when the database is asked before each answer."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Close the connection and forget all sessions."""

    @abstractmethod
    def _read(self, key: Key, remembered: Callable[[Key], Chain | None], sql: str, least: Head | None = None) -> Chain:
        """Return what is `remembered`, as long as no later write was acknowledged; else read it with `sql`.

        Then what else is remembered is as new: `_catch_up` and `_load` are called in one snapshot. The database is
        asked in any case when what is remembered does not have `least`.
        """

    def _head(self) -> Head:
        """Return the last write that is in what is remembered."""
        return Head(revision=self._revision, tag="")

    def _has(self, head: Head) -> bool:
        """Say whether what is remembered has a write, and all before it."""
        return not head.tag and head.revision <= self._revision

    def _with_labels(self, chain: Chain) -> Chain:
        """Return a chain with all labels that were added until now."""
        return chain

    def _catch_up(self) -> None:
        """Learn what has changed since the last read."""
        schema_version, revision, forgotten, high_water_at, version, *how = self._connection.execute(_META).get
        require_known_schema(schema_version, self._schema_version)
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

    def _require_vouched(self) -> None:
        """Raise `StoreUnavailableError` when what was just read may lack what was acknowledged before."""
        return

    def _load(self, sql: str, key: str | bytes) -> Chain:
        """Read a session and its ancestors, and remember them."""
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


def _no_session(_: str) -> Chain:
    return ()


_META: Final = (
    "SELECT schema_version, revision, forgotten_revision, high_water_at,"
    " bundle_version, bundle_activated_at, bundle_activated_by,"
    " bundle_reason, bundle_chosen, bundle_number, bundle_signed_by, bundle_counted FROM meta"
)
_CHANGED: Final = "SELECT id FROM changes WHERE kind = 'session' AND revision > ?"
