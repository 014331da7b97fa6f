"""The contract of `ResultValues`, a part of a `SessionHistory`."""

# ruff: noqa: S101, PLR2004 - a published test suite: it asserts, and compares with literal numbers

from __future__ import annotations

from collections.abc import Callable

import pytest

from pdp.errors import StoreUnavailableError
from pdp.model import ValueClass
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.values import HeldValues
from pdp.testing.stores.suite import StoreSuite

ISSUED, CLEAN, TAINTED = ValueClass.ISSUED, ValueClass.CLEAN, ValueClass.TAINTED


def _digest(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _digests(*numbers: int) -> tuple[bytes, ...]:
    return tuple(map(_digest, numbers))


def _held(tree_id: str = "ses_a", **classes: range | tuple[int, ...]) -> HeldValues:
    return HeldValues(tree_id=tree_id, **{name: _digests(*numbers) for name, numbers in classes.items()})


class ResultValuesContract(StoreSuite):
    """Values are kept for each tree, in their best class, and only the latest."""

    def test_values_are_found_in_their_classes(self, store: SessionHistory) -> None:
        """Those that were kept, in their own tree, and no others."""
        store.values().keep(_held(issued=(1,), clean=(2,), tainted=(3,)))
        store.values().keep(_held("ses_b", clean=(4,)))

        found = {_digest(1): ISSUED, _digest(2): CLEAN, _digest(3): TAINTED}
        assert store.values().classes("ses_a", _digests(1, 2, 3, 4)) == found
        assert store.values().classes("ses_b", _digests(1, 2, 3, 4)) == {_digest(4): CLEAN}
        assert store.values().classes("ses_c", _digests(1)) == {}
        assert store.values().classes("ses_a", ()) == {}
        assert [store.values().count(name) for name in ("ses_a", "ses_b", "ses_c")] == [3, 1, 0]

    @pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2), (1, 1)])
    def test_the_best_class_counts(self, store: SessionHistory, first: int, second: int) -> None:
        """In whichever order they come."""
        classes = {1: _held(issued=(7,)), 2: _held(clean=(7,)), 3: _held(tainted=(7,))}
        names = {1: ISSUED, 2: CLEAN, 3: TAINTED}
        for one in (first, second):
            store.values().keep(classes[one])

        found = store.values().classes("ses_a", _digests(7))
        assert found == {_digest(7): names[min(first, second)]}
        assert store.values().count("ses_a") == 1

    def test_one_result_can_hold_a_value_twice(self, store: SessionHistory) -> None:
        """Once as an id, once as something else."""
        store.values().keep(_held(issued=(1, 1), clean=(1,), tainted=(1,)))

        assert store.values().classes("ses_a", _digests(1)) == {_digest(1): ISSUED}

    def test_the_oldest_values_go(self, store: SessionHistory) -> None:
        """Of issued and clean ones together 4,096 are kept; one that comes again counts as the latest."""
        store.values().keep(_held(issued=range(2000)))
        store.values().keep(_held(clean=range(2000, 4096)))
        store.values().keep(_held(issued=(5,)))
        store.values().keep(_held(clean=range(5000, 5010)))

        gone = [number for number in range(4096) if not store.values().classes("ses_a", _digests(number))]
        assert gone == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
        assert store.values().count("ses_a") == 4096

    def test_tainted_values_push_out_no_others(self, store: SessionHistory) -> None:
        """They are counted apart, 512 of them; and others push out none of them."""
        store.values().keep(_held(clean=(1,), tainted=range(1000, 1500)))
        store.values().keep(_held(tainted=range(2000, 2100)))
        store.values().keep(_held(clean=range(10_000, 12_000)))

        kept = {one: bool(store.values().classes("ses_a", _digests(one))) for one in (1, 1087, 1088, 2099)}
        assert kept == {1: True, 1087: False, 1088: True, 2099: True}
        assert store.values().count("ses_a") == 1 + 512 + 2000

    def test_a_tainted_value_does_not_keep_a_clean_one_young(self, store: SessionHistory) -> None:
        """What strangers wrote does not decide what goes."""
        store.values().keep(_held(clean=range(4096)))
        store.values().keep(_held(tainted=(0,)))
        store.values().keep(_held(clean=(9000,)))

        assert store.values().classes("ses_a", _digests(0, 9000)) == {_digest(9000): CLEAN}

    def test_a_report_of_nothing_makes_no_tree(self, store: SessionHistory) -> None:
        """A result can be empty."""
        store.values().keep(_held())

        assert store.values().trees(after="", limit=10) == ()

    def test_trees_are_listed_and_forgotten(self, store: SessionHistory) -> None:
        """In the order of their ids, in pages; a forgotten one has nothing and can begin anew."""
        for name in ("ses_c", "ses_a", "ses_b"):
            store.values().keep(_held(name, clean=(1, 2)))
        assert store.values().trees(after="", limit=2) == ("ses_a", "ses_b")
        assert store.values().trees(after="ses_b", limit=2) == ("ses_c",)

        store.values().forget(["ses_a", "ses_b", "ses_unknown"])
        store.values().keep(_held("ses_b", clean=(3,)))

        assert store.values().trees(after="", limit=10) == ("ses_b", "ses_c")
        assert store.values().classes("ses_b", _digests(1, 2, 3)) == {_digest(3): CLEAN}
        assert [store.values().count(name) for name in ("ses_a", "ses_b", "ses_c")] == [0, 1, 2]

    @pytest.mark.parametrize(
        "call",
        [
            pytest.param(lambda store: store.values().keep(_held(clean=(1,))), id="keep"),
            pytest.param(lambda store: store.values().classes("ses_a", _digests(1)), id="classes"),
            pytest.param(lambda store: store.values().count("ses_a"), id="count"),
            pytest.param(lambda store: store.values().trees(after="", limit=1), id="trees"),
            pytest.param(lambda store: store.values().forget(["ses_a"]), id="forget"),
        ],
    )
    def test_a_closed_history_knows_no_values(
        self, store: SessionHistory, call: Callable[[SessionHistory], object]
    ) -> None:
        """It says that it is unavailable, and never that a value is unseen."""
        store.values().keep(_held(clean=(1,)))
        store.close()

        with pytest.raises(StoreUnavailableError):
            call(store)
