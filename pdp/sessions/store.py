"""The contract of a session store: what the rest of the PDP relies on, one protocol for each capability.

Code that uses a store asks for the smallest protocol that it needs; `SessionStore` combines all of them on the same
data. Each has a class of published tests in `pdp/testing/stores/`. All of them promise, for every implementation and
any number of threads and processes on the same data:

- A call that begins after a write was acknowledged, in any process, sees that write. A write is acknowledged when its
  method returns, or at the end of a `fencing` block. What else a read can miss is stated for each capability.
- When the data cannot be read or written, `StoreUnavailableError`; never a guess, never an old answer. A write that
  raises it may or may not have been made.
- When others write for too long, `OverloadedError`, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from pdp.clock import Instant
from pdp.model import Head, Session, SessionState, ValueClass
from pdp.sessions.access import AccessFilter, AccessRequest, BoundCall, Unaskable, Use
from pdp.sessions.freezes import Freeze, FreezeChange
from pdp.sessions.lease import Lease
from pdp.sessions.outbox import Outbox
from pdp.sessions.unrecorded import Account
from pdp.sessions.values import (
    ActiveBundle,
    BundlePast,
    Captured,
    Change,
    Changes,
    Charge,
    Charged,
    Counts,
    Cut,
    Expected,
    HeldValues,
    PublishedKey,
    Report,
    SessionFilter,
    StoreView,
    Used,
)
from pdp.sessions.writes import Write

# How long after a charge, or the use of an approval, a retry of the same call takes nothing.
RETRY_SECONDS: Final = 60.0
# A moment for those who ask about no retry.
BEGINNING: Final = Instant(wall_at=0.0, boot_at=0.0, boot_id="")


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


class AccessRequests(Outbox, Protocol):
    """What people are asked about single calls, their answers, and the use of these.

    Each method that writes is one transaction. What is acknowledged survives the sudden end of the machine: an answer
    and a use cannot be lost. (A memory store promises it for the life of its process.) A change gives the request a new
    `revision`, and the latest one is never lower than before. No method looks at sessions or bundles: whether a session
    is live, and which bundle is active, is for the caller to check. Methods raise `StoreUnavailableError` when they
    cannot answer, and `OverloadedError` when others write for too long; then nothing is written.

    The arguments of a call are kept only while its request is open, and never in clear in a file: a store seals them
    with a key of their own. Each method that ends this state removes key and sealed text in its own transaction.
    """

    def ask(self, request: AccessRequest, arguments: bytes, now: Instant) -> AccessRequest | Unaskable:
        """Open a request, or return the one that is found: open or approved, about the same call, and lifting enough.

        `arguments` is what a person is to see of them. An open request about the same call that lifts too little ends
        now, and another one is opened. Nothing is written, and the reason returned, after a no to the same call in this
        tree of sessions, after `MOST_NOES` in it, and when there are `MOST_OPEN_OF_SESSION` open requests of the tree
        or `MOST_OPEN_OF_CALLER` of the caller.
        """
        ...

    def usable(self, call: BoundCall, retry_digest: bytes, now: Instant) -> bool:
        """Say whether `use` would find an approval now."""
        ...

    def use(self, call: BoundCall, retry_digest: bytes, now: Instant, decision_id: str = "") -> Use | None:
        """Use an approval that covers a call, once, for a decision; None without one.

        A call whose `retry_digest` was used with less than `RETRY_SECONDS` before, on both clocks, uses nothing, if the
        approval covers it, was not revoked and is of the same bundle: what it returns is that use. Of any number of
        calls at the same time, in any number of processes, only as many use an approval as it covers.
        """
        ...

    def give_back(self, use: Use) -> None:
        """Take back a use, so that it was never made; the time to use the approval does not begin anew.

        While another try of the same call counts on it, nothing changes.
        """
        ...

    def written(self, write: Write, *, wall_at: float) -> tuple[str, ...] | None:
        """Return the id of the request whose answer is remembered, as in a `SessionWriter`; None when none is."""
        ...

    def outwait(self, found: Sequence[str] = ()) -> None:
        """Return when all that was read of requests is acknowledged, as in a `SessionLedger`.

        A read can see an answer that its writer never hears of, because the machine may still lose it.
        """
        ...

    def answer(
        self, request_id: str, change: Callable[[AccessRequest], AccessRequest], *, write: Write | None = None
    ) -> AccessRequest:
        """Replace a request by its successor under `change`, such as `access.approve`, and return that.

        With a `write` the answer is remembered in its transaction. Raise `ConflictError` when its key is remembered
        already.
        `change` must be pure. Raise what it raises, and `NotFoundError` when there is no such request.
        """
        ...

    def answer_all(
        self,
        request_ids: Collection[str],
        change: Callable[[AccessRequest], AccessRequest],
        *,
        write: Write | None = None,
    ) -> tuple[AccessRequest, ...]:
        """Replace some requests by their successors under `change`, as `answer` does, in one transaction; return these.

        Those for which it raises `WrongStateError` stay as they are. Unknown requests are left out. It takes of what a
        store keeps for ending authority.
        """
        ...

    def get(self, request_id: str) -> AccessRequest | None:
        """Return a request; None when there is none."""
        ...

    def arguments(self, request_id: str, now: Instant) -> bytes | None:
        """Return the arguments of a request that is open now, as they were given to `ask`; None for any other."""
        ...

    def select(
        self, which: AccessFilter, *, limit: int, before: tuple[float, str] | None = None
    ) -> tuple[AccessRequest, ...]:
        """Return matching requests, newest first (by `asked_at`, then id, both descending).

        `before` is (`asked_at`, `id`) of the last request of the previous page. Each page is a separate read.
        """
        ...

    def changed(self, which: AccessFilter, *, after: int, limit: int) -> tuple[AccessRequest, ...]:
        """Return matching requests with a revision higher than `after`, as they are now, by revision.

        What happened to a request between two reads is not told. That one expires is no change.
        """
        ...

    def revision(self) -> int:
        """Return the latest revision; 0 before the first change."""
        ...

    def expire(self, now: Instant) -> int:
        """Remove the arguments of requests that are no longer open; return how many.

        It also removes what tells retries of uses that are older than `RETRY_SECONDS`.
        """
        ...

    def forget(self, *, ended_before: float) -> int:
        """Remove the requests of sessions that were over at the latest before a time; return how many."""
        ...


class ResultValues(Protocol):
    """What the results in each tree of sessions held, as digests: a part of a `SessionHistory`, with its promises.

    A crash of the machine can lose the latest. Methods that write raise `OverloadedError` when others do for too long.
    """

    def keep(self, values: HeldValues) -> None:
        """Keep the digests of values; the same again changes nothing but that they count as the latest.

        A value that has a better class keeps it. At most 4,096 issued and clean values of a tree are kept, and apart
        from them 512 tainted ones; the oldest go.
        """
        ...

    def classes(self, tree_id: str, digests: Collection[bytes]) -> Mapping[bytes, ValueClass]:
        """Return the class of each of some digests that the tree of a root session has; others are left out."""
        ...

    def count(self, tree_id: str) -> int:
        """Return how many values the tree of a root session has."""
        ...

    def trees(self, *, after: str, limit: int) -> tuple[str, ...]:
        """Return the ids of root sessions whose trees have values, sorted, from behind `after`, at most `limit`."""
        ...

    def forget(self, tree_ids: Collection[str]) -> None:
        """Remove all values of the trees of some root sessions."""
        ...


class CallTokenKeys(Protocol):
    """The public keys of call tokens: a part of a `SessionHistory`, read from what is stored at every call.

    A withdrawal that is acknowledged survives the sudden end of the machine. (In memory it does for the life of the
    process.) A key that was published can be lost with the machine, on which its private half is lost, too.
    """

    def publish(self, key: PublishedKey) -> None:
        """Add a key, before the first token is signed with it; remove those that have ended by then."""
        ...

    def get(self, key_id: str) -> PublishedKey | None:
        """Return a key, also a withdrawn one; None when there is none, or no longer."""
        ...

    def published(self, *, wall_at: float, limit: int) -> tuple[PublishedKey, ...]:
        """Return the keys that are not withdrawn and have not ended, newest first, at most `limit`."""
        ...

    def withdraw(self, key_id: str, *, wall_at: float, write: Write | None = None) -> bool:
        """Withdraw a key for good, at a time in unix seconds. Return False when there is none.

        It takes of what a store keeps for ending authority. With a `write` the withdrawal of a key that is there is
        remembered, and `written` of the access requests returns its id. Raise `ConflictError` when its key is
        remembered already.
        """
        ...


class SessionHistory(Protocol):
    """What calls have left behind, apart from the sessions that they were made in.

    What is kept is visible to every process on the same data before its method returns. It survives the sudden end of
    the process, and perhaps not that of the machine. Methods raise `StoreUnavailableError` when they cannot answer.
    """

    def key(self) -> bytes:
        """Return the random secret of 32 bytes that all processes on the same data share; it never changes."""
        ...

    def values(self) -> ResultValues:
        """Return what results held."""
        ...

    def access(self) -> AccessRequests:
        """Return the access requests on the same data; they end with the history."""
        ...

    def call_token_keys(self) -> CallTokenKeys:
        """Return the keys of call tokens on the same data; they end with the history."""
        ...

    def keep_report(self, report: Report) -> None:
        """Keep a report, one for each decision, and count a failure with it. The same again changes nothing.

        There are never more failures than calls. Raise `AlreadyReportedError` when another one is kept.
        """
        ...

    def forget_reports(self, *, reported_before: float) -> int:
        """Remove the reports from before a time in unix seconds; return how many."""
        ...

    def charge(self, charge: Charge) -> Charged:
        """Take all debits of a charge and add to its counts, or nothing when too little is left for one of the debits.

        A charge with the `retry_digest` of one from less than `RETRY_SECONDS` before, on both clocks, takes nothing,
        and is never refused. Raise `ConflictError` when a count is not as it was `seen`: the call must be decided
        again; and `OverloadedError` when others write for too long. Then nothing is taken.
        """
        ...

    def take_back(self, charge: Charge, charged_at: float) -> None:
        """Take back a charge, so that it was never made; `charged_at` is what `charge` returned.

        While another try of the same call counts on it, and for a budget that has begun anew since, nothing changes.
        Raise `OverloadedError` when others write for too long; then nothing is taken back.
        """
        ...

    def used(self, session_id: str) -> Mapping[str, Used]:
        """Return what is used up of the budgets of a session, by their names; only those of which something is."""
        ...

    def counts(
        self,
        session_ids: Collection[str],
        names: Collection[str],
        *,
        retry_digest: bytes = b"",
        now: Instant = BEGINNING,
    ) -> Counts:
        """Return the counts of some sessions under some names, all as of one moment.

        `retry_digest` and `now` are those of the charge that would follow.
        """
        ...

    def forget_charges(self, *, ended_before: float, charged_before: float) -> int:
        """Remove what is used up and counted in sessions that were over at the latest before a time; return how much.

        Retries of charges from before `charged_before` become charges of their own. Both are unix seconds.
        """
        ...

    def close(self) -> None:
        """Release what the history holds. Calling it twice is harmless."""
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
        sessions: its version, and behind it that of the bundle before, if there was one. Return the successors that
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
