"""Keep what calls left behind in memory: for tests, and for embedded use that does not need it after its end."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from threading import Lock

from pdp.clock import Instant
from pdp.errors import AlreadyReportedError, ConflictError, OverloadedError, StoreUnavailableError
from pdp.sessions.calltokenkeys import MemoryCallTokenKeys
from pdp.sessions.historycontract import BEGINNING, AccessRequests, CallTokenKeys, ResultValues, SessionHistory
from pdp.sessions.memoryaccess import MemoryAccessRequests
from pdp.sessions.memoryreceipts import MemoryReceipts
from pdp.sessions.memoryvalues import MemoryValues
from pdp.sessions.memorywrites import MemoryWrites
from pdp.sessions.values import Charge, Charged, Count, Counts, Debit, Report, Used

KEY_BYTES = 32
# What is said when a count is not as it was seen.
MOVED = "the session has called something meanwhile; try again"


class MemorySessionHistory:
    """A `SessionHistory` that lives as long as its process. Safe for threads.

    It keeps the last `most` reports and access requests, and what tells retries of the last `most` charges and uses of
    approvals: some hundred bytes each, and the arguments of calls that a person is asked about. Of what results held it
    keeps `most_values` digests. `begun_at` is the present time, unix seconds, where there can be sessions that are
    older. With `tells` it has events of access requests.
    """

    def __init__(
        self, *, most: int = 20_000, most_values: int = 65_536, begun_at: float = 0.0, tells: bool = False
    ) -> None:
        self._most = most
        self._begun_at = begun_at
        self._lock = Lock()
        self._key = secrets.token_bytes(KEY_BYTES)
        self._reports: dict[str, Report] = {}
        self._used: dict[tuple[str, str], tuple[Used, float]] = {}
        self._counts: dict[tuple[str, str], tuple[Count, float]] = {}
        self._receipts = MemoryReceipts(most)
        self._closed = False
        self._values = MemoryValues(self._lock, self._require_open, most=most_values)
        writes = MemoryWrites()
        self._access = MemoryAccessRequests(self._lock, self._require_open, most=most, tells=tells, writes=writes)
        self._call_token_keys = MemoryCallTokenKeys(self._lock, self._require_open, writes)

    def key(self) -> bytes:
        """Return the random secret."""
        self._require_open()
        return self._key

    def values(self) -> ResultValues:
        """Return what results held."""
        self._require_open()
        return self._values

    def access(self) -> AccessRequests:
        """Return the access requests."""
        self._require_open()
        return self._access

    def call_token_keys(self) -> CallTokenKeys:
        """Return the keys of call tokens."""
        self._require_open()
        return self._call_token_keys

    def keep_report(self, report: Report) -> None:
        """Keep a report, one for each decision."""
        with self._lock:
            self._require_open()
            kept = self._reports.setdefault(report.decision_id, report)
            require_same(kept.digest, report)
            if kept is report:
                self._fail(report.failed)
            if len(self._reports) > self._most:
                del self._reports[next(iter(self._reports))]

    def forget_reports(self, *, reported_before: float) -> int:
        """Remove the reports from before a time; return how many."""
        with self._lock:
            self._require_open()
            old = [one.decision_id for one in self._reports.values() if one.reported_at < reported_before]
            for decision_id in old:
                del self._reports[decision_id]
            return len(old)

    def charge(self, charge: Charge) -> Charged:
        """Take all debits of a charge and add to its counts, or nothing."""
        with self._lock:
            self._require_open()
            charged_at = self._receipts.join(charge.retry_digest, charge.now)
            if charged_at is not None:
                return Charged(charged_at=charged_at)
            after = [self._after(debit) for debit in charge.debits]
            for debit, used in zip(charge.debits, after, strict=True):
                if used.used > debit.most:
                    return Charged(exhausted=debit)
            if any(self._count(of) != count for of, count in charge.seen.items()):
                raise ConflictError(MOVED)
            for debit, used in zip(charge.debits, after, strict=True):
                self._used[debit.session_id, debit.budget] = used, debit.ends_at
            for session_id, name, ends_at in charge.addends:
                count = self._count((session_id, name))
                self._counts[session_id, name] = count._replace(made=count.made + 1), ends_at
            self._receipts.sign(charge.retry_digest, charge.now)
            return Charged(used=tuple(one.used for one in after), charged_at=charge.at)

    def take_back(self, charge: Charge, charged_at: float) -> None:
        """Take back a charge, unless another try of the same call counts on it."""
        with self._lock:
            self._require_open()
            if not self._receipts.leave(charge.retry_digest, charged_at):
                return
            for debit in charge.debits:
                used, ends_at = self._used.get((debit.session_id, debit.budget), (None, 0.0))
                if used is not None and used.window == debit.window:
                    less = used._replace(used=used.used - debit.amount)
                    self._used[debit.session_id, debit.budget] = less, ends_at
            for session_id, name, ends_at in charge.addends:
                count = self._count((session_id, name))
                if count.made > count.failed:
                    self._counts[session_id, name] = count._replace(made=count.made - 1), ends_at

    def used(self, session_id: str) -> Mapping[str, Used]:
        """Return what is used up of the budgets of a session."""
        with self._lock:
            self._require_open()
            return {name: used for (owner, name), (used, _) in self._used.items() if owner == session_id}

    def counts(
        self,
        session_ids: Collection[str],
        names: Collection[str],
        *,
        retry_digest: bytes = b"",
        now: Instant = BEGINNING,
    ) -> Counts:
        """Return the counts of some sessions under some names."""
        with self._lock:
            self._require_open()
            found = {(one, name): self._count((one, name)) for one in session_ids for name in names}
            return Counts(
                {of: count for of, count in found.items() if count != Count()},
                self._begun_at,
                self._receipts.charged_at(retry_digest, now) is not None,
            )

    def forget_charges(self, *, ended_before: float, charged_before: float) -> int:
        """Remove what is kept of sessions that were over before a time, and what tells retries of old charges."""
        with self._lock:
            self._require_open()
            self._receipts.forget(charged_before=charged_before)
            over = [key for key, (_, ends_at) in self._used.items() if ends_at < ended_before]
            for budget in over:
                del self._used[budget]
            uncounted = [key for key, (_, ends_at) in self._counts.items() if ends_at < ended_before]
            for of in uncounted:
                del self._counts[of]
            return len(over) + len(uncounted)

    def close(self) -> None:
        """Forget everything; afterwards the history does not answer."""
        with self._lock:
            self._closed = True
            self._reports.clear()
            self._used.clear()
            self._counts.clear()
            self._receipts.clear()
            self._access.clear()
            self._call_token_keys.clear()
            self._values.clear()

    def _after(self, debit: Debit) -> Used:
        before, _ = self._used.get((debit.session_id, debit.budget), (Used(0, debit.window), 0.0))
        if before.window < debit.window:
            return Used(debit.amount, debit.window)
        return Used(before.used + debit.amount, before.window)

    def _count(self, of: tuple[str, str]) -> Count:
        return self._counts.get(of, (Count(), 0.0))[0]

    def _fail(self, failed: tuple[tuple[str, str], ...]) -> None:
        for of in failed:
            count, ends_at = self._counts.get(of, (Count(), 0.0))
            if count.failed < count.made:
                self._counts[of] = count._replace(failed=count.failed + 1), ends_at

    def _require_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError("the history of the sessions is closed")


def require_same(kept: bytes, report: Report) -> None:
    """Raise `AlreadyReportedError` unless the report that is kept says the same; `kept` is its digest."""
    if kept != report.digest:
        raise AlreadyReportedError("this call was reported already, and otherwise")


class ReopeningHistory:
    """A `SessionHistory` that `reopen` opens: now, or when it is next asked for, so that a server starts without it.

    What needs it raises `StoreUnavailableError` meanwhile; each `pause` seconds of `monotonic` it is tried again. Safe
    for threads.
    """

    def __init__(
        self,
        reopen: Callable[[], SessionHistory],
        *,
        on_failure: Callable[[StoreUnavailableError], None],
        pause: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reopen = reopen
        self._on_failure = on_failure
        self._pause = pause
        self._monotonic = monotonic
        self._lock = Lock()
        self._opened: SessionHistory | None = None
        self._closed = False
        self._failure: StoreUnavailableError | None = None
        self._next_try = monotonic()
        with suppress(StoreUnavailableError):
            self._history()

    def key(self) -> bytes:
        """Return the random secret."""
        return self._history().key()

    def values(self) -> ResultValues:
        """Return what results held."""
        return self._history().values()

    def access(self) -> AccessRequests:
        """Return the access requests."""
        return self._history().access()

    def call_token_keys(self) -> CallTokenKeys:
        """Return the keys of call tokens."""
        return self._history().call_token_keys()

    def keep_report(self, report: Report) -> None:
        """Keep a report, one for each decision."""
        self._history().keep_report(report)

    def forget_reports(self, *, reported_before: float) -> int:
        """Remove the reports from before a time; return how many."""
        return self._history().forget_reports(reported_before=reported_before)

    def charge(self, charge: Charge) -> Charged:
        """Take all debits of a charge and add to its counts, or nothing."""
        return self._history().charge(charge)

    def take_back(self, charge: Charge, charged_at: float) -> None:
        """Take back a charge, unless another try of the same call counts on it."""
        self._history().take_back(charge, charged_at)

    def used(self, session_id: str) -> Mapping[str, Used]:
        """Return what is used up of the budgets of a session."""
        return self._history().used(session_id)

    def counts(
        self,
        session_ids: Collection[str],
        names: Collection[str],
        *,
        retry_digest: bytes = b"",
        now: Instant = BEGINNING,
    ) -> Counts:
        """Return the counts of some sessions under some names."""
        return self._history().counts(session_ids, names, retry_digest=retry_digest, now=now)

    def forget_charges(self, *, ended_before: float, charged_before: float) -> int:
        """Remove what is kept of sessions that were over before a time, and what tells retries of old charges."""
        return self._history().forget_charges(ended_before=ended_before, charged_before=charged_before)

    def close(self) -> None:
        """Close what is open; afterwards the history does not answer."""
        with self._lock:
            self._closed = True
            if self._opened is not None:
                self._opened.close()

    def _history(self) -> SessionHistory:
        if self._opened is not None:
            return self._opened
        with self._lock:
            if self._opened is None:
                self._opened = self._try()
            return self._opened

    def _try(self) -> SessionHistory:
        if self._closed:
            raise StoreUnavailableError("the history of the sessions is closed")
        if self._failure is not None and self._monotonic() < self._next_try:
            raise self._failure
        try:
            return self._reopen()
        except (StoreUnavailableError, OverloadedError) as error:
            failure = StoreUnavailableError(str(error))
            # Once, and not for each call that waits for it.
            if self._failure is None:
                self._on_failure(failure)
            self._failure, self._next_try = failure, self._monotonic() + self._pause
            raise failure from None
