"""What a process remembers of the sessions in a store, and how it learns what has changed; for any engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from sys import getsizeof
from typing import ClassVar, Final, NamedTuple

from cachetools import LRUCache

from pdp.errors import StoreUnavailableError
from pdp.model import Head, Session
from pdp.sessions.database import SCHEMA_VERSION, require_known_schema
from pdp.sessions.freezes import Freeze, freeze_of
from pdp.sessions.lease import Lease
from pdp.sessions.scopes import ScopePool
from pdp.sessions.sql import Statements, required
from pdp.sessions.sqlrows import BY_HANDLE, BY_ID, Chain, RowReader, activation_of, applied, cuts_on, freezes_on
from pdp.sessions.values import ActiveBundle, Cut, StoreView

# The memory for sessions, and what each one takes beyond its texts.
MOST_SESSION_BYTES: Final = 48 * 1024 * 1024
_SESSION_BYTES, _PLACE_BYTES = 1024, 64
# What a session is looked for by: the digest of its handle, or its id; None for no session.
Key = bytes | str | None
# No store has this revision.
_NO_HEAD: Final = Head(revision=-1, tag="")


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

    def chain(self, key: Key) -> Chain | None:
        """Return a session and its ancestors if all of them are remembered."""
        if key is None:
            return ()
        try:
            session = self[key if isinstance(key, bytes) else self._digests[key]]
        except KeyError:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a store holds beside its sessions right after the change `head`; at first, what is known before any read."""

    head: Head = _NO_HEAD
    bundle: ActiveBundle | None = None
    cuts: tuple[Cut, ...] = ()
    freezes: tuple[Freeze, ...] = ()
    high_water_at: float = 0.0


NOTHING: Final = Moment()


class Reading(NamedTuple):
    """A session with its ancestors, nearest first, and the moment at which they were so."""

    chain: Chain
    moment: Moment


class Learned(NamedTuple):
    """What has changed up to a moment: the sessions with these ids, or `all` of them."""

    moment: Moment
    changed: tuple[str, ...]
    all: bool


class Watching(ABC):
    """The `SessionReader` of a store in one process, and its active bundle. Safe for threads.

    An engine says when memory may answer, and keeps threads apart: see `_read`. Reads of the database use `connection`.
    `schema_version` is the latest that it knows, and `reader` is as in `SQLSessionStore`.
    """

    # Whether calls add labels without a revision, so that memory can lack them.
    _labels_apart: ClassVar[bool] = False

    def __init__(
        self,
        connection: Statements,
        scopes: ScopePool,
        *,
        sessions_kept: int,
        schema_version: int = SCHEMA_VERSION,
        reader: type[RowReader] = RowReader,
    ) -> None:
        self._connection = connection
        self._schema_version = schema_version
        self._reader = reader(connection, scopes)
        # INVARIANT: each session that is remembered is as it was at the moment.
        self._recent = RecentSessions(sessions_kept)
        self._moment = NOTHING

    def view(self, handle_digest: bytes, least: Head | None = None, *, labels: bool = True) -> StoreView:
        """Return the session with this handle digest, its ancestors and the active bundle."""
        read = self._read(handle_digest, least, labels=labels, decides=True)
        return _view_of(read, labelled=labels or not self._labels_apart)

    def known(self, handle_digest: bytes, least: Head | None = None) -> StoreView | None:
        """Return what `view` returns without labels, if memory can tell at once; None where the store must be asked."""
        found = self._known(handle_digest, least)
        return None if found is None else _view_of(found, labelled=not self._labels_apart)

    def get(self, session_id: str) -> Chain:
        """Return a session by public id and its ancestors, nearest first; empty when there is none."""
        return self._read(session_id, labels=True).chain

    def find(self, handle_digest: bytes) -> Chain:
        """Return what `get` does, by handle digest."""
        return self._read(handle_digest, labels=True).chain

    def active_bundle(self) -> ActiveBundle | None:
        """Return the active bundle, or None before the first activation."""
        return self._read(None).moment.bundle

    def freezes(self) -> tuple[Freeze, ...]:
        """Return all freezes, that of all tenants first."""
        return self._read(None).moment.freezes

    def high_water_at(self) -> float:
        """Return the latest wall time that was ever stored."""
        return self._read(None).moment.high_water_at

    def head(self) -> Head:
        """Return the last write."""
        return self._read(None).moment.head

    def lease(self) -> Lease | None:
        """Return the lease by which memory answers; None when the database is asked before each answer."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Close the connection and forget all sessions."""

    @abstractmethod
    def _read(self, key: Key, least: Head | None = None, *, labels: bool = False, decides: bool = False) -> Reading:
        """Return what is remembered, as long as no later write was acknowledged; else ask the database.

        The database is asked in any case when what is remembered does not have `least`; raise `UnknownRevisionError`
        when that has it neither. With `labels` none is missing. A call is allowed by what `decides`: raise
        `StoreUnavailableError` when it may lack what was acknowledged before.
        """

    @abstractmethod
    def _known(self, key: Key, least: Head | None) -> Reading | None:
        """Return what memory may answer, as for `view`, without waiting; None when the database is to be asked."""

    def _has(self, head: Head) -> bool:
        """Say whether what is remembered has a write, and all before it."""
        return not head.tag and head.revision <= self._moment.head.revision

    def _learned(self, before: Moment) -> Learned:
        """Read what has changed after a moment. The caller is in a snapshot, in which it also reads sessions."""
        schema_version, revision, forgotten, high_water_at, version, *how = required(
            self._connection.execute(_META).get, "meta"
        )
        require_known_schema(schema_version, self._schema_version)
        moment = Moment(
            head=Head(revision=revision, tag=""),
            bundle=activation_of(version, *how) if version else None,
            cuts=cuts_on(self._connection),
            freezes=freezes_on(self._connection),
            high_water_at=high_water_at,
        )
        since = before.head.revision
        changed = self._connection.execute(_CHANGED, (since,)).fetchall()
        # A lower revision means that a backup was restored into the file.
        alike = forgotten <= since <= revision and moment.cuts == before.cuts
        return Learned(moment, tuple(str(session_id) for (session_id,) in changed), not alike)

    def _take(self, learned: Learned) -> None:
        """Remember what was learned, and forget what has changed."""
        if learned.all:
            self._recent.clear()
        for session_id in learned.changed:
            self._recent.drop(session_id)
        self._moment = learned.moment

    def _load(self, key: Key, moment: Moment, remembered: Callable[[str], Session | None]) -> Chain:
        """Read a session and its ancestors, unless they are `remembered`, as they are at the moment of the snapshot."""
        chain = list(self._reader.all(BY_HANDLE if isinstance(key, bytes) else BY_ID, (key,)))
        for ancestor_id in chain[0].ancestor_ids if chain else ():
            ancestor = remembered(ancestor_id) or self._reader.by_id(ancestor_id)
            if ancestor is None:
                raise StoreUnavailableError(f"the session store lacks session `{ancestor_id}`")
            chain.append(ancestor)
        # INVARIANT: sessions are remembered with the present cuts applied.
        return tuple(applied(moment.cuts, chain))

    def _keep(self, chain: Chain) -> None:
        """Remember a session and its ancestors."""
        for member in reversed(chain):
            self._recent.keep(member)


def _view_of(read: Reading, *, labelled: bool) -> StoreView:
    chain, moment = read
    return StoreView(
        chain=chain,
        bundle=moment.bundle,
        high_water_at=moment.high_water_at,
        freeze=freeze_of(chain[0].tenant, moment.freezes) if moment.freezes and chain else None,
        labelled=labelled,
    )


_META: Final = (
    "SELECT schema_version, revision, forgotten_revision, high_water_at,"
    " bundle_version, bundle_activated_at, bundle_activated_by,"
    " bundle_reason, bundle_chosen, bundle_number, bundle_signed_by, bundle_counted FROM meta"
)
_CHANGED: Final = "SELECT id FROM changes WHERE kind = 'session' AND revision > ?"
