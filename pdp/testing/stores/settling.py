"""The contract of a `SessionLedger`."""

# ruff: noqa: S101, PLR2004 - a published test suite: it asserts, and compares with literal numbers

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from pdp.errors import ConflictError
from pdp.model import Session, SessionState
from pdp.sessions.lifecycle import labelled
from pdp.sessions.store import Sessions
from pdp.sessions.values import Cut
from pdp.testing.stores.samples import insert_family, make_scope, make_session, revoked, successor_of
from pdp.testing.stores.suite import StoreSuite

_READ = labelled(frozenset({"untrusted"}), by="dec_1")


def _read(store: Sessions, chain: Sequence[Session], *labels: str, wall_at: float = 1000.0) -> tuple[Session, ...]:
    """Add labels to a chain as a call does that reads what is not trusted."""
    return store.settle(chain, frozenset(labels or {"untrusted"}), by="dec_1", wall_at=wall_at)


class SessionLedgerContract(StoreSuite):
    """What a call changes is written for its whole chain, if the chain is still as the call saw it."""

    def test_a_chain_is_changed_as_a_whole(self, store: Sessions) -> None:
        """The session and every ancestor; the answer and all reads hold what was written."""
        _, _, grandchild = insert_family(store)
        seen = store.view(grandchild.handle_digest).chain
        written = _read(store, seen, wall_at=3000.0)

        assert tuple(_READ(session) for session in seen) == written
        assert store.view(grandchild.handle_digest).chain == written
        assert store.get("ses_root") == written[2:]
        # The mark can be raised to the time of the call, and need not.
        assert store.view(grandchild.handle_digest).high_water_at in (1000.0, 3000.0)

    def test_only_what_changes_is_written(self, store: Sessions) -> None:
        """An ancestor that has the label already keeps its epoch."""
        root, _, grandchild = insert_family(store)
        store.update([successor_of(root, labels=("untrusted",))], wall_at=1000.0)
        written = _read(store, store.get(grandchild.id))

        assert [session.epoch for session in written] == [2, 2, 2]
        assert [dict(session.label_origins) for session in written] == [{"untrusted": "dec_1"}] * 2 + [{}]

    def test_waiting_for_others_writes_nothing(self, store: Sessions) -> None:
        """Until they see what was read."""
        (session, *_) = insert_family(store)
        before, seen = store.head(), store.get(session.id)
        store.outwait()

        assert store.head() == before
        assert store.get(session.id) == seen

    def test_a_scope_stays_shared(self, store: Sessions) -> None:
        """A session that is written keeps its tools."""
        session = make_session("a", scope=make_scope("git/log"))
        store.insert(session, wall_at=1000.0)
        (written,) = _read(store, store.get(session.id))

        assert written.scope == session.scope
        assert store.get(session.id) == (written,)

    def test_a_change_of_nothing_returns_the_chain(self, store: Sessions) -> None:
        """Nothing gets another epoch."""
        _, _, grandchild = insert_family(store)
        seen = store.get(grandchild.id)

        assert store.settle(seen, frozenset(), by="dec_1", wall_at=1000.0) == seen
        assert store.get(grandchild.id) == seen

    @pytest.mark.parametrize("moved", ["ses_grandchild", "ses_root"])
    def test_a_chain_that_has_changed_is_a_conflict(self, store: Sessions, moved: str) -> None:
        """Whichever session it is; nothing is written, and the call must be decided again."""
        _, _, grandchild = insert_family(store)
        seen = store.get(grandchild.id)
        (later,) = (successor_of(session, labels=("other",)) for session in seen if session.id == moved)
        store.update([later], wall_at=1000.0)
        before = store.get(grandchild.id)

        with pytest.raises(ConflictError):
            _read(store, seen, wall_at=9000.0)
        assert store.get(grandchild.id) == before
        assert store.high_water_at() == 1000.0

    @pytest.mark.parametrize("ended", ["ses_grandchild", "ses_child", "ses_root"])
    def test_a_chain_that_was_revoked_is_a_conflict(self, store: Sessions, ended: str) -> None:
        """No label is added to a session that is over."""
        _, _, grandchild = insert_family(store)
        seen = store.get(grandchild.id)
        store.change_tree(ended, revoked, wall_at=1000.0)

        with pytest.raises(ConflictError):
            _read(store, seen)

    def test_a_cut_is_a_conflict(self, store: Sessions) -> None:
        """A revocation of many at once counts from its one row on; after it is lifted, the chain is as before."""
        _, _, grandchild = insert_family(store)
        seen = store.get(grandchild.id)
        cut = Cut(tenant="default", user="ada", at=2000.0, by="lead", reason="gone")
        store.cut(cut)

        with pytest.raises(ConflictError):
            _read(store, seen)
        store.lift(cut)
        assert _read(store, seen)[0].labels == ("untrusted",)

    def test_a_session_that_is_gone_is_a_conflict(self, store: Sessions) -> None:
        """It may have been removed meanwhile."""
        with pytest.raises(ConflictError):
            _read(store, (make_session("a"),))

    def test_of_many_at_once_one_wins(self, store: Sessions) -> None:
        """Threads that saw the same chain: one writes, the others must look again."""
        session = make_session("a", state=SessionState.ACTIVE)
        store.insert(session, wall_at=1000.0)
        seen, barrier = store.get(session.id), Barrier(4)

        def settle(number: int) -> tuple[Session, ...] | None:
            barrier.wait()
            try:
                return _read(store, seen, f"label-{number}")
            except ConflictError:
                return None

        with ThreadPoolExecutor(max_workers=4) as threads:
            written = [found for found in threads.map(settle, range(4)) if found is not None]

        assert [store.get(session.id)] == written
