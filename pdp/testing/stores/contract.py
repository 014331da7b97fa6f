"""The contract of a `SessionStore`."""

# ruff: noqa: S101, PLR2004 - a published test suite: it asserts, and compares with literal numbers

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pdp.errors import ConflictError, StoreUnavailableError
from pdp.model import SessionState
from pdp.sessions.outbox import Untold
from pdp.sessions.store import SessionStore
from pdp.sessions.values import Cut, SessionFilter
from pdp.testing.stores.following import SessionChangesContract
from pdp.testing.stores.freezing import FreezesContract
from pdp.testing.stores.history import BundleHistoryContract
from pdp.testing.stores.lists import SessionListsContract
from pdp.testing.stores.mark import HighWaterMarkContract
from pdp.testing.stores.reading import SessionReaderContract
from pdp.testing.stores.samples import (
    insert_four,
    make_bundle,
    make_freeze,
    make_session,
    revoked,
    successor_of,
    unchanged,
)
from pdp.testing.stores.settling import SessionLedgerContract
from pdp.testing.stores.writing import SessionWriterContract


class StoreContract(
    SessionReaderContract,
    SessionListsContract,
    SessionChangesContract,
    SessionWriterContract,
    SessionLedgerContract,
    FreezesContract,
    BundleHistoryContract,
    HighWaterMarkContract,
):
    """The tests that every whole store must pass: those of each capability, and of several together."""

    def test_an_empty_store_shows_nothing(self, store: SessionStore) -> None:
        """A view of an unknown handle holds no session, no bundle and no time."""
        view = store.view(b"\0" * 32)

        assert (view.chain, view.bundle, view.high_water_at) == ((), None, 0.0)
        assert store.get("ses_unknown") == ()
        assert store.active_bundle() is None

    def test_an_activated_bundle_is_the_active_one(self, store: SessionStore) -> None:
        """View, store and content agree on it, even when it follows another bundle."""
        store.activate_bundle(make_bundle("v1"), b"one", unchanged)
        store.view(b"\0" * 32)
        bundle = make_bundle("v2", activated_at=3000.0)
        store.activate_bundle(bundle, b"two", unchanged)

        assert store.active_bundle() == bundle
        assert store.view(b"\0" * 32).bundle == bundle
        assert (store.bundle_content("v2"), store.bundle_content("v1")) == (b"two", b"one")
        assert store.bundle_content("v3") is None

    def test_an_activation_changes_live_sessions(self, store: SessionStore) -> None:
        """The change gets the stored requested and active sessions, and is written with the bundle."""
        insert_four(store)
        written = store.activate_bundle(
            make_bundle("v1"), b"", lambda session: successor_of(session, entities_json="[1]")
        )

        assert [session.id for session in written] == ["ses_b", "ses_c", "ses_d"]
        assert [store.get(f"ses_{name}")[0].epoch for name in "abcd"] == [1, 2, 2, 2]

    def test_an_activation_meets_ancestors_first(self, store: SessionStore) -> None:
        """A session is changed after the sessions that it descends from."""
        root = make_session("b", requested_at=2000.0)
        child = make_session("a", root, requested_at=1000.0)
        store.insert(root, wall_at=1000.0)
        store.insert(child, wall_at=1000.0)
        met: list[str] = []
        store.activate_bundle(make_bundle("v1"), b"", lambda session: met.append(session.id))

        assert met == [root.id, child.id]

    def test_an_activation_may_leave_out_what_is_as_captured(self, store: SessionStore) -> None:
        """With `captured`, every live session that holds other values for its user and agent is changed."""
        for user in ("ada", "bob"):
            for agent in ("coder", "tester"):
                session = make_session(f"{user}-{agent}", user=user, agent=agent, entities_json="[1]")
                store.insert(session, wall_at=1000.0)
        store.insert(make_session("over", user="bob", state=SessionState.ENDED), wall_at=1000.0)
        known = {("ada", "coder"): "[1]", ("ada", "tester"): "[2]", ("bob", "tester"): "[1]"}
        written = store.activate_bundle(
            make_bundle("v1"),
            b"",
            lambda session: revoked(session) if session.id in ("ses_ada-tester", "ses_bob-coder") else None,
            captured=lambda user, agent: known.get((user, agent)),
        )

        assert {session.id for session in written} == {"ses_ada-tester", "ses_bob-coder"}

    def test_the_active_bundle_is_not_activated_again(self, store: SessionStore) -> None:
        """Activating the active version changes nothing: not its author, no session, no high-water mark."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)
        bundle = make_bundle("v1")
        store.activate_bundle(bundle, b"one", unchanged)
        written = store.activate_bundle(make_bundle("v1", activated_at=9000.0), b"other", revoked)

        assert written == ()
        assert store.view(session.handle_digest).chain == (session,)
        assert (store.active_bundle(), store.bundle_content("v1")) == (bundle, b"one")
        assert store.view(session.handle_digest).high_water_at == 2000.0

    def test_an_activation_that_fails_leaves_the_bundle(self, store: SessionStore) -> None:
        """When the change of sessions fails, the previous bundle stays active."""
        store.insert(make_session("a"), wall_at=1000.0)
        bundle = make_bundle("v1")
        store.activate_bundle(bundle, b"one", unchanged)

        with pytest.raises(ConflictError):
            store.activate_bundle(make_bundle("v2"), b"two", lambda stored: stored)
        assert (store.active_bundle(), store.bundle_content("v2")) == (bundle, None)

    def test_an_activation_keeps_how_it_came_about(self, store: SessionStore) -> None:
        """Reason, choice, number and signer are those of the latest activation, in each method."""
        bundle = make_bundle("v1", reason="the new one fails", chosen=True, number=7, signed_by="key")
        store.activate_bundle(bundle, b"one", unchanged)

        assert store.active_bundle() == bundle
        assert store.view(b"\0" * 32).bundle == bundle
        assert store.kept_bundles() == (bundle,)

    @pytest.mark.parametrize("changed", [{"chosen": True}, {"number": 8}, {"signed_by": "key"}])
    def test_the_active_bundle_may_be_activated_otherwise(self, store: SessionStore, changed: dict[str, Any]) -> None:
        """A caller can choose the version that a source brought, or bring it signed; the new origin then applies."""
        store.activate_bundle(make_bundle("v1"), b"one", unchanged)
        store.view(b"\0" * 32)
        otherwise = make_bundle("v1", activated_at=3000.0, **changed)
        store.activate_bundle(otherwise, b"signed", unchanged)

        assert (store.active_bundle(), store.bundle_content("v1")) == (otherwise, b"signed")
        assert store.kept_bundles() == (otherwise,)

    @pytest.mark.parametrize(
        "call",
        [
            pytest.param(lambda store: store.view(b"\0" * 32), id="view"),
            pytest.param(lambda store: store.get("ses_a"), id="get"),
            pytest.param(lambda store: store.insert(make_session("a"), wall_at=1.0), id="insert"),
            pytest.param(lambda store: store.update([make_session("a")], wall_at=1.0), id="update"),
            pytest.param(lambda store: store.select(SessionFilter(), limit=1), id="select"),
            pytest.param(lambda store: store.change_where(SessionFilter(), unchanged, wall_at=1.0), id="change_where"),
            pytest.param(lambda store: store.change_tree("ses_a", unchanged, wall_at=1.0), id="change_tree"),
            pytest.param(
                lambda store: store.settle((make_session("a"),), frozenset(), by="dec_1", wall_at=1.0), id="settle"
            ),
            pytest.param(lambda store: store.purge(over_before=1.0, limit=1, wall_at=1.0), id="purge"),
            pytest.param(lambda store: store.activate_bundle(make_bundle("v"), b"", unchanged), id="activate_bundle"),
            pytest.param(lambda store: store.bundle_content("v"), id="bundle_content"),
            pytest.param(lambda store: store.active_bundle(), id="active_bundle"),
            pytest.param(lambda store: store.kept_bundles(), id="kept_bundles"),
            pytest.param(lambda store: store.bundle_past("v"), id="bundle_past"),
            pytest.param(lambda store: store.touch(wall_at=1.0), id="touch"),
            pytest.param(lambda store: store.count_by_state(), id="count_by_state"),
            pytest.param(lambda store: store.count_live("gateway", wall_at=1.0), id="count_live"),
            pytest.param(lambda store: store.cut(Cut(tenant="t", at=1.0, by="b", reason="r")), id="cut"),
            pytest.param(lambda store: store.lift(Cut(tenant="t", at=1.0, by="b", reason="r")), id="lift"),
            pytest.param(lambda store: store.untold(limit=1), id="untold"),
            pytest.param(lambda store: store.forget_told(Untold()), id="forget_told"),
            pytest.param(lambda store: store.note_expired(wall_at=1.0, limit=1), id="note_expired"),
            pytest.param(lambda store: store.freezes(), id="freezes"),
            pytest.param(lambda store: store.freeze(make_freeze("default")), id="freeze"),
            pytest.param(lambda store: store.change_freeze("frz_1", lambda one: one, wall_at=1.0), id="change_freeze"),
            pytest.param(lambda store: store.unfrozen("default").__enter__(), id="unfrozen"),
        ],
    )
    def test_a_closed_store_does_not_answer(self, store: SessionStore, call: Callable[[SessionStore], object]) -> None:
        """After closing, once or twice, every method says that the store is unavailable."""
        store.insert(make_session("a"), wall_at=1000.0)
        store.view(make_session("a").handle_digest)
        store.close()
        store.close()

        with pytest.raises(StoreUnavailableError):
            call(store)
