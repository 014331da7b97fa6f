"""The contract of a `SessionHistory`."""

# ruff: noqa: S101, PLR2004 - a published test suite: it asserts, and compares with literal numbers

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest

from pdp.errors import AlreadyReportedError, ConflictError, StoreUnavailableError
from pdp.sessions.historycontract import RETRY_SECONDS, SessionHistory
from pdp.sessions.values import Addend, Charge, Charged, Count, Debit, Report, Used
from pdp.testing.stores.keykeeping import CallTokenKeysContract
from pdp.testing.stores.samples import make_moment
from pdp.testing.stores.valuekeeping import ResultValuesContract


def _report(decision_id: str = "dec_1", digest: bytes = b"1", reported_at: float = 1000.0) -> Report:
    return Report(decision_id=decision_id, digest=digest, reported_at=reported_at)


def _debit(session_id: str = "ses_a", budget: str = "max_calls", *, amount: int = 1, most: int = 3) -> Debit:
    return Debit(session_id=session_id, budget=budget, amount=amount, most=most, window=0, ends_at=5000.0)


def _charge(*debits: Debit, retry: bytes = b"", at: float = 1000.0) -> Charge:
    return Charge(debits=debits, retry_digest=retry, now=make_moment(at))


def _call(*sessions: str, retry: bytes = b"", at: float = 1000.0, **seen: Count) -> Charge:
    """Return the charge of a call that is counted as `a` in some sessions, and has `seen` counts of the first."""
    return Charge(
        debits=(),
        retry_digest=retry,
        now=make_moment(at),
        addends=tuple(Addend(name, "a", 5000.0) for name in sessions),
        seen={("ses_a", name): count for name, count in seen.items()},
    )


_MOST = 2**63 - 1


class SessionHistoryContract(ResultValuesContract, CallTokenKeysContract):
    """A decision is reported once, no budget is overshot, and the secret stays the same."""

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

    def test_a_charge_takes_all_of_its_debits(self, store: SessionHistory) -> None:
        """It says what is used up of each, and each session has its own budgets."""
        both = _charge(_debit(), _debit(budget="max_sum", amount=20, most=50), _debit("ses_b"))

        assert store.charge(both) == Charged(used=(1, 20, 1), charged_at=1000.0)
        assert store.charge(both) == Charged(used=(2, 40, 2), charged_at=1000.0)
        assert store.used("ses_a") == {"max_calls": Used(2, 0), "max_sum": Used(40, 0)}
        assert store.used("ses_b") == {"max_calls": Used(2, 0)}
        assert store.used("ses_c") == {}

    def test_a_charge_takes_all_or_nothing(self, store: SessionHistory) -> None:
        """The first debit for which too little is left is named, and those before it are not taken either."""
        short, other = _debit("ses_b", amount=4), _debit("ses_c", amount=4)

        assert store.charge(_charge(_debit(), short, other)) == Charged(exhausted=short)
        assert [store.used(name) for name in ("ses_a", "ses_b", "ses_c")] == [{}, {}, {}]

    @pytest.mark.parametrize("most", [0, 1, 3, _MOST])
    def test_all_of_a_budget_can_be_used_and_no_more(self, store: SessionHistory, most: int) -> None:
        """Also the largest there is."""
        whole, one = _debit(amount=most, most=most), _debit(most=most)

        assert store.charge(_charge(whole)).used == (most,)
        assert store.charge(_charge(one)).exhausted == one
        assert store.charge(_charge(_debit(amount=0, most=most))).used == (most,)

    def test_slices_leave_a_budget_as_large_as_it_is(self, store: SessionHistory) -> None:
        """One history can give all of it, and no more."""
        sliced = _charge(replace(_debit(), slice=2))
        used = [store.charge(sliced).used for _ in range(4)]

        assert used == [(1,), (2,), (3,), ()]
        assert store.used("ses_a") == {"max_calls": Used(3, 0)}

    def test_a_budget_begins_anew_with_a_later_window(self, store: SessionHistory) -> None:
        """A process whose clock is behind counts in the later one."""
        windows = [replace(_debit(most=2), window=number) for number in (7, 7, 7, 8, 7, 7, 9)]
        taken = [store.charge(_charge(debit)) for debit in windows]

        assert [one.used for one in taken] == [(1,), (2,), (), (1,), (2,), (), (1,)]
        assert store.used("ses_a") == {"max_calls": Used(1, 9)}

    def test_a_retry_takes_nothing(self, store: SessionHistory) -> None:
        """Also when nothing is left, until its charge is too old; then it is a charge of its own."""
        first = _charge(_debit(most=2), retry=b"call")
        late = replace(first, now=make_moment(1000.0 + RETRY_SECONDS))
        # A wall clock that was set back stands still until it is where it was.
        set_back = replace(first, now=first.now._replace(boot_at=1000.0 + RETRY_SECONDS))

        assert store.charge(first) == Charged(used=(1,), charged_at=1000.0)
        assert store.charge(_charge(_debit(most=2), retry=b"other")).used == (2,)
        assert store.charge(replace(first, now=make_moment(999.0 + RETRY_SECONDS))) == Charged(charged_at=1000.0)
        assert store.charge(late).exhausted == first.debits[0]
        assert store.charge(set_back).exhausted == first.debits[0]
        assert store.used("ses_a") == {"max_calls": Used(2, 0)}

    def test_what_was_refused_can_be_charged_later(self, store: SessionHistory) -> None:
        """A retry of a call that was denied is no retry of a charge."""
        refused = _charge(_debit(amount=4), retry=b"call")
        store.charge(refused)

        assert store.charge(replace(refused, debits=(_debit(),))).used == (1,)

    def test_a_charge_can_be_taken_back(self, store: SessionHistory) -> None:
        """All of it, and then it was never made: a retry is charged."""
        charge = _charge(_debit(), _debit("ses_b", amount=2), retry=b"call")
        store.charge(_charge(_debit()))
        store.take_back(charge, store.charge(charge).charged_at)

        assert (store.used("ses_a")["max_calls"].used, store.used("ses_b")["max_calls"].used) == (1, 0)
        assert store.charge(charge).used == (2, 2)

    def test_a_charge_on_which_another_try_counts_stays(self, store: SessionHistory) -> None:
        """The other one was allowed for it; when that one takes it back too, it is gone."""
        charge = _charge(_debit(), retry=b"call")
        first, second = store.charge(charge), store.charge(charge)
        store.take_back(charge, first.charged_at)
        after_one = store.used("ses_a")["max_calls"].used
        store.take_back(charge, second.charged_at)

        assert (after_one, store.used("ses_a")["max_calls"].used) == (1, 0)

    def test_an_old_charge_takes_back_no_other(self, store: SessionHistory) -> None:
        """A later charge of the same call has replaced it."""
        charge = _charge(_debit(), retry=b"call")
        first = store.charge(charge)
        store.charge(replace(charge, now=make_moment(2000.0)))
        store.take_back(charge, first.charged_at)

        assert store.used("ses_a")["max_calls"].used == 2

    def test_what_has_begun_anew_is_not_taken_back(self, store: SessionHistory) -> None:
        """The budget of a later window never held the charge."""
        early, late = (_charge(replace(_debit(), window=number)) for number in (7, 8))
        first = store.charge(early)
        store.charge(late)
        store.take_back(early, first.charged_at)

        assert store.used("ses_a") == {"max_calls": Used(1, 8)}

    def test_charges_of_sessions_that_are_over_are_forgotten(self, store: SessionHistory) -> None:
        """Those that ended before a time; and what tells retries, by the age of the charge."""
        store.charge(_charge(_debit(), replace(_debit("ses_b"), ends_at=4999.0), retry=b"call"))

        assert store.forget_charges(ended_before=5000.0, charged_before=1000.0) == 1
        assert (set(store.used("ses_a")), set(store.used("ses_b"))) == ({"max_calls"}, set())
        assert store.charge(_charge(_debit(), retry=b"call")).used == ()
        assert store.forget_charges(ended_before=5000.0, charged_before=1000.5) == 0
        assert store.charge(_charge(_debit(), retry=b"call")).used == (2,)

    def test_many_at_once_overshoot_nothing(self, store: SessionHistory) -> None:
        """Threads that take until nothing is left take exactly what there is."""
        barrier = Barrier(4)

        def take(_: int) -> int:
            barrier.wait()
            return sum(bool(store.charge(_charge(_debit(most=50), _debit("ses_b", most=60))).used) for _ in range(30))

        with ThreadPoolExecutor(max_workers=4) as threads:
            assert sum(threads.map(take, range(4))) == 50
        assert (store.used("ses_a")["max_calls"].used, store.used("ses_b")["max_calls"].used) == (50, 50)

    def test_calls_are_counted_in_each_session(self, store: SessionHistory) -> None:
        """Under each name apart, and only those are returned that were asked for."""
        both = _call("ses_a", "ses_b")
        other = replace(both, addends=(Addend("ses_a", "b/c", 5000.0),))
        for charge in (both, both, _call("ses_c"), other):
            assert store.charge(charge) == Charged(charged_at=1000.0)

        counts = store.counts(["ses_a", "ses_b", "ses_d"], ["a", "d"])
        assert counts.of == {("ses_a", "a"): Count(2), ("ses_b", "a"): Count(2)}
        assert store.counts(["ses_a"], ["a", "b/c"]).of == {("ses_a", "a"): Count(2), ("ses_a", "b/c"): Count(1)}
        assert store.counts([], []).of == {}
        assert store.used("ses_a") == {}

    def test_a_count_is_added_only_to_what_was_seen(self, store: SessionHistory) -> None:
        """Otherwise the call must be decided again; nothing of its charge is made, debits included."""
        store.charge(_call("ses_a", a=Count(), b=Count()))
        late = _call("ses_a", retry=b"call", a=Count())

        for stale in (late, replace(late, debits=(_debit(),)), replace(late, addends=()), _call(b=Count(1))):
            with pytest.raises(ConflictError):
                store.charge(stale)
        assert store.used("ses_a") == {}
        assert store.counts(["ses_a"], ["a"], retry_digest=b"call", now=make_moment(1000.0)).retried is False
        store.charge(_call("ses_a", a=Count(1)))
        assert store.counts(["ses_a"], ["a"]).of == {("ses_a", "a"): Count(2)}

    def test_an_exhausted_budget_counts_nothing(self, store: SessionHistory) -> None:
        """And it is named, whatever the counts are."""
        short = replace(_call("ses_a", a=Count()), debits=(_debit(amount=4),))

        assert store.charge(short).exhausted == short.debits[0]
        assert store.counts(["ses_a"], ["a"]).of == {}

    def test_a_retry_counts_once(self, store: SessionHistory) -> None:
        """Whatever it has seen; and it is told that it is among the calls that are counted."""
        first = _call("ses_a", retry=b"call", a=Count())
        store.charge(first)
        known = [
            store.counts(["ses_a"], ["a"], retry_digest=digest, now=make_moment(at)).retried
            for digest, at in (
                (b"call", 1000.0),
                (b"call", 999.0 + RETRY_SECONDS),
                (b"call", 1000.0 + RETRY_SECONDS),
                (b"", 1000.0),
                (b"other", 1000.0),
            )
        ]

        assert known == [True, True, False, False, False]
        assert store.charge(first) == Charged(charged_at=1000.0)
        assert store.counts(["ses_a"], ["a"]).of == {("ses_a", "a"): Count(1)}

    def test_a_count_can_be_taken_back(self, store: SessionHistory) -> None:
        """With the debits of its charge, and once."""
        charge = replace(_call("ses_a", "ses_b", retry=b"call"), debits=(_debit(),))
        store.charge(_call("ses_a"))
        charged_at = store.charge(charge).charged_at
        store.take_back(charge, charged_at)
        store.take_back(charge, charged_at)

        assert store.counts(["ses_a", "ses_b"], ["a"]).of.get(("ses_a", "a")) == Count(1)
        assert store.counts(["ses_b"], ["a"]).of.get(("ses_b", "a"), Count()) == Count()
        assert store.used("ses_a")["max_calls"].used == 0

    def test_a_failure_is_counted_once_for_each_decision(self, store: SessionHistory) -> None:
        """And never more than there were calls, nor of calls that are not counted."""
        failed = (("ses_a", "a"), ("ses_b", "a"), ("ses_a", "b"))
        for _ in range(3):
            store.charge(_call("ses_a"))
        store.charge(_call("ses_b"))
        for report in (_report(), _report(), _report("dec_2")):
            store.keep_report(replace(report, failed=failed))
        with pytest.raises(AlreadyReportedError):
            store.keep_report(replace(_report(digest=b"2"), failed=failed))
        store.keep_report(_report("dec_3"))

        assert store.counts(["ses_a", "ses_b"], ["a", "b"]).of == {
            ("ses_a", "a"): Count(3, 2),
            ("ses_b", "a"): Count(1, 1),
        }
        store.take_back(_call("ses_b"), 1000.0)
        assert store.counts(["ses_b"], ["a"]).of == {("ses_b", "a"): Count(1, 1)}
        with pytest.raises(ConflictError):
            store.charge(_call("ses_a", a=Count(3, 1)))

    def test_counts_of_sessions_that_are_over_are_forgotten(self, store: SessionHistory) -> None:
        """Those that ended before a time."""
        ended = replace(_call(), addends=(Addend("ses_b", "a", 4999.0), Addend("ses_b", "b", 4999.0)))
        for charge in (_call("ses_a"), ended):
            store.charge(charge)

        assert store.forget_charges(ended_before=5000.0, charged_before=0.0) == 2
        assert store.counts(["ses_a", "ses_b"], ["a", "b"]).of == {("ses_a", "a"): Count(1)}

    def test_of_many_at_once_each_has_seen_the_ones_before(self, store: SessionHistory) -> None:
        """Threads that count up to a number, each for what it has seen, count exactly to that."""
        barrier = Barrier(4)

        def count(_: int) -> int:
            barrier.wait()
            made = 0
            while (seen := store.counts(["ses_a"], ["a"]).of.get(("ses_a", "a"), Count())).made < 50:
                try:
                    store.charge(_call("ses_a", a=seen))
                except ConflictError:
                    continue
                made += 1
            return made

        with ThreadPoolExecutor(max_workers=4) as threads:
            assert sum(threads.map(count, range(4))) == 50
        assert store.counts(["ses_a"], ["a"]).of == {("ses_a", "a"): Count(50)}

    @pytest.mark.parametrize(
        "call",
        [
            pytest.param(lambda store: store.key(), id="key"),
            pytest.param(lambda store: store.charge(_charge(_debit())), id="charge"),
            pytest.param(lambda store: store.take_back(_charge(_debit()), 1.0), id="take_back"),
            pytest.param(lambda store: store.used("ses_a"), id="used"),
            pytest.param(lambda store: store.counts(["ses_a"], ["a"]), id="counts"),
            pytest.param(lambda store: store.forget_charges(ended_before=1.0, charged_before=1.0), id="forget_charges"),
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
