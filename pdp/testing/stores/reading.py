"""The contract of a `SessionReader`."""

# ruff: noqa: S101, PLR2004 - a published test suite: it asserts, and compares with literal numbers

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pdp.model import Scope, SessionState
from pdp.sessions.store import Sessions
from pdp.sessions.values import SessionFilter
from pdp.testing.stores.samples import insert_family, make_scope, make_session, successor_of
from pdp.testing.stores.suite import StoreSuite


class SessionReaderContract(StoreSuite):
    """Every session is found as it was last written, with its ancestors."""

    def test_an_inserted_session_is_found(self, store: Sessions) -> None:
        """A session is found by its handle's digest and by its id, unchanged."""
        session = make_session("a", scope=make_scope("git/log"), labels=("urgent",), grants=("merge",))
        store.insert(session, wall_at=1000.0)

        assert store.view(session.handle_digest).chain == (session,)
        assert store.get(session.id) == (session,)

    def test_memory_tells_what_a_view_says_or_nothing(self, store: Sessions) -> None:
        """What is told at once has every write that was acknowledged before."""
        root, child, grandchild = insert_family(store)
        for _ in range(2):
            store.view(grandchild.handle_digest)
        told = store.known(grandchild.handle_digest)
        later = successor_of(root, state=SessionState.REVOKED)
        store.update([later], wall_at=1000.0)
        after = store.known(grandchild.handle_digest)

        assert told is None or told.chain == (grandchild, child, root)
        assert after is None or after.chain == (grandchild, child, later)

    def test_a_handle_that_was_unknown_is_found_once_it_is_inserted(self, store: Sessions) -> None:
        """The store does not remember that a handle was unknown."""
        session = make_session("a")
        before = store.view(session.handle_digest).chain
        store.insert(session, wall_at=1000.0)

        assert before == ()
        assert store.view(session.handle_digest).chain == (session,)

    def test_a_chain_goes_from_the_session_to_its_furthest_ancestor(self, store: Sessions) -> None:
        """Ancestors follow the session, nearest first."""
        root, child, grandchild = family = insert_family(store)

        assert store.view(grandchild.handle_digest).chain == tuple(reversed(family))
        assert store.find(grandchild.handle_digest) == tuple(reversed(family))
        assert store.get(child.id) == (child, root)

    def test_a_change_of_an_ancestor_is_seen_below(self, store: Sessions) -> None:
        """A chain that was read before holds the ancestor's successor afterwards."""
        root, child, grandchild = insert_family(store)
        store.view(grandchild.handle_digest)
        later = successor_of(root, state=SessionState.REVOKED)
        store.update([later], wall_at=1000.0)

        assert store.view(grandchild.handle_digest).chain == (grandchild, child, later)

    def test_a_read_sees_every_write_that_was_acknowledged_before_it(self, store: Sessions) -> None:
        """While one thread writes, readers never see less than what was acknowledged before."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)
        acknowledged = [1]

        def write() -> None:
            later = session
            for _ in range(100):
                later = successor_of(later)
                store.update([later], wall_at=1000.0)
                acknowledged[0] = later.epoch

        def read() -> bool:
            fresh = True
            while acknowledged[0] < 101:
                expected = acknowledged[0]
                fresh = fresh and store.view(session.handle_digest).chain[0].epoch >= expected
            return fresh

        with ThreadPoolExecutor(4) as pool:
            reads = [pool.submit(read) for _ in range(3)]
            write()

        assert [each.result() for each in reads] == [True, True, True]

    def test_equal_scopes_are_one_object(self, store: Sessions) -> None:
        """Sessions share a scope, however they are read and it was written."""
        first, second = (make_session(name, scope=make_scope("git/log", "git/diff")) for name in "ab")
        store.insert(first, wall_at=1000.0)
        store.insert(second, wall_at=1000.0)
        changed = store.change_tree(
            second.id, lambda stored: successor_of(stored, scope=make_scope("git/diff", "git/log")), wall_at=1000.0
        )
        scopes = [
            store.view(first.handle_digest).chain[0].scope,
            store.get(second.id)[0].scope,
            changed[0].scope,
            *(session.scope for session in store.select(SessionFilter(), limit=9)),
        ]

        assert len({id(scope) for scope in scopes}) == 1
        assert scopes[0] == first.scope

    def test_a_stored_scope_does_not_change(self, store: Sessions) -> None:
        """Neither the caller's mapping nor the returned one can widen the stored scope."""
        tools = {"git/log": "sha256:0"}
        session = make_session("a", scope=Scope(id="sha256:1", tools=tools))
        store.insert(session, wall_at=1000.0)
        tools["git/push"] = "sha256:0"
        stored = store.view(session.handle_digest).chain[0].scope

        assert stored is not None
        assert dict(stored.tools) == {"git/log": "sha256:0"}
        with pytest.raises(TypeError):
            stored.tools["git/push"] = "sha256:0"  # type: ignore[index]  # what must fail is tried on purpose
