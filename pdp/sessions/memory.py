"""Keep sessions in memory: for tests, and for embedded use that does not need them after its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from heapq import nlargest, nsmallest
from itertools import islice, starmap
from secrets import token_hex
from threading import Lock
from typing import TypeVar

from pdp.errors import ConflictError, StoreUnavailableError, UnknownRevisionError
from pdp.foundation.threads import MOMENT_SECONDS
from pdp.model import Head, Session, SessionState
from pdp.sessions.freezes import Freeze, FreezeChange, freeze_of, freeze_with_id, require_unfrozen
from pdp.sessions.lifecycle import LIVE, labelled, over_at
from pdp.sessions.memoryages import Ages, age
from pdp.sessions.memoryoutbox import MemoryOutbox
from pdp.sessions.memorywrites import MemoryWrites
from pdp.sessions.outbox import FIRST_IDS, Untold, cut_event, freeze_event, session_event, session_expiry
from pdp.sessions.scopes import ScopePool
from pdp.sessions.succession import (
    BUNDLES_KEPT,
    VERSIONS_REMEMBERED,
    chain_with,
    gives_authority,
    require_expected,
    require_new,
    require_renewed,
    require_successor,
    require_unchanged,
    successors_of,
)
from pdp.sessions.unrecorded import Account
from pdp.sessions.values import (
    NOT_ITS_OWN,
    ActiveBundle,
    BundlePast,
    Captured,
    Change,
    Changes,
    Cut,
    Expected,
    SessionFilter,
    StoreView,
)
from pdp.sessions.writes import Write

T = TypeVar("T")

_CHANGES_KEPT = 10_000


class MemorySessionStore:
    """A `SessionStore` that lives as long as its process. Safe for threads.

    `bundles_kept` is how many of the last active bundles keep their content. With `tells` it has events for receivers
    outside.
    """

    def __init__(self, *, bundles_kept: int = BUNDLES_KEPT, tells: bool = False) -> None:
        self._bundles_kept = bundles_kept
        self._outbox = MemoryOutbox(tells=tells)
        self._writes = MemoryWrites()
        # Of those requested while it told, the live ones whose expiry was not noted.
        self._unexpired: dict[str, None] = {}
        self._lock = Lock()
        self._scopes = ScopePool()
        self._sessions: dict[str, Session] = {}
        self._ids: dict[bytes, str] = {}
        self._ages = Ages()
        self._children: dict[str, list[str]] = {}
        self._cuts: dict[tuple[str, str, str], Cut] = {}
        # By their tenants.
        self._freezes: dict[str, Freeze] = {}
        self._bundle: ActiveBundle | None = None
        # In order of their latest activation.
        self._kept: dict[str, tuple[ActiveBundle, bytes]] = {}
        self._past: dict[str, None] = {}
        self._highest_number = 0
        self._high_water_at = 0.0
        # The last revision of each session, in that order; a cut has no id.
        self._changed: dict[str, int] = {}
        self._revision = self._forgotten = 0
        # Each store begins another history.
        self._tag = token_hex(8)
        self._closed = False

    def view(self, handle_digest: bytes, least: Head | None = None, *, labels: bool = True) -> StoreView:  # noqa: ARG002 - labels are always there
        """Return the session with this handle digest, its ancestors and the active bundle."""
        # Not with `_open`: for each tool call, a generator costs as much as the look-up.
        with self._lock:
            return self._view(handle_digest, least)

    def known(self, handle_digest: bytes, least: Head | None = None) -> StoreView | None:
        """Return what `view` returns, unless the store is being changed."""
        if not self._lock.acquire(timeout=MOMENT_SECONDS):
            return None
        try:
            return self._view(handle_digest, least)
        finally:
            self._lock.release()

    def get(self, session_id: str) -> tuple[Session, ...]:
        """Return a session by public id and its ancestors, nearest first; empty when there is none."""
        with self._open():
            return self._chain(session_id)

    def find(self, handle_digest: bytes) -> tuple[Session, ...]:
        """Return what `get` does, by handle digest."""
        with self._open():
            return self._chain(self._ids.get(handle_digest, ""))

    def high_water_at(self) -> float:
        """Return the latest wall time that was ever stored."""
        with self._open():
            return self._high_water_at

    def written(self, write: Write, *, wall_at: float) -> tuple[str, ...] | None:
        """Return the ids of the sessions of a change that is remembered; None when it is not."""
        with self._open():
            return self._writes.find(write, wall_at=wall_at)

    def insert(self, session: Session, *, wall_at: float, write: Write | None = None) -> None:
        """Add a new session. `ConflictError` when its id or handle exists."""
        with self._open():
            self._writes.require_new(write, wall_at=wall_at)
            if session.id in self._sessions or session.handle_digest in self._ids:
                raise ConflictError(f"a session with this id or handle exists: `{session.id}`")
            require_new(session, self._sessions.get(session.parent_id))
            require_unfrozen(session.tenant, self._freezes.values())
            self._write([session], wall_at, write)
            self._ids[session.handle_digest] = session.id
            self._ages.add(session)
            self._children.setdefault(session.parent_id, []).append(session.id)

    def update(self, sessions: Sequence[Session], *, wall_at: float, write: Write | None = None) -> None:
        """Replace sessions, all or none. Each must be the direct successor of what is stored."""
        with self._open():
            self._writes.require_new(write, wall_at=wall_at)
            draft: dict[str, Session] = {}
            for session in sessions:
                stored = draft.get(session.id) or self._sessions.get(session.id)
                require_successor(stored, session)
                if gives_authority(stored, session):
                    require_unfrozen(session.tenant, self._freezes.values())
                draft[session.id] = session
            self._write(draft.values(), wall_at, write)

    def renew_handle(self, session: Session, *, wall_at: float) -> None:
        """Replace a session that waits for approval by its direct successor with another handle; the first is void."""
        with self._open():
            stored = self._sessions.get(session.id)
            require_renewed(stored, session)
            if stored is not None:
                del self._ids[stored.handle_digest]
            self._ids[session.handle_digest] = session.id
            self._write([session], wall_at)

    def select(
        self, which: SessionFilter, *, limit: int, before: tuple[float, str] | None = None
    ) -> tuple[Session, ...]:
        """Return matching sessions, newest first."""
        with self._open():
            candidates = (self._sessions[one] for one in self._ages.newest_first(which, before))
            found = (session for session in candidates if _matches(which, session))
            return tuple(map(self._seen, islice(found, max(limit, 0))))

    def live_families(self, which: SessionFilter, *, wall_at: float, limit: int) -> tuple[int, tuple[Session, ...]]:
        """Return how many live sessions there are among matching ones and all their descendants, and the newest."""
        live = SessionFilter(states=LIVE, ends_after=wall_at)
        with self._open():
            matching = [session.id for session in self._sessions.values() if _matches(which, session)]
            found = [session for session in self._families(matching) if _matches(live, session)]
            return len(found), tuple(map(self._seen, nlargest(limit, found, key=age)))

    def head(self) -> Head:
        """Return the latest change."""
        with self._open():
            return self._head()

    def lease(self) -> None:
        """Return the lease by which memory answers: it needs none."""

    def changed(self, *, after: Head, limit: int) -> Changes | None:
        """Return the sessions that were inserted or changed after a change."""
        with self._open():
            ids = sorted(session_id for session_id, revision in self._changed.items() if revision > after.revision)
            if after.revision < self._forgotten or not self._has(after) or len(ids) > limit or "" in ids:
                return None
            sessions = tuple(self._seen(self._sessions[one]) for one in ids if one in self._sessions)
            version = self._bundle.version if self._bundle else ""
            freezes = self._sorted_freezes()
            return Changes(head=self._head(), sessions=sessions, bundle_version=version, freezes=freezes)

    def cut(self, cut: Cut) -> None:
        """Revoke any number of sessions at once."""
        with self._open():
            if self._outbox.tells:
                self._tell_cut(cut)
            self._cuts[cut.tenant, cut.user, cut.agent] = cut
            self._write([], cut.at)
            self._note([""])

    def cuts(self) -> tuple[Cut, ...]:
        """Return the cuts that are not lifted."""
        with self._open():
            return tuple(self._cuts.values())

    def lift(self, cut: Cut, *, write: Write | None = None, session_ids: tuple[str, ...] = ()) -> None:
        """Remove a cut."""
        key = cut.tenant, cut.user, cut.agent
        with self._open():
            self._writes.require_new(write, wall_at=cut.at)
            self._writes.remember(write, session_ids, wall_at=cut.at)
            # A later cut of the same sessions can have replaced it.
            if self._cuts.get(key) == cut:
                del self._cuts[key]

    def freezes(self) -> tuple[Freeze, ...]:
        """Return all freezes, that of all tenants first."""
        with self._open():
            return self._sorted_freezes()

    def freeze(self, freeze: Freeze, *, write: Write | None = None) -> None:
        """Stop all calls of a tenant, or of all tenants."""
        with self._open():
            self._writes.require_new(write, wall_at=freeze.set_at)
            self._writes.remember(write, (freeze.id,), wall_at=freeze.set_at)
            self._freezes[freeze.tenant] = freeze
            self._outbox.add([freeze_event(None, freeze, at=freeze.set_at)])
            self._write([], freeze.set_at)

    def change_freeze(
        self, freeze_id: str, change: FreezeChange, *, wall_at: float, write: Write | None = None
    ) -> Freeze | None:
        """Replace a freeze by what `change` makes of it, or remove it."""
        with self._open():
            self._writes.require_new(write, wall_at=wall_at)
            stored = freeze_with_id(freeze_id, self._freezes.values())
            successor = change(stored)
            self._writes.remember(write, (freeze_id,), wall_at=wall_at)
            if successor is None:
                del self._freezes[stored.tenant]
            else:
                self._freezes[stored.tenant] = successor
            self._outbox.add([freeze_event(stored, successor, at=wall_at)])
            self._write([], wall_at)
            return successor

    @contextmanager
    def unfrozen(self, tenant: str) -> Iterator[None]:
        """Keep a tenant from being frozen while the `with` block runs."""
        with self._open():
            require_unfrozen(tenant, self._freezes.values())
            yield

    def change_where(
        self, which: SessionFilter, change: Change, *, wall_at: float, limit: int | None = None
    ) -> tuple[Session, ...]:
        """Apply `change` to matching sessions and all their descendants in one transaction."""
        with self._open():
            matching = [session for session in self._sessions.values() if _matches(which, session)]
            chosen = matching if limit is None else nlargest(limit, matching, key=age)
            return self._write(successors_of(self._families(one.id for one in chosen), change), wall_at)

    def change_tree(
        self, session_id: str, change: Change, *, wall_at: float, write: Write | None = None
    ) -> tuple[Session, ...]:
        """Apply `change` to one session and all its descendants in one transaction."""
        with self._open():
            self._writes.require_new(write, wall_at=wall_at)
            known = [session_id] if session_id in self._sessions else []
            return self._write(successors_of(self._families(known), change), wall_at, write)

    def settle(
        self, chain: Sequence[Session], labels: frozenset[str], *, by: str, wall_at: float
    ) -> tuple[Session, ...]:
        """Add labels to a session and its ancestors; return the whole chain as it is afterwards."""
        with self._open():
            require_unchanged(chain, self._chain(chain[0].id), self._freeze_of(chain[0].tenant))
            return chain_with(chain, self._write(successors_of(chain, labelled(labels, by=by)), wall_at))

    def fencing(self, account: Account | None = None) -> AbstractContextManager[None]:  # noqa: ARG002 - nothing is kept
        """Wait for nothing: all see a write when its method returns."""
        return nullcontext()

    def outwait(self, found: Sequence[str] = ()) -> None:
        """Return when all see what was read: at once."""

    def purge(self, *, over_before: float, limit: int, wall_at: float) -> int:
        """Remove sessions that were over before `over_before`; return how many."""
        before = min(over_before, wall_at)
        with self._open():
            gone = nsmallest(
                limit,
                (one for one in self._sessions.values() if over_at(one) < before and not self._children.get(one.id)),
                key=age,
            )
            for session in gone:
                self._unexpired.pop(session.id, None)
                del self._sessions[session.id], self._ids[session.handle_digest]
                self._ages.remove(session)
                self._children.pop(session.id, None)
                self._children[session.parent_id].remove(session.id)
            self._write([], wall_at)
            return len(gone)

    def activate_bundle(
        self,
        bundle: ActiveBundle,
        content: bytes,
        change: Change,
        *,
        captured: Captured | None = None,
        expected: Expected | None = None,
        write: Write | None = None,
    ) -> tuple[Session, ...]:
        """Make a bundle the active one, keep its content, and apply `change` to all live sessions."""
        with self._open():
            require_expected(self._bundle, expected)
            if bundle.same_as(self._bundle):
                return ()
            self._writes.require_new(write, wall_at=bundle.activated_at)
            live = [
                session
                for session in self._sessions.values()
                if session.state in LIVE
                and (captured is None or captured(session.user, session.agent) != session.entities_json)
            ]
            changed = successors_of(sorted(live, key=_seniority), change)
            bundle = bundle.counting_on(self._bundle, self._high_water_at)
            written = self._write(changed, bundle.activated_at)
            self._writes.remember(write, bundle.named_after(self._bundle), wall_at=bundle.activated_at)
            self._bundle = bundle
            self._highest_number = max(self._highest_number, bundle.number)
            _put_last(self._kept, bundle.version, (bundle, content), self._bundles_kept)
            _put_last(self._past, bundle.version, None, VERSIONS_REMEMBERED)
            return written

    def bundle_content(self, version: str) -> bytes | None:
        """Return the kept content of a bundle, or None."""
        with self._open():
            return self._kept[version][1] if version in self._kept else None

    def kept_bundles(self) -> tuple[ActiveBundle, ...]:
        """Return the latest activation of each bundle whose content is kept, newest first."""
        with self._open():
            return tuple(bundle for bundle, _ in reversed(self._kept.values()))

    def bundle_past(self, version: str) -> BundlePast:
        """Return what is remembered of earlier activations."""
        with self._open():
            return BundlePast(was_active=version in self._past, highest_number=self._highest_number)

    def active_bundle(self) -> ActiveBundle | None:
        """Return the active bundle, or None before the first activation."""
        with self._open():
            return self._bundle

    def touch(self, *, wall_at: float) -> None:
        """Raise the high-water mark."""
        with self._open():
            self._write([], wall_at)

    def count_live(self, opened_by: str, *, wall_at: float) -> int:
        """Count the sessions of a caller stored as live and not expired at `wall_at`."""
        which = SessionFilter(opened_by=opened_by, states=LIVE, ends_after=wall_at)
        with self._open():
            return sum(_matches(which, session) for session in self._sessions.values())

    def count_by_state(self) -> dict[SessionState, int]:
        """Return the number of sessions in each stored state."""
        with self._open():
            counts = Counter(session.state for session in self._sessions.values())
            return {state: counts[state] for state in SessionState}

    def untold(self, *, limit: int) -> Untold:
        """Return the oldest events, and how many were lost."""
        with self._open():
            return self._outbox.untold(limit)

    def forget_told(self, told: Untold, *, turn: str = "") -> None:  # noqa: ARG002 - there is one sender
        """Remove events that were passed on."""
        with self._open():
            self._outbox.forget(told)

    def note_expired(self, *, wall_at: float, limit: int) -> int:
        """Write the events of what has expired."""
        with self._open():
            live = (self._sessions[one] for one in self._unexpired)
            due = nsmallest(limit, (one for one in live if one.deadline.wall_at <= wall_at), key=over_at)
            for session in due:
                del self._unexpired[session.id]
            self._outbox.add(session_expiry(one) for one in due if not self._is_cut(one))
            if due:
                self._write([], wall_at)
            return len(due)

    def close(self) -> None:
        """Forget everything; afterwards the store does not answer."""
        with self._lock:
            self._closed = True
            self._sessions.clear()
            self._ids.clear()
            self._ages.clear()
            self._children.clear()
            self._kept.clear()

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self._lock:
            self._require_open()
            yield

    def _view(self, handle_digest: bytes, least: Head | None) -> StoreView:
        self._require_open()
        if least is not None and not self._has(least):
            raise UnknownRevisionError(NOT_ITS_OWN)
        chain = self._chain(self._ids.get(handle_digest, ""))
        return StoreView(
            chain=chain,
            bundle=self._bundle,
            high_water_at=self._high_water_at,
            freeze=self._freeze_of(chain[0].tenant) if self._freezes and chain else None,
        )

    def _require_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError("the session store is closed")

    def _head(self) -> Head:
        return Head(revision=self._revision, tag=self._tag)

    def _has(self, head: Head) -> bool:
        return head.tag == self._tag and head.revision <= self._revision

    def _chain(self, session_id: str) -> tuple[Session, ...]:
        session = self._sessions.get(session_id)
        if session is None:
            return ()
        above = (self._sessions[ancestor_id] for ancestor_id in session.ancestor_ids)
        return (self._seen(session), *map(self._seen, above)) if self._cuts else (session, *above)

    def _freeze_of(self, tenant: str) -> Freeze | None:
        return freeze_of(tenant, self._freezes.values())

    def _sorted_freezes(self) -> tuple[Freeze, ...]:
        return tuple(freeze for _, freeze in sorted(self._freezes.items()))

    def _seen(self, session: Session) -> Session:
        for cut in self._cuts.values():
            session = cut.applied(session)
        return session

    def _families(self, session_ids: Iterable[str]) -> list[Session]:
        found: dict[str, Session] = {}
        pending = list(session_ids)
        while pending:
            session_id = pending.pop()
            if session_id not in found:
                found[session_id] = self._sessions[session_id]
                pending.extend(self._children.get(session_id, ()))
        return sorted(found.values(), key=_seniority)

    def _write(self, sessions: Iterable[Session], wall_at: float, write: Write | None = None) -> tuple[Session, ...]:
        # Adopting can raise, so nothing is changed before all sessions are adopted.
        written = tuple(self._scopes.adopt(session) for session in sessions)
        if self._outbox.tells:
            self._tell(written)
        self._sessions.update((session.id, session) for session in written)
        self._revision += 1
        self._note(session.id for session in written)
        self._high_water_at = max(self._high_water_at, wall_at)
        self._writes.remember(write, tuple(session.id for session in written), wall_at=wall_at)
        return written

    def _tell(self, written: Sequence[Session]) -> None:
        stored = [(self._sessions.get(session.id), session) for session in written]
        # What a cut has revoked, the cut has told.
        seen = [(before.state if before else None, one) for before, one in stored if not self._is_cut(one)]
        self._outbox.add(starmap(session_event, seen))
        for before, session in stored:
            if session.state not in LIVE:
                self._unexpired.pop(session.id, None)
            elif before is None:
                self._unexpired[session.id] = None

    def _tell_cut(self, cut: Cut) -> None:
        live = SessionFilter(states=LIVE, ends_after=cut.at)
        found = [one for one in self._sessions.values() if cut.covers(one) and _matches(live, one)]
        self._outbox.add([cut_event(cut, len(found), nlargest(FIRST_IDS, found, key=age))])

    def _is_cut(self, session: Session) -> bool:
        return any(cut.covers(session) for cut in self._cuts.values())

    def _note(self, session_ids: Iterable[str]) -> None:
        for session_id in session_ids:
            self._changed.pop(session_id, None)
            self._changed[session_id] = self._revision
        while len(self._changed) > _CHANGES_KEPT:
            self._forgotten = self._changed.pop(next(iter(self._changed)))


def _put_last(kept: dict[str, T], key: str, value: T, most: int) -> None:
    kept.pop(key, None)
    kept[key] = value
    for oldest in list(kept)[:-most]:
        del kept[oldest]


def _matches(which: SessionFilter, session: Session) -> bool:
    return (
        (not which.id or session.id == which.id)
        and (not which.tenant or session.tenant == which.tenant)
        and (not which.user or session.user == which.user)
        and (not which.agent or session.agent == which.agent)
        and (not which.opened_by or session.opened_by == which.opened_by)
        and (not which.states or session.state in which.states)
        and (not which.ends_after or session.deadline.wall_at > which.ends_after)
        and (not which.requested_until or session.requested_at <= which.requested_until)
    )


def _seniority(session: Session) -> tuple[int, float, str]:
    return session.depth, session.requested_at, session.id
