"""The contract of `Freezes`."""

# ruff: noqa: S101, PLR2004 - a published test suite: it asserts, and compares with literal numbers

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Barrier, Event
from typing import Any

import pytest

from pdp.errors import ConflictError, FrozenError, NotFoundError
from pdp.model import SessionState
from pdp.sessions.store import Sessions
from pdp.sessions.values import SessionFilter
from pdp.sessions.writes import Write
from pdp.testing.stores.samples import (
    insert_family,
    make_freeze,
    make_session,
    revoked,
    successor_of,
)
from pdp.testing.stores.suite import StoreSuite

_WAITING = make_session("waiting", state=SessionState.REQUESTED)
_APPROVED = successor_of(_WAITING, state=SessionState.ACTIVE)
_READ = frozenset({"untrusted"})
_CONFIRMED: dict[str, Any] = {"confirmed_by": "ann", "confirmed_at": 2500.0}


class FreezesContract(StoreSuite):
    """A freeze is in every view from its write on, changes no session, and is never overtaken by what it refuses."""

    @pytest.mark.parametrize("tenant", ["default", ""])
    def test_a_view_shows_what_freezes_its_tenant(self, store: Sessions, tenant: str) -> None:
        """A freeze of the tenant or of all, for a session that was read before; the sessions stay as they are."""
        root, _, grandchild = insert_family(store)
        before = store.view(grandchild.handle_digest)
        store.freeze(make_freeze(tenant))
        after = store.view(grandchild.handle_digest)

        assert (before.freeze, after.freeze) == (None, make_freeze(tenant))
        assert after.chain == before.chain
        assert (store.get(root.id), store.freezes()) == ((root,), (make_freeze(tenant),))
        assert after.high_water_at == 2000.0

    def test_another_tenant_is_not_frozen(self, store: Sessions) -> None:
        """Its sessions are seen, opened and approved as before; and no handle, no freeze."""
        session = make_session("a", tenant="other")
        store.freeze(make_freeze("default"))
        store.insert(session, wall_at=1000.0)

        assert store.view(session.handle_digest).freeze is None
        assert store.view(b"\0" * 32).freeze is None

    def test_that_of_all_tenants_counts_first(self, store: Sessions) -> None:
        """Both are kept, in that order, and the other one counts when it is lifted."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)
        store.freeze(make_freeze("default"))
        store.freeze(make_freeze(""))

        assert store.freezes() == (make_freeze(""), make_freeze("default"))
        assert store.view(session.handle_digest).freeze == make_freeze("")
        assert store.change_freeze("frz_all", lambda _: None, wall_at=3000.0) is None
        assert store.view(session.handle_digest).freeze == make_freeze("default")

    def test_a_freeze_replaces_an_earlier_one(self, store: Sessions) -> None:
        """With all that it holds: a tenant has one."""
        store.freeze(make_freeze("default", **_CONFIRMED))
        later = make_freeze("default", id="frz_2", set_by="bob")
        store.freeze(later)

        assert store.freezes() == (later,)

    def test_a_freeze_is_changed_as_it_is_stored(self, store: Sessions) -> None:
        """What the change returns is kept, seen and returned."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)
        store.freeze(make_freeze("default"))
        confirmed = make_freeze("default", **_CONFIRMED)
        written = store.change_freeze("frz_default", lambda one: replace(one, **_CONFIRMED), wall_at=3000.0)

        assert (written, store.freezes()) == (confirmed, (confirmed,))
        assert store.view(session.handle_digest).freeze == confirmed
        assert store.view(session.handle_digest).high_water_at == 3000.0

    def test_a_freeze_is_remembered(self, store: Sessions) -> None:
        """Under its key, with its id; a second one under it is a conflict and stops nothing."""
        write = Write(key=b"key", digest=b"asked")
        store.freeze(make_freeze("default"), write=write)
        with pytest.raises(ConflictError):
            store.freeze(make_freeze("acme"), write=write)

        assert store.freezes() == (make_freeze("default"),)
        assert store.written(write, wall_at=2000.0) == ("frz_default",)

    def test_a_change_that_fails_leaves_the_freeze(self, store: Sessions) -> None:
        """As does one of a freeze that is not there: that is an error."""

        def fail(_: object) -> None:
            raise ConflictError("no")

        store.freeze(make_freeze("default"))

        with pytest.raises(ConflictError):
            store.change_freeze("frz_default", fail, wall_at=3000.0)
        with pytest.raises(NotFoundError):
            store.change_freeze("frz_other", lambda _: None, wall_at=3000.0)
        assert store.freezes() == (make_freeze("default"),)

    @pytest.mark.parametrize("tenant", ["default", ""])
    def test_nothing_is_opened_in_a_frozen_tenant(self, store: Sessions, tenant: str) -> None:
        """No session is inserted or becomes active, and none is written; when the freeze is lifted, both happen."""
        store.insert(_WAITING, wall_at=1000.0)
        store.freeze(make_freeze(tenant))

        with pytest.raises(FrozenError):
            store.insert(make_session("a"), wall_at=9000.0)
        with pytest.raises(FrozenError):
            store.update([_APPROVED], wall_at=9000.0)
        with pytest.raises(FrozenError), store.unfrozen("default"):
            raise AssertionError("a frozen tenant")
        assert (store.get("ses_a"), store.get(_WAITING.id)) == ((), (_WAITING,))
        assert store.high_water_at() == 2000.0
        store.change_freeze(make_freeze(tenant).id, lambda _: None, wall_at=3000.0)
        store.insert(make_session("a"), wall_at=3000.0)
        store.update([_APPROVED], wall_at=3000.0)

    def test_authority_ends_in_a_frozen_tenant(self, store: Sessions) -> None:
        """Sessions are refused, narrowed, ended and revoked."""
        active = make_session("active")
        store.insert(_WAITING, wall_at=1000.0)
        store.insert(active, wall_at=1000.0)
        store.freeze(make_freeze("default"))
        store.update([successor_of(_WAITING, state=SessionState.DENIED)], wall_at=1000.0)
        store.update([successor_of(active, labels=("read",))], wall_at=1000.0)
        (changed,) = store.change_where(SessionFilter(id=active.id), revoked, wall_at=1000.0)

        assert changed.state is SessionState.REVOKED

    def test_a_freeze_is_a_conflict_for_a_call_under_way(self, store: Sessions) -> None:
        """What the call changes is not written, so that it is decided again."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)
        store.freeze(make_freeze("default"))

        with pytest.raises(ConflictError):
            store.settle((session,), _READ, by="dec_1", wall_at=1000.0)
        with pytest.raises(ConflictError):
            store.settle((session,), frozenset(), by="dec_1", wall_at=1000.0)
        assert store.get(session.id) == (session,)

    def test_a_freeze_raises_the_revision(self, store: Sessions) -> None:
        """Those who follow sessions are told of it, and of no session."""
        store.insert(make_session("a"), wall_at=1000.0)
        seen = store.head()
        store.freeze(make_freeze("default"))
        told = store.changed(after=seen, limit=9)

        assert store.head().revision > seen.revision
        assert told is None or (told.sessions, told.freezes) == ((), (make_freeze("default"),))

    def test_a_freeze_waits_for_what_is_approved_unfrozen(self, store: Sessions) -> None:
        """It is acknowledged only after the block, so that nothing is approved after it."""
        order, entered = list[str](), Event()

        def freeze() -> None:
            entered.wait()
            store.freeze(make_freeze("default"))
            order.append("frozen")

        with ThreadPoolExecutor(max_workers=1) as threads:
            with store.unfrozen("default"):
                freezing = threads.submit(freeze)
                entered.set()
                with pytest.raises(TimeoutError):
                    freezing.result(timeout=0.05)
                order.append("approved")
            freezing.result()

        assert order == ["approved", "frozen"]

    def test_a_freeze_is_not_overtaken(self, store: Sessions) -> None:
        """Of a request and an approval at the same time, what is not there when it is acknowledged never comes."""
        for number in range(8):
            waiting = make_session(f"w{number}", state=SessionState.REQUESTED)
            fresh, barrier = make_session(f"f{number}"), Barrier(3)
            store.insert(waiting, wall_at=1000.0)

            def opened(write: Callable[[], None], barrier: Barrier = barrier) -> bool:
                barrier.wait()
                try:
                    write()
                except FrozenError:
                    return False
                return True

            with ThreadPoolExecutor(max_workers=2) as threads:
                approved = successor_of(waiting, state=SessionState.ACTIVE)
                approving = threads.submit(opened, partial(store.update, [approved], wall_at=1000.0))
                inserting = threads.submit(opened, partial(store.insert, fresh, wall_at=1000.0))
                barrier.wait()
                store.freeze(make_freeze("default"))
                then = store.get(waiting.id)[0].state is SessionState.ACTIVE, bool(store.get(fresh.id))
                done = approving.result(), inserting.result()

            assert then == done
            store.change_freeze("frz_default", lambda _: None, wall_at=3000.0)
