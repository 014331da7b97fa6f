"""The contract of a session history: what calls leave behind, one protocol for each part.

What `store` promises for every implementation and any number of threads and processes on the same data holds here
too, unless a protocol says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol

from pdp.clock import Instant
from pdp.model import ValueClass
from pdp.sessions.access import AccessFilter, AccessRequest, BoundCall, Unaskable, Use
from pdp.sessions.outbox import Outbox
from pdp.sessions.values import Charge, Charged, Counts, HeldValues, PublishedKey, Report, Used
from pdp.sessions.writes import Write

# How long after a charge, or the use of an approval, a retry of the same call takes nothing.
RETRY_SECONDS: Final = 60.0
# A moment for those who ask about no retry.
BEGINNING: Final = Instant(wall_at=0.0, boot_at=0.0, boot_id="")


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
