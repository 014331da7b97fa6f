"""The contract of a `HighWaterMark`."""

# ruff: noqa: S101, PLR2004 - a published test suite: it asserts, and compares with literal numbers

from __future__ import annotations

from collections.abc import Callable

import pytest

from pdp.sessions.store import SessionStore
from pdp.sessions.values import SessionFilter
from pdp.testing.stores.samples import make_bundle, make_session, revoked, successor_of, unchanged
from pdp.testing.stores.suite import StoreSuite


class HighWaterMarkContract(StoreSuite):
    """Every write raises the mark and none lowers it, so these tests need a whole store."""

    @pytest.mark.parametrize(
        "write",
        [
            pytest.param(lambda store: store.insert(make_session("b"), wall_at=5000.0), id="insert"),
            pytest.param(lambda store: store.update([successor_of(make_session("a"))], wall_at=5000.0), id="update"),
            pytest.param(lambda store: store.change_where(SessionFilter(), revoked, wall_at=5000.0), id="where"),
            pytest.param(lambda store: store.change_tree("ses_a", revoked, wall_at=5000.0), id="tree"),
            pytest.param(
                lambda store: store.activate_bundle(make_bundle("v1", activated_at=5000.0), b"", unchanged), id="bundle"
            ),
            pytest.param(lambda store: store.touch(wall_at=5000.0), id="touch"),
        ],
    )
    def test_every_write_raises_the_mark(self, store: SessionStore, write: Callable[[SessionStore], object]) -> None:
        """The next view holds at least the time that was written."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)
        before = store.view(session.handle_digest).high_water_at
        write(store)

        after = store.view(session.handle_digest).high_water_at
        assert (before, after, store.high_water_at()) == (1000.0, 5000.0, 5000.0)

    def test_the_mark_never_falls(self, store: SessionStore) -> None:
        """A write with an earlier time leaves it, because the wall clock can be set back."""
        store.touch(wall_at=5000.0)
        store.touch(wall_at=1000.0)
        store.insert(make_session("a"), wall_at=1000.0)

        assert store.high_water_at() == 5000.0
