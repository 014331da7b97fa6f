"""The contract of a `SessionHistory`."""

# ruff: noqa: S101, PLR2004 - a published test suite: it asserts, and compares with literal numbers

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from pdp.errors import AlreadyReportedError, StoreUnavailableError
from pdp.sessions.store import SessionHistory
from pdp.sessions.values import Report
from pdp.testing.stores.suite import StoreSuite


def _report(decision_id: str = "dec_1", digest: bytes = b"1", reported_at: float = 1000.0) -> Report:
    return Report(decision_id=decision_id, digest=digest, reported_at=reported_at)


class SessionHistoryContract(StoreSuite):
    """A decision is reported once, and the secret stays the same."""

    def test_the_secret_stays_the_same(self, store: SessionHistory) -> None:
        """It is long and random, and the same each time."""
        assert store.key() == store.key()
        assert len(store.key()) == 32
        assert len(set(store.key())) > 8

    def test_the_same_report_changes_nothing(self, store: SessionHistory) -> None:
        """A gateway that lost the answer may send it again, and its time does not count."""
        store.keep_report(_report())
        store.keep_report(_report(reported_at=1001.0))

        assert store.forget_reports(reported_before=1000.5) == 1

    def test_another_report_is_refused(self, store: SessionHistory) -> None:
        """The first one stays."""
        store.keep_report(_report())

        with pytest.raises(AlreadyReportedError):
            store.keep_report(_report(digest=b"2"))
        store.keep_report(_report())

    def test_decisions_are_reported_each(self, store: SessionHistory) -> None:
        """A report about one decision says nothing of another."""
        store.keep_report(_report())
        store.keep_report(_report("dec_2", b"2"))

        with pytest.raises(AlreadyReportedError):
            store.keep_report(_report("dec_2", b"1"))

    def test_old_reports_are_forgotten(self, store: SessionHistory) -> None:
        """Those from before a time; then the decision can be reported anew."""
        for number in range(3):
            store.keep_report(_report(f"dec_{number}", reported_at=1000.0 + number))

        assert store.forget_reports(reported_before=1002.0) == 2
        assert store.forget_reports(reported_before=1002.0) == 0
        store.keep_report(_report("dec_1", b"2"))
        with pytest.raises(AlreadyReportedError):
            store.keep_report(_report("dec_2", b"2"))

    def test_of_many_at_once_one_is_kept(self, store: SessionHistory) -> None:
        """Threads that report the same decision in different words."""
        barrier = Barrier(4)

        def report(number: int) -> bool:
            barrier.wait()
            try:
                store.keep_report(_report(digest=b"%d" % number))
            except AlreadyReportedError:
                return False
            return True

        with ThreadPoolExecutor(max_workers=4) as threads:
            assert sum(threads.map(report, range(4))) == 1

    @pytest.mark.parametrize(
        "call",
        [
            pytest.param(lambda store: store.key(), id="key"),
            pytest.param(lambda store: store.keep_report(_report()), id="keep_report"),
            pytest.param(lambda store: store.forget_reports(reported_before=1.0), id="forget_reports"),
        ],
    )
    def test_a_closed_history_does_not_answer(
        self, store: SessionHistory, call: Callable[[SessionHistory], object]
    ) -> None:
        """After closing, once or twice, every method says that it is unavailable."""
        store.close()
        store.close()

        with pytest.raises(StoreUnavailableError):
            call(store)
