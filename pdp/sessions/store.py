"""The contract of a session store: what the rest of the PDP relies on, one protocol for each capability.

Code that uses a store asks for the smallest protocol that it needs; `SessionStore` combines all of them on the same
data. `historycontract` has the protocols of what calls leave behind. Each has a class of published tests in
`pdp/testing/stores/`. All of them promise, for every implementation and any number of threads and processes on the
same data:

- A call that begins after a write was acknowledged, in any process, sees that write. A write is acknowledged when its
  method returns, or at the end of a `fencing` block. What else a read can miss is stated for each capability.
- When the data cannot be read or written, `StoreUnavailableError`; never a guess, never an old answer. A write that
  raises it may or may not have been made.
- When others write for too long, `OverloadedError`, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from pdp.model import Head, Session, SessionState
from pdp.sessions.freezes import Freeze, FreezeChange
from pdp.sessions.historycontract import (  # noqa: F401 - stores of others have these from here
    AccessRequests,
    CallTokenKeys,
    ResultValues,
    SessionHistory,
)
from pdp.sessions.lease import Lease
from pdp.sessions.outbox import Outbox
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
from pdp.sessions.writes import Write


class HighWaterMark(Protocol):
    """The latest wall time that was ever stored: it shows when a clock was set back.

    The mark never falls. Every write raises it, in its own transaction, to at least the time that it was given; only
    `settle` need not. The mark is as old as the last write; it need not be close to the present time.
    """

    def high_water_at(self) -> float:
        """Return the high-water mark, unix seconds, as in every view."""
        ...


class Fencing(Protocol):
    """When what is written is acknowledged."""

    def fencing(self, account: Account | None = None) -> AbstractContextManager[None]:
        """Have all that this thread writes or outwaits in the `with` block be acknowledged when it ends, not before.

        What is written is stored when its method returns, so it can be recorded before the wait for those who do not
        know it yet, in which the process can be killed. When the block raises, what it has written stands.

        `account` says what the block records of each transaction. A store can keep that with the change, for when the
        process is killed before it has recorded it, or never learns that the change was made.
        """
        ...


class SessionReader(HighWaterMark, Protocol):
    """Sessions one by one, as decisions need them: each tool call takes this path.

    A read is consistent: all that it returns was true at one moment. Two reads are two moments, so a decision takes the
    session, the active bundle, the freeze of its tenant and the high-water mark from one `view`. A chain is complete:
    no session comes without its ancestors. Sessions with equal scope content share one `Scope` object within a process.

    A store can answer from memory as long as it can tell that no later write was acknowledged. A change outside of it
    (its data removed, or written by a foreign program) may go unnoticed for a time that its docstring states.
    """

    def view(self, handle_digest: bytes, least: Head | None = None, *, labels: bool = True) -> StoreView:
        """Return the session with this handle digest, its ancestors, the active bundle and what freezes its tenant.

        The digest is SHA-256, 32 bytes. With `least`, the view has that change and all before it, also those that are
        not acknowledged. Raise `UnknownRevisionError` when the store does not have it, or has another history; of a
        change that is too old to be told from one of another history, the number alone counts.

        Without `labels` those that calls have added can be missing: for who looks first whether they matter, where it
        costs something to know them.
        """
        ...

    def known(self, handle_digest: bytes, least: Head | None = None) -> StoreView | None:
        """Return what `view` returns without labels, if memory can tell at once; None where the store must be asked.

        Waits no longer than `MOMENT_SECONDS`. Raise `UnavailableError` as `view` does.
        """
        ...

    def get(self, session_id: str) -> tuple[Session, ...]:
        """Return a session by public id and its ancestors, nearest first; empty when there is none."""
        ...

    def find(self, handle_digest: bytes) -> tuple[Session, ...]:
        """Return what `get` does, by handle digest: to change the session, not to decide about a call."""
        ...


class SessionLists(Protocol):
    """Sessions by what they have in common, for people and for limits; no decision about a call rests on these.

    Each call is a separate read of what is stored. So a session that is inserted between two pages may be on neither;
    one that matches all the while is on exactly one. A count is true at its moment: when two callers count before
    either inserts, both can pass a limit that leaves room for one.
    """

    def select(
        self, which: SessionFilter, *, limit: int, before: tuple[float, str] | None = None
    ) -> tuple[Session, ...]:
        """Return matching sessions, newest first (by `requested_at`, then id, both descending).

        `before` is (`requested_at`, `id`) of the last session of the previous page.
        """
        ...

    def live_families(self, which: SessionFilter, *, wall_at: float, limit: int) -> tuple[int, tuple[Session, ...]]:
        """Return how many live sessions there are among matching ones and all their descendants, and the newest.

        Live are those stored as REQUESTED or ACTIVE and not expired at `wall_at`. At most `limit` are returned.
        """
        ...

    def count_live(self, opened_by: str, *, wall_at: float) -> int:
        """Count the sessions of a caller stored as REQUESTED or ACTIVE and not expired at `wall_at`."""
        ...

    def count_by_state(self) -> dict[SessionState, int]:
        """Return the number of sessions in each stored state."""
        ...


class SessionChanges(Protocol):
    """What changed lately, for those who follow sessions; no decision about a call rests on it."""

    def head(self) -> Head:
        """Return the latest change. Its revision rises with every change of a session or freeze, cut and activation.

        It may rise without one. It is the same for every process on the same data.
        """
        ...

    def lease(self) -> Lease | None:
        """Return the lease by which this process answers from memory now; None when it asks before each answer."""
        ...

    def changed(self, *, after: Head, limit: int) -> Changes | None:
        """Return the sessions that were inserted or changed after a change, in the order of their ids.

        A session that was removed is left out. That one expires is no change, and that `settle` has added labels need
        be none. Return None when more than `limit` have changed, when that can no longer be told, after a cut, and for
        a change of another history: then the sessions must be listed again.
        """
        ...


class SessionWriter(Fencing, Protocol):
    """Changes of sessions. Each method is one transaction: it happens as a whole or not at all.

    An acknowledged write is not lost: it survives the sudden end of the process. (A memory store promises this for
    the life of its process.) A session is written only as the direct successor of what is stored: its `epoch` is one
    higher. Otherwise `ConflictError`, and nothing is written. An inserted session has `epoch` 1. `wall_at`, in unix
    seconds, raises the high-water mark. While its tenant is frozen, no session is inserted or becomes active:
    `FrozenError`.

    A change with a `write` is remembered in its own transaction, at least for `WRITE_SECONDS` if fewer than
    `MOST_WRITES` follow; but not one that writes no session, or more than `MOST_NAMED`. One whose key is remembered
    already is a `ConflictError`, and nothing is written.
    """

    def written(self, write: Write, *, wall_at: float) -> tuple[str, ...] | None:
        """Return the ids of the sessions of a change that is remembered, or of what else it names; None when it is not.

        Raise `RequestIdConflictError` when its key is remembered for another one.
        """
        ...

    def insert(self, session: Session, *, wall_at: float, write: Write | None = None) -> None:
        """Add a new session. `ConflictError` when its id or handle exists."""
        ...

    def update(self, sessions: Sequence[Session], *, wall_at: float, write: Write | None = None) -> None:
        """Replace sessions, all or none. Each must be the direct successor of what is stored."""
        ...

    def renew_handle(self, session: Session, *, wall_at: float) -> None:
        """Replace a session that waits for approval by its direct successor with another handle; the first is void.

        Raise `ConflictError` when it does not wait, or is no direct successor.
        """
        ...

    def change_tree(
        self, session_id: str, change: Change, *, wall_at: float, write: Write | None = None
    ) -> tuple[Session, ...]:
        """Apply `change` to one session and all its descendants in one transaction, as `change_where` does.

        Return the successors that were written; also empty when there is no such session.
        """
        ...

    def change_where(
        self, which: SessionFilter, change: Change, *, wall_at: float, limit: int | None = None
    ) -> tuple[Session, ...]:
        """Apply `change` to every matching session and all their descendants in one transaction.

        With a `limit`, apply it to that many of the matching sessions, newest first, and their descendants.

        `change` returns the successor, or None to leave the session as it is; ancestors come before descendants. It
        must be pure: it is called again for a session that changes meanwhile. Return the successors that were written.
        """
        ...

    def cut(self, cut: Cut) -> None:
        """Revoke any number of sessions at once: every read of a session in the cut sees it revoked.

        A cut does not change the stored sessions; when they have been changed as well, `lift` removes the cut. A cut
        replaces an earlier one of the same tenant, user and agent.
        """
        ...

    def cuts(self) -> tuple[Cut, ...]:
        """Return the cuts that are not lifted."""
        ...

    def lift(self, cut: Cut, *, write: Write | None = None, session_ids: tuple[str, ...] = ()) -> None:
        """Remove a cut; the stored state of its sessions counts again.

        With a `write`, remember that these sessions were revoked.
        """
        ...

    def purge(self, *, over_before: float, limit: int, wall_at: float) -> int:
        """Remove sessions that were over before `over_before`, and unused scopes. Return how many sessions.

        A session is over since it was closed, or since its deadline on the wall clock. The oldest go first, at most
        `limit`; none goes that is not over at `wall_at`, and none below which another session is stored. Afterwards
        nothing distinguishes it from a session that never existed.
        """
        ...

    def touch(self, *, wall_at: float) -> None:
        """Write only the time: raise the high-water mark, and prove that the store can be written."""
        ...


class SessionLedger(Protocol):
    """What allowed calls change in their sessions, before they are answered.

    A change is one transaction, and not lost once it is acknowledged. It takes nothing of what a store keeps for ending
    authority: with too little room it raises `StoreUnavailableError`.
    """

    def settle(
        self, chain: Sequence[Session], labels: frozenset[str], *, by: str, wall_at: float
    ) -> tuple[Session, ...]:
        """Add labels to a session and its ancestors; return the whole chain as it is afterwards.

        `chain` is as in a view, nearest first, and `by` the id of the decision that adds them. A session that has all
        of them stays as it is. Raise `ConflictError`, and write nothing, when one of them is no longer as `chain` holds
        it, or their tenant is frozen: the call must be decided again.
        """
        ...

    def outwait(self, found: Sequence[str] = ()) -> None:
        """Return when a call that begins afterwards, in any process, sees all that this process has read of sessions.

        A read can see a write that is not acknowledged yet: whoever acknowledges more because of it calls this first,
        with the ids of the sessions that are `found` over, if that is what it says.
        """
        ...


class Freezes(Protocol):
    """What stops the calls of whole tenants: at most one freeze for each, and one for all.

    A freeze ends no session: what has not expired goes on when it is lifted. Each method that writes is one
    transaction, and not lost once it is acknowledged. What is opened or approved in a frozen tenant is refused in its
    own transaction, so that a freeze is never overtaken.
    """

    def freezes(self) -> tuple[Freeze, ...]:
        """Return all freezes, by their tenants; that of all tenants comes first."""
        ...

    def freeze(self, freeze: Freeze, *, write: Write | None = None) -> None:
        """Stop all calls of a tenant, or of all tenants. It replaces an earlier freeze of the same.

        `set_at` raises the high-water mark. As what ends authority, it may use all that a store keeps. With a `write`,
        here and for `change_freeze`, it is remembered like a change of sessions, and `written` returns the freeze's id.
        """
        ...

    def change_freeze(
        self, freeze_id: str, change: FreezeChange, *, wall_at: float, write: Write | None = None
    ) -> Freeze | None:
        """Replace a freeze by what `change` makes of it, and return that; None when it is removed.

        `change` must be pure, and leaves id and tenant as they are. Raise what it raises, and `NotFoundError` when
        there is no such freeze.
        """
        ...

    def unfrozen(self, tenant: str) -> AbstractContextManager[None]:
        """Keep a tenant from being frozen while the `with` block runs; it must be short, and must not use the store.

        Raise `FrozenError` when the tenant is frozen. It is for what is approved in other data than the store's.
        """
        ...


class BundleHistory(HighWaterMark, Fencing, Protocol):
    """The active bundle, the earlier ones, and their content.

    An activation is one transaction, and is not lost once it is acknowledged. `active_bundle` can come from memory,
    like the reads of a `SessionReader`; everything else is read from what is stored. Content is dropped from the oldest
    activation on, so a version that was listed can have lost its content when it is requested.
    """

    def written(self, write: Write, *, wall_at: float) -> tuple[str, ...] | None:
        """Return what is remembered of an activation, as in a `SessionWriter`; None when nothing is."""
        ...

    def active_bundle(self) -> ActiveBundle | None:
        """Return the active bundle, or None before the first activation."""
        ...

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
        """Make a bundle the active one, keep its content, and apply `change` to all sessions.

        All of it is one transaction. `change` is called for every session whose stored state is REQUESTED or ACTIVE;
        with `captured` it can be left out for those whose `entities_json` equals what `captured` returns for their user
        and agent. A bundle that is `same_as` the active one changes nothing and returns (). `bundle.counted` names what
        is counted; its times are set in the transaction, by `ActiveBundle.counting_on`. Raise `ConflictError` when
        another version is active than the `expected` one, and `BundleUnavailableError` when its turn is over. After a
        conflict `active_bundle` returns what it was about. With a `write` the activation is remembered like a change of
        sessions: its version, followed by that of the bundle before it, if there was one. Return the successors that
        were written.
        """
        ...

    def bundle_content(self, version: str) -> bytes | None:
        """Return the kept content of a bundle, or None. At least the active one is kept."""
        ...

    def kept_bundles(self) -> tuple[ActiveBundle, ...]:
        """Return the latest activation of each bundle with kept content, newest first: the active one."""
        ...

    def bundle_past(self, version: str) -> BundlePast:
        """Return what is known about earlier activations: of at least the last thousand versions."""
        ...


class Sessions(SessionReader, SessionLists, SessionChanges, SessionWriter, SessionLedger, Freezes, Protocol):
    """All capabilities for sessions, and none for bundles."""


class SessionStore(Sessions, BundleHistory, Outbox, Protocol):
    """All capabilities on the same data.

    An activation changes sessions in its own transaction: no `view` holds the new bundle with a session as it was
    before, or the old bundle with a session that was changed for the new one.
    """

    def close(self) -> None:
        """Release what the store holds. Calling it twice is harmless."""
        ...
