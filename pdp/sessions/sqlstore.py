"""The methods of a session store in SQL, for any engine: an engine adds connections, transactions and tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from typing import Final, TypeVar

from pdp.errors import ConflictError, OverloadedError, StoreUnavailableError
from pdp.model import Head, Scope, Session, SessionState
from pdp.sessions.database import require_known_schema
from pdp.sessions.foresight import Foreseen, Foresight
from pdp.sessions.freezes import Freeze, FreezeChange, freeze_of, freeze_with_id, require_unfrozen
from pdp.sessions.lease import Lease
from pdp.sessions.lifecycle import labelled
from pdp.sessions.outbox import FIRST_IDS, Untold, cut_event, freeze_event, session_event, session_expiry
from pdp.sessions.rows import row_of, tools_text
from pdp.sessions.scopes import ScopePool
from pdp.sessions.sql import Statements, Value
from pdp.sessions.sqlbundles import SQLBundles
from pdp.sessions.sqloutbox import SQLOutbox
from pdp.sessions.sqlrows import RowReader, applied, cuts_on, freezes_on
from pdp.sessions.sqlselection import (
    AMONG_NEWEST,
    COUNT,
    COUNT_LIVE_OF,
    FAMILIES,
    LIVE_SESSIONS,
    NEWEST_FIRST,
    OF_LIVE_FAMILIES,
    condition_of,
)
from pdp.sessions.sqlwrites import SQLWrites
from pdp.sessions.succession import (
    BUNDLES_KEPT,
    chain_with,
    gives_authority,
    require_expected,
    require_new,
    require_renewed,
    require_successor,
    require_unchanged,
    successor_of,
    successors_of,
)
from pdp.sessions.unrecorded import Account
from pdp.sessions.values import (
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
from pdp.sessions.watching import Watching
from pdp.sessions.writes import Write

T = TypeVar("T")

# Sessions that one statement names.
_AT_ONCE: Final = 500


class SQLSessionStore(ABC):
    """A `SessionStore` on a connection for writes and lists, and a `watcher` for what decisions read.

    An engine says how the connection is held, and what a transaction is. `ended_at` is its expression for when a
    session ended, and `by_expiry` names an index to it, where its planner needs that; `reader` reads its rows.
    `changes_kept`, `bundles_kept` and `tells` are as in the stores, and `turns` as in `SQLOutbox`.
    """

    def __init__(
        self,
        connection: Statements,
        watcher: Watching,
        foresight: Foresight,
        scopes: ScopePool,
        *,
        changes_kept: int,
        bundles_kept: int = BUNDLES_KEPT,
        tells: bool,
        turns: str = "",
        ended_at: str,
        by_expiry: str = "",
        reader: type[RowReader] = RowReader,
    ) -> None:
        self._connection = connection
        self._watcher = watcher
        self._foresight = foresight
        self._scopes = scopes
        self._changes_kept = changes_kept
        self._reader = reader(connection, scopes)
        self._outbox = SQLOutbox(connection, tells=tells, counter="meta", turns=turns)
        self._writes = SQLWrites(connection)
        self._bundles = SQLBundles(connection, most=bundles_kept)
        self._purged, self._expired = _PURGE.format(ended_at), _EXPIRED.format(by_expiry)
        # The revision of the present transaction; 0 until it makes one.
        self._revision = 0

    def view(self, handle_digest: bytes, least: Head | None = None, *, labels: bool = True) -> StoreView:
        """Return the session with this handle digest, its ancestors and the active bundle."""
        return self._watcher.view(handle_digest, least, labels=labels)

    def known(self, handle_digest: bytes, least: Head | None = None) -> StoreView | None:
        """Return what `view` returns without labels, if memory can tell at once; None where the store must be asked."""
        return self._watcher.known(handle_digest, least)

    def get(self, session_id: str) -> tuple[Session, ...]:
        """Return a session by public id and its ancestors, nearest first; empty when there is none."""
        return self._watcher.get(session_id)

    def find(self, handle_digest: bytes) -> tuple[Session, ...]:
        """Return what `get` does, by handle digest."""
        return self._watcher.find(handle_digest)

    def high_water_at(self) -> float:
        """Return the latest wall time that was ever stored."""
        return self._watcher.high_water_at()

    def fencing(self, account: Account | None = None) -> AbstractContextManager[None]:  # noqa: ARG002 - nothing is kept
        """Wait for nothing: all see a write when its method returns. For engines whose writers wait for others."""
        return nullcontext()

    def written(self, write: Write, *, wall_at: float) -> tuple[str, ...] | None:
        """Return the ids of the sessions of a change that is remembered; None when it is not."""
        with self._reading():
            return self._writes.find(write, wall_at=wall_at)

    def insert(self, session: Session, *, wall_at: float, write: Write | None = None) -> None:
        """Add a new session. `ConflictError` when its id or handle exists."""
        with self._transaction(opens=True):
            revision = self._advance(wall_at)
            require_new(session, self._reader.by_id(session.parent_id) if session.parent_id else None)
            require_unfrozen(session.tenant, freezes_on(self._connection))
            self._keep_scope(session.scope)
            self._connection.execute(_INSERT, {**row_of(session), "expiry_noted": int(not self._outbox.tells)})
            if not self._connection.changes():
                raise ConflictError(f"a session with this id or handle exists: `{session.id}`")
            self._tell([(None, session)])
            self._writes.remember(write, (session.id,), wall_at=wall_at)
            self._note(revision, [("session", session.id)])

    def update(self, sessions: Sequence[Session], *, wall_at: float, write: Write | None = None) -> None:
        """Replace sessions, all or none. Each must be the direct successor of what is stored."""
        if any(map(self._opens, sessions)):
            self._update(sessions, wall_at, write, opens=True)
        else:
            self._ending(lambda: self._update(sessions, wall_at, write))

    def renew_handle(self, session: Session, *, wall_at: float) -> None:
        """Replace a session that waits for approval by its direct successor with another handle; the first is void."""
        with self._transaction(opens=True):
            revision = self._advance(wall_at)
            require_renewed(self._reader.by_id(session.id), session)
            self._connection.execute(
                "UPDATE sessions SET handle_digest = ? WHERE id = ?", (session.handle_digest, session.id)
            )
            self._replace([session])
            self._note(revision, [("session", session.id)])

    def select(
        self, which: SessionFilter, *, limit: int, before: tuple[float, str] | None = None
    ) -> tuple[Session, ...]:
        """Return matching sessions, newest first."""
        condition, values = condition_of(which)
        if before is not None:
            condition += " AND (requested_at, id) < (?, ?)"
            values += before
        # One snapshot of sessions and scopes: another process can remove both.
        with self._reading(), self._snapshot():
            found = self._reader.all(NEWEST_FIRST.format(condition), (*values, max(limit, 0)))
            return applied(cuts_on(self._connection), found)

    def live_families(self, which: SessionFilter, *, wall_at: float, limit: int) -> tuple[int, tuple[Session, ...]]:
        """Return how many live sessions there are among matching ones and all their descendants, and the newest."""
        condition, values = condition_of(which)
        live = OF_LIVE_FAMILIES.format(condition)
        with self._reading(), self._snapshot():
            count = int(self._connection.execute(COUNT.format(live), (*values, wall_at)).get)
            found = self._reader.all(NEWEST_FIRST.format(live), (*values, wall_at, max(limit, 0)))
            return count, applied(cuts_on(self._connection), found)

    def head(self) -> Head:
        """Return the latest change."""
        return self._watcher.head()

    def lease(self) -> Lease | None:
        """Return the lease by which memory answers; None when the database is asked before each answer."""
        return self._watcher.lease()

    def changed(self, *, after: Head, limit: int) -> Changes | None:
        """Return the sessions that were inserted or changed after a change."""
        with self._reading(), self._snapshot():
            # No row while a database is being restored.
            revision, forgotten, version = self._connection.execute(_REVISIONS).get or (-1, 0, "")
            # A higher revision than the latest is one of another file.
            if not forgotten <= after.revision <= revision or self._tag(after.revision) != after.tag:
                return None
            since = after.revision, limit + 1
            ids = [str(row_id) for (row_id,) in self._connection.execute(_CHANGED, since).fetchall()]
            # A cut has no id, and comes first.
            if len(ids) > limit or "" in ids:
                return None
            found = [session for one in ids if (session := self._reader.by_id(one)) is not None]
            sessions = applied(cuts_on(self._connection), found)
            freezes = freezes_on(self._connection)
            head = Head(revision=revision, tag=self._tag(revision) or "")
            return Changes(head=head, sessions=sessions, bundle_version=version, freezes=freezes)

    def cut(self, cut: Cut) -> None:
        """Revoke any number of sessions at once."""
        self._ending(lambda: self._make_cut(cut))

    def cuts(self) -> tuple[Cut, ...]:
        """Return the cuts that are not lifted."""
        with self._reading():
            return cuts_on(self._connection)

    def lift(self, cut: Cut, *, write: Write | None = None, session_ids: tuple[str, ...] = ()) -> None:
        """Remove a cut."""
        values = (cut.tenant, cut.user, cut.agent, cut.at)
        self._ending(lambda: self._write_cut(cut, _LIFT, values, write=write, session_ids=session_ids))

    def freezes(self) -> tuple[Freeze, ...]:
        """Return all freezes, that of all tenants first."""
        return self._watcher.freezes()

    def freeze(self, freeze: Freeze, *, write: Write | None = None) -> None:
        """Stop all calls of a tenant, or of all tenants."""
        self._ending(lambda: self._freeze(freeze, write))

    def change_freeze(
        self, freeze_id: str, change: FreezeChange, *, wall_at: float, write: Write | None = None
    ) -> Freeze | None:
        """Replace a freeze by what `change` makes of it, or remove it."""
        with self._transaction(opens=True):
            stored = freeze_with_id(freeze_id, freezes_on(self._connection))
            successor = change(stored)
            revision = self._advance(wall_at)
            self._keep_freeze(stored.tenant, successor)
            self._outbox.add([freeze_event(stored, successor, at=wall_at)])
            self._writes.remember(write, (freeze_id,), wall_at=wall_at)
            self._note(revision, [("freeze", freeze_id)])
            return successor

    @contextmanager
    def unfrozen(self, tenant: str) -> Iterator[None]:
        """Keep a tenant from being frozen while the `with` block runs."""
        with self._reading(), self._locked():
            require_unfrozen(tenant, freezes_on(self._connection))
            yield

    def change_where(
        self, which: SessionFilter, change: Change, *, wall_at: float, limit: int | None = None
    ) -> tuple[Session, ...]:
        """Apply `change` to matching sessions and all their descendants in one transaction."""
        condition, values = condition_of(which)
        if limit is not None:
            condition, values = AMONG_NEWEST.format(condition), (*values, limit)
        try:
            with self._foreseeing():
                foreseen = self._foresight.of_matching(condition, values, change)
        except (StoreUnavailableError, OverloadedError):
            # It only makes the transaction shorter: what ends authority does not depend on a connection more.
            foreseen = {}
        families = FAMILIES.format(condition)
        return self._ending(lambda: self._change(families, values, change, wall_at, foreseen))

    def change_tree(
        self, session_id: str, change: Change, *, wall_at: float, write: Write | None = None
    ) -> tuple[Session, ...]:
        """Apply `change` to one session and all its descendants in one transaction."""
        families = FAMILIES.format("id = ?")
        return self._ending(lambda: self._change(families, (session_id,), change, wall_at, {}, write))

    def settle(
        self, chain: Sequence[Session], labels: frozenset[str], *, by: str, wall_at: float
    ) -> tuple[Session, ...]:
        """Add labels to a session and its ancestors; return the whole chain as it is afterwards."""
        with self._transaction(opens=True):
            revision = self._advance(wall_at)
            found = [stored for session in chain if (stored := self._reader.by_id(session.id)) is not None]
            freeze = freeze_of(chain[0].tenant, freezes_on(self._connection))
            require_unchanged(chain, applied(cuts_on(self._connection), found), freeze)
            added = [self._scopes.adopt(session) for session in successors_of(chain, labelled(labels, by=by))]
            written = self._replace(added)
            self._note(revision, [("session", session.id) for session in written])
            return chain_with(chain, written)

    def purge(self, *, over_before: float, limit: int, wall_at: float) -> int:
        """Remove sessions that were over before `over_before`, and unused scopes. Return how many sessions."""
        before = min(over_before, wall_at)
        with self._transaction():
            revision = self._advance(wall_at)
            gone = self._connection.execute(self._purged, {"before": before, "limit": max(limit, 0)}).fetchall()
            if gone:
                self._connection.execute(_DROP_SCOPES)
                # Other processes can hold them in memory.
                self._note(revision, [("session", str(session_id)) for (session_id,) in gone])
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
        if bundle.same_as(self.active_bundle()):
            return ()
        with self._foreseeing():
            foreseen = self._foresight.of_live(change, captured)
        return self._activating(lambda: self._activate(bundle, content, change, expected, foreseen, write))

    def bundle_content(self, version: str) -> bytes | None:
        """Return the kept content of a bundle, or None."""
        with self._reading():
            return self._bundles.content(version)

    def kept_bundles(self) -> tuple[ActiveBundle, ...]:
        """Return the latest activation of each bundle whose content is kept, newest first."""
        with self._reading():
            return self._bundles.kept()

    def bundle_past(self, version: str) -> BundlePast:
        """Return what is remembered of earlier activations."""
        with self._reading():
            return self._bundles.past(version)

    def active_bundle(self) -> ActiveBundle | None:
        """Return the active bundle, or None before the first activation."""
        return self._watcher.active_bundle()

    def touch(self, *, wall_at: float) -> None:
        """Raise the high-water mark, and prove that the store can be written."""
        with self._transaction(opens=True):
            self._advance(wall_at)

    def count_live(self, opened_by: str, *, wall_at: float) -> int:
        """Count the sessions of a caller stored as live and not expired at `wall_at`."""
        with self._reading():
            count: int = self._connection.execute(COUNT_LIVE_OF, (opened_by, wall_at)).get
        return count

    def count_by_state(self) -> dict[SessionState, int]:
        """Return the number of sessions in each stored state."""
        with self._reading():
            counts = dict(self._connection.execute("SELECT state, count(*) FROM sessions GROUP BY state"))
        return {state: counts.get(state.value, 0) for state in SessionState}

    def untold(self, *, limit: int) -> Untold:
        """Return the oldest events, and how many were lost."""
        with self._reading(), self._snapshot():
            return self._outbox.untold(limit)

    def forget_told(self, told: Untold, *, turn: str = "") -> None:
        """Remove events that were passed on."""
        with self._transaction():
            self._outbox.forget(told, turn)

    def note_expired(self, *, wall_at: float, limit: int) -> int:
        """Write the events of what has expired."""
        with self._reading():
            if not self._connection.execute(self._expired, (wall_at, 1)).fetchall():
                return 0
        with self._transaction(opens=True):
            self._advance(wall_at)
            due = self._reader.all(self._expired, (wall_at, limit))
            self._connection.executemany(_NOTE_EXPIRY, [(session.id,) for session in due])
            cuts = cuts_on(self._connection)
            self._outbox.add(session_expiry(one) for one in due if not _is_cut(cuts, one))
            return len(due)

    @abstractmethod
    def outwait(self, found: Sequence[str] = ()) -> None:
        """Return when a call that begins afterwards, in any process, sees all that this process has read."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections; afterwards the store does not answer."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[None]:
        """Hold the connection, to read."""

    @abstractmethod
    def _snapshot(self) -> AbstractContextManager[None]:
        """Have all that is read with the connection be of one moment."""

    @abstractmethod
    def _locked(self) -> AbstractContextManager[None]:
        """Keep all others from writing while the connection is held, and write nothing."""

    @abstractmethod
    def _transaction(self, *, opens: bool = False) -> AbstractContextManager[None]:
        """Hold the connection for one transaction, before or after those of all others.

        When it is left, all others can see what was written. What `opens` takes nothing of what is reserved.
        """

    @abstractmethod
    def _foreseeing(self) -> AbstractContextManager[None]:
        """Have errors of the engine be those of a store."""

    @abstractmethod
    def _ending(self, write: Callable[[], T]) -> T:
        """Write what ends or narrows authority, or changes the rules, with what is reserved for it."""

    def _activating(self, write: Callable[[], T]) -> T:
        """Write an activation, which can be of many sessions; `write` can be called again where it has raised."""
        return self._ending(write)

    def _let_pass(self) -> None:  # noqa: B027 - most engines let none pass
        """Raise when the present transaction is to be rolled back for one that waits; for engines that try again."""

    def _present_turn(self) -> str:
        """Return the turn in which a server follows its source of bundles; empty where there are none."""
        return ""

    def _tag(self, revision: int) -> str | None:  # noqa: ARG002 - for engines with several histories
        """Return the tag of a revision in the present snapshot; None for one that is too old to have one."""
        return ""

    def _opens(self, session: Session) -> bool:
        return gives_authority(next(iter(self.get(session.id)), None), session)

    def _update(self, sessions: Sequence[Session], wall_at: float, write: Write | None, *, opens: bool = False) -> None:
        with self._transaction(opens=opens):
            revision = self._advance(wall_at)
            for session in sessions:
                stored = self._reader.by_id(session.id)
                require_successor(stored, session)
                if gives_authority(stored, session):
                    require_unfrozen(session.tenant, freezes_on(self._connection))
                self._replace([session])
            self._writes.remember(write, tuple(session.id for session in sessions), wall_at=wall_at)
            self._note(revision, [("session", session.id) for session in sessions])

    def _make_cut(self, cut: Cut) -> None:
        values = (cut.tenant, cut.user, cut.agent, cut.at, cut.by, cut.reason)
        self._write_cut(cut, _CUT, values, tells=self._outbox.tells)

    def _write_cut(
        self,
        cut: Cut,
        sql: str,
        values: tuple[Value, ...],
        *,
        tells: bool = False,
        write: Write | None = None,
        session_ids: tuple[str, ...] = (),
    ) -> None:
        with self._transaction():
            revision = self._advance(cut.at)
            if tells:
                self._tell_cut(cut)
            self._connection.execute(sql, values)
            self._writes.remember(write, session_ids, wall_at=cut.at)
            self._note(revision, [("cut", "")])

    def _tell_cut(self, cut: Cut) -> None:
        condition, values = condition_of(cut.live())
        count = int(self._connection.execute(COUNT.format(condition), values).get)
        newest = self._reader.all(NEWEST_FIRST.format(condition), (*values, FIRST_IDS))
        self._outbox.add([cut_event(cut, count, newest)])

    def _tell(self, written: Sequence[tuple[SessionState | None, Session]]) -> None:
        """Write the events of sessions in their transaction; each comes with the state that was stored before."""
        if not self._outbox.tells:
            return
        cuts = cuts_on(self._connection)
        # What a cut has revoked, the cut has told.
        self._outbox.add(session_event(before, session) for before, session in written if not _is_cut(cuts, session))

    def _stored_states(self, session_ids: Sequence[str]) -> dict[str, SessionState]:
        found: dict[str, SessionState] = {}
        for first in range(0, len(session_ids), _AT_ONCE):
            self._let_pass()
            some = session_ids[first : first + _AT_ONCE]
            query = f"SELECT id, state FROM sessions WHERE id IN ({', '.join('?' * len(some))})"  # noqa: S608 - question marks
            found.update((str(one), SessionState(state)) for one, state in self._connection.execute(query, some))
        return found

    def _freeze(self, freeze: Freeze, write: Write | None) -> None:
        with self._transaction():
            revision = self._advance(freeze.set_at)
            self._keep_freeze(freeze.tenant, freeze)
            self._outbox.add([freeze_event(None, freeze, at=freeze.set_at)])
            self._writes.remember(write, (freeze.id,), wall_at=freeze.set_at)
            self._note(revision, [("freeze", freeze.id)])

    def _keep_freeze(self, tenant: str, freeze: Freeze | None) -> None:
        self._connection.execute("DELETE FROM freezes WHERE tenant = ?", (tenant,))
        if freeze is not None:
            self._connection.execute(_FREEZE, asdict(freeze))

    def _advance(self, wall_at: float) -> int:
        schema_version, revision = self._connection.execute(_ADVANCE, {"wall_at": wall_at}).get
        require_known_schema(schema_version)
        self._revision = int(revision)
        return self._revision

    def _change(
        self,
        seen_sql: str,
        values: tuple[Value, ...],
        change: Change,
        wall_at: float,
        foreseen: Foreseen,
        write: Write | None = None,
    ) -> tuple[Session, ...]:
        with self._transaction():
            revision = self._advance(wall_at)
            written = self._apply(seen_sql, values, change, foreseen)
            self._writes.remember(write, tuple(session.id for session in written), wall_at=wall_at)
            self._note(revision, [("session", session.id) for session in written])
            return written

    def _apply(
        self, seen_sql: str, values: tuple[Value, ...], change: Change, foreseen: Foreseen
    ) -> tuple[Session, ...]:
        successors: list[Session] = []
        # INVARIANT: a computed change is used only for the epoch for which it was computed.
        for session_id, epoch in self._connection.execute(seen_sql, values).fetchall():
            seen_epoch, successor = foreseen.get(str(session_id), (0, None))
            if seen_epoch != epoch:
                stored = self._reader.by_id(str(session_id))
                successor = successor_of(stored, change) if stored else None
            if successor is not None:
                successors.append(self._scopes.adopt(successor))
        return self._replace(successors)

    def _activate(
        self,
        bundle: ActiveBundle,
        content: bytes,
        change: Change,
        expected: Expected | None,
        foreseen: Foreseen,
        write: Write | None,
    ) -> tuple[Session, ...]:
        with self._transaction():
            active, mark = self._bundles.active()
            require_expected(active, expected, self._present_turn())
            if bundle.same_as(active):
                return ()
            bundle = bundle.counting_on(active, mark)
            revision = self._advance(bundle.activated_at)
            self._bundles.keep(bundle, content, revision)
            written = self._apply(LIVE_SESSIONS, (), change, foreseen)
            self._writes.remember(write, bundle.named_after(active), wall_at=bundle.activated_at)
            self._note(revision, [("bundle", bundle.version), *(("session", session.id) for session in written)])
            return written

    def _replace(self, sessions: Sequence[Session]) -> tuple[Session, ...]:
        """Write the direct successors of stored sessions; return them as they are afterwards."""
        for scope in {id(session.scope): session.scope for session in sessions}.values():
            self._keep_scope(scope)
        if self._outbox.tells:
            states = self._stored_states([session.id for session in sessions])
            self._tell([(states[session.id], session) for session in sessions])
        written: list[Session] = []
        for first in range(0, len(sessions), _AT_ONCE):
            self._let_pass()
            written += self._rewrite(sessions[first : first + _AT_ONCE])
        return tuple(written)

    def _rewrite(self, sessions: Sequence[Session]) -> Sequence[Session]:
        """Write the rows of some sessions; return the sessions as they are afterwards."""
        self._connection.executemany(_UPDATE, map(row_of, sessions))
        return sessions

    def _keep_scope(self, scope: Scope | None) -> None:
        if scope is None:
            return
        text = tools_text(scope)
        self._connection.execute("INSERT INTO scopes VALUES (?, ?) ON CONFLICT DO NOTHING", (scope.id, text))
        if self._connection.execute("SELECT tools_json FROM scopes WHERE id = ?", (scope.id,)).get != text:
            raise ConflictError(f"scope `{scope.id}` is stored with other tools")

    def _note(self, revision: int, changes: Sequence[tuple[str, str]]) -> None:
        if len(changes) > self._changes_kept:
            # Too many to follow one by one: a process that has not seen this revision reads everything again.
            self._connection.execute("DELETE FROM changes")
            self._connection.execute("UPDATE meta SET forgotten_revision = ?", (revision,))
            return
        # Under the lock of the transaction, positions have no gaps. Read once: statistics of an almost empty table have
        # PostgreSQL read all of it for each row.
        first = int(self._connection.execute(_NEXT_POSITION).get)
        rows = ((first + place, revision, kind, item_id) for place, (kind, item_id) in enumerate(changes))
        self._connection.executemany(_NOTE, rows)
        removed = self._connection.execute(_FORGET, (self._changes_kept,)).fetchall()
        if removed:
            self._connection.execute("UPDATE meta SET forgotten_revision = ?", max(removed))


def _is_cut(cuts: tuple[Cut, ...], session: Session) -> bool:
    return any(cut.covers(session) for cut in cuts)


_CUT = """
INSERT INTO cuts (tenant, "user", agent, at, by, reason) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, "user", agent) DO UPDATE SET at = excluded.at, by = excluded.by, reason = excluded.reason
"""
_LIFT = 'DELETE FROM cuts WHERE tenant = ? AND "user" = ? AND agent = ? AND at = ?'
_FREEZE = """
INSERT INTO freezes (tenant, id, set_at, set_by, reason, confirmed_at, confirmed_by)
VALUES (:tenant, :id, :set_at, :set_by, :reason, :confirmed_at, :confirmed_by)
"""
_INSERT = """
INSERT INTO sessions
VALUES (:id, :handle_digest, :state, :tenant, :user, :agent, :opened_by, :requested_at, :epoch, :parent_id, :depth,
        :session_json, :scope_id, :ends_at, :expiry_noted)
ON CONFLICT DO NOTHING
"""
_UPDATE = """
UPDATE sessions
SET state = :state, tenant = :tenant, "user" = :user, agent = :agent, opened_by = :opened_by,
    requested_at = :requested_at, epoch = :epoch, session_json = :session_json, scope_id = :scope_id,
    ends_at = :ends_at
WHERE id = :id
"""
# The braces are filled with when a session ended.
_PURGE = """
DELETE FROM sessions WHERE id IN (
  SELECT id FROM sessions AS old
  WHERE requested_at < :before
    AND CASE
      WHEN state IN ('requested', 'active') THEN ends_at
      ELSE {}
    END < :before
    AND NOT EXISTS (SELECT 1 FROM sessions AS child WHERE child.parent_id = old.id)
  ORDER BY requested_at, id LIMIT :limit
) RETURNING id
"""
# The braces are filled with what names the index of those whose expiry was not noted, where the planner needs it.
_EXPIRED = """
SELECT session_json FROM sessions {}
WHERE expiry_noted = 0 AND state IN ('requested', 'active') AND ends_at <= ? ORDER BY ends_at, id LIMIT ?
"""
_NOTE_EXPIRY = "UPDATE sessions SET expiry_noted = 1 WHERE id = ?"
_DROP_SCOPES = "DELETE FROM scopes WHERE NOT EXISTS (SELECT 1 FROM sessions WHERE scope_id = scopes.id)"
_ADVANCE = """
UPDATE meta
SET revision = revision + 1, high_water_at = CASE WHEN high_water_at < :wall_at THEN :wall_at ELSE high_water_at END
RETURNING schema_version, revision
"""
_NEXT_POSITION = "SELECT coalesce(max(position), 0) + 1 FROM changes"
_NOTE = "INSERT INTO changes (position, revision, kind, id) VALUES (?, ?, ?, ?)"
_REVISIONS = "SELECT revision, forgotten_revision, bundle_version FROM meta"
_CHANGED = "SELECT DISTINCT id FROM changes WHERE kind IN ('session', 'cut') AND revision > ? ORDER BY id LIMIT ?"
_FORGET = "DELETE FROM changes WHERE position <= (SELECT max(position) FROM changes) - ? RETURNING revision"
