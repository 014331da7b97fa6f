"""The published suite of the session store's contract: whoever adds a store subclasses `StoreContract`.

class TestMyStore(StoreContract):
    def make_store(self, folder: Path) -> SessionStore:
        return MyStore(folder / "sessions")
"""

# ruff: noqa: S101, PLR2004 - a published test suite: it asserts, and compares with literal numbers

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from pdp.clock import Deadline, Instant
from pdp.errors import ConflictError, StoreUnavailableError
from pdp.model import Scope, Session, SessionState
from pdp.sessions.lifecycle import revoke
from pdp.sessions.store import ActiveBundle, Cut, SessionFilter, SessionStore

Write = Callable[[SessionStore], object]


def make_session(name: str, parent: Session | None = None, **changes: Any) -> Session:  # noqa: ANN401 - any field
    """Return a session that is ready to be inserted; equal names give equal ids and handles."""
    session = Session(
        id=f"ses_{name}",
        handle_digest=hashlib.sha256(name.encode()).digest(),
        state=SessionState.ACTIVE,
        user="ada",
        agent="coder",
        purpose="mend the build",
        tool_patterns=("git/*",),
        duration=3600.0,
        requested_at=1000.0,
        deadline=Deadline(wall_at=4600.0, boot_at=3700.0, boot_id="boot-1"),
        tenant="default",
        environment="test",
        opened_by="gateway",
        parent_id=parent.id if parent else "",
        ancestor_ids=(parent.id, *parent.ancestor_ids) if parent else (),
    )
    return replace(session, **changes)


def make_scope(*tools: str) -> Scope:
    """Return a scope of these tools; equal tools give equal ids."""
    content = ",".join(sorted(tools))
    return Scope(id=f"sha256:{hashlib.sha256(content.encode()).hexdigest()}", tools=dict.fromkeys(tools, "sha256:0"))


def successor_of(session: Session, **changes: Any) -> Session:  # noqa: ANN401 - any field
    """Return the session's next version."""
    return replace(session, epoch=session.epoch + 1, **changes)


def revoked(session: Session) -> Session | None:
    """Return the session revoked; None when it is already, as a `Change` does."""
    if session.state is SessionState.REVOKED:
        return None
    return successor_of(session, state=SessionState.REVOKED, reason="no longer trusted")


def unchanged(_: Session) -> None:
    """Leave a session as it is, as a `Change` does."""


def make_bundle(version: str, **changes: Any) -> ActiveBundle:  # noqa: ANN401 - any field
    """Return a bundle to activate."""
    return replace(ActiveBundle(version=version, activated_at=2000.0, activated_by="admin"), **changes)


class StoreContract:
    """What every session store must pass. A subclass says how an empty store is made."""

    def make_store(self, folder: Path) -> SessionStore:
        """Return an empty store; what it keeps in files, it keeps below `folder`."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SessionStore]:
        """Give one empty store to one test."""
        store = self.make_store(tmp_path)
        yield store
        store.close()

    # Looking

    def test_an_empty_store_shows_nothing(self, store: SessionStore) -> None:
        """A view of an unknown handle holds no session, no bundle and no time."""
        view = store.view(b"\0" * 32)

        assert (view.chain, view.bundle, view.high_water_at) == ((), None, 0.0)
        assert store.get("ses_unknown") == ()
        assert store.active_bundle() is None

    def test_an_inserted_session_is_found(self, store: SessionStore) -> None:
        """A session is found by its handle's digest and by its id, unchanged."""
        session = make_session("a", scope=make_scope("git/log"), labels=("urgent",), grants=("merge",))
        store.insert(session, wall_at=1000.0)

        assert store.view(session.handle_digest).chain == (session,)
        assert store.get(session.id) == (session,)

    def test_a_handle_that_was_unknown_is_found_once_it_is_inserted(self, store: SessionStore) -> None:
        """That a handle was unknown is not remembered."""
        session = make_session("a")
        before = store.view(session.handle_digest).chain
        store.insert(session, wall_at=1000.0)

        assert before == ()
        assert store.view(session.handle_digest).chain == (session,)

    def test_a_chain_goes_from_the_session_to_its_furthest_ancestor(self, store: SessionStore) -> None:
        """Ancestors stand behind the session, nearest first."""
        root, child, grandchild = family = insert_family(store)

        assert store.view(grandchild.handle_digest).chain == tuple(reversed(family))
        assert store.get(child.id) == (child, root)

    def test_a_change_of_an_ancestor_is_seen_below(self, store: SessionStore) -> None:
        """A chain that was looked at before holds an ancestor's successor afterwards."""
        root, child, grandchild = insert_family(store)
        store.view(grandchild.handle_digest)
        later = successor_of(root, state=SessionState.REVOKED)
        store.update([later], wall_at=1000.0)

        assert store.view(grandchild.handle_digest).chain == (grandchild, child, later)

    # Inserting

    def test_an_id_is_inserted_once(self, store: SessionStore) -> None:
        """A second session with the same id is a conflict, and the first stays."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.insert(replace(session, handle_digest=b"\1" * 32), wall_at=1000.0)
        assert store.get(session.id) == (session,)

    def test_a_handle_is_inserted_once(self, store: SessionStore) -> None:
        """A second session with the same handle is a conflict, and the first stays."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.insert(replace(session, id="ses_b"), wall_at=1000.0)
        assert store.view(session.handle_digest).chain == (session,)
        assert store.get("ses_b") == ()

    @pytest.mark.parametrize(
        "session",
        [
            pytest.param(make_session("a", epoch=2), id="epoch"),
            pytest.param(make_session("a", parent_id="ses_x", ancestor_ids=("ses_x",)), id="unknown parent"),
            pytest.param(make_session("a", parent_id="ses_root"), id="no ancestors"),
            pytest.param(make_session("a", ancestor_ids=("ses_root",)), id="no parent"),
            pytest.param(make_session("a", parent_id="ses_root", ancestor_ids=("ses_root", "ses_x")), id="too many"),
        ],
    )
    def test_a_session_begins_at_epoch_one_below_its_ancestors(self, store: SessionStore, session: Session) -> None:
        """Anything else is a conflict, and nothing is inserted: no ancestor can be overlooked."""
        store.insert(make_session("root"), wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.insert(session, wall_at=1000.0)
        assert store.get(session.id) == ()

    # Updating

    def test_an_update_replaces_the_session(self, store: SessionStore) -> None:
        """After an update every way of looking shows the successor."""
        session = make_session("a", state=SessionState.REQUESTED)
        store.insert(session, wall_at=1000.0)
        store.view(session.handle_digest)
        later = successor_of(session, state=SessionState.ACTIVE, user="bob", scope=make_scope("git/log"))
        store.update([later], wall_at=1000.0)

        assert store.view(session.handle_digest).chain == (later,)
        assert store.get(session.id) == (later,)
        assert store.select(SessionFilter(user="bob", states=frozenset({SessionState.ACTIVE})), limit=9) == (later,)
        assert store.select(SessionFilter(user="ada"), limit=9) == ()

    @pytest.mark.parametrize("epoch", [0, 1, 3])
    def test_an_update_follows_directly(self, store: SessionStore, epoch: int) -> None:
        """A session with any epoch but the next is a conflict, and what is stored stays."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.update([replace(session, epoch=epoch, user="bob")], wall_at=1000.0)
        assert store.get(session.id) == (session,)

    @pytest.mark.parametrize(
        "change", [{"handle_digest": b"\1" * 32}, {"parent_id": "ses_b"}, {"ancestor_ids": ("b",)}]
    )
    def test_an_update_keeps_handle_and_ancestors(self, store: SessionStore, change: dict[str, Any]) -> None:
        """A session with another handle or other ancestors is no successor."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.update([successor_of(session, **change)], wall_at=1000.0)
        assert store.get(session.id) == (session,)

    def test_an_unknown_session_cannot_be_updated(self, store: SessionStore) -> None:
        """An update does not insert."""
        with pytest.raises(ConflictError):
            store.update([make_session("a")], wall_at=1000.0)
        assert store.get("ses_a") == ()

    def test_an_update_is_written_as_a_whole_or_not_at_all(self, store: SessionStore) -> None:
        """One conflict among several sessions leaves all of them, and the high-water mark, as they were."""
        first, second = make_session("a"), make_session("b")
        store.insert(first, wall_at=1000.0)
        store.insert(second, wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.update([successor_of(first), second], wall_at=5000.0)
        assert store.get(first.id) == (first,)
        assert store.view(first.handle_digest).high_water_at == 1000.0

    def test_one_session_has_one_successor(self, store: SessionStore) -> None:
        """Two successors of the same epoch in one update are a conflict."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.update([successor_of(session, user="bob"), successor_of(session, user="eve")], wall_at=1000.0)
        assert store.get(session.id) == (session,)

    def test_a_race_has_one_winner(self, store: SessionStore) -> None:
        """Of eight threads that write the same successor at once, one succeeds and seven are told."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)
        start = Barrier(8)

        def race(number: int) -> str:
            start.wait(timeout=30)
            try:
                store.update([successor_of(session, ended_by=f"caller-{number}")], wall_at=1000.0)
            except ConflictError:
                return ""
            return f"caller-{number}"

        with ThreadPoolExecutor(8) as pool:
            winners = [winner for winner in pool.map(race, range(8)) if winner]

        assert winners == [store.get(session.id)[0].ended_by]

    def test_a_look_sees_every_write_that_was_acknowledged_before_it(self, store: SessionStore) -> None:
        """While one thread writes, threads that look never find less than what was acknowledged before."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)
        acknowledged = [1]

        def write() -> None:
            later = session
            for _ in range(100):
                later = successor_of(later)
                store.update([later], wall_at=1000.0)
                acknowledged[0] = later.epoch

        def look() -> bool:
            fresh = True
            while acknowledged[0] < 101:
                expected = acknowledged[0]
                fresh = fresh and store.view(session.handle_digest).chain[0].epoch >= expected
            return fresh

        with ThreadPoolExecutor(4) as pool:
            looks = [pool.submit(look) for _ in range(3)]
            write()

        assert [each.result() for each in looks] == [True, True, True]

    # Listing

    @pytest.mark.parametrize(
        ("which", "expected"),
        [
            (SessionFilter(), "dcba"),
            (SessionFilter(tenant="default"), "dba"),
            (SessionFilter(user="bob"), "b"),
            (SessionFilter(agent="writer"), "dc"),
            (SessionFilter(opened_by="laptop"), "d"),
            (SessionFilter(states=frozenset({SessionState.ENDED})), "a"),
            (SessionFilter(states=frozenset({SessionState.ENDED, SessionState.REQUESTED})), "ba"),
            (SessionFilter(tenant="default", agent="writer"), "d"),
            (SessionFilter(user="nobody"), ""),
        ],
    )
    def test_a_filter_selects(self, store: SessionStore, which: SessionFilter, expected: str) -> None:
        """Every field that is not empty must match, and the newest session comes first."""
        insert_four(store)

        found = store.select(which, limit=9)

        assert "".join(session.id.removeprefix("ses_") for session in found) == expected

    def test_pages_follow_one_another(self, store: SessionStore) -> None:
        """Each page begins behind the last session of the page before, also among sessions of the same time."""
        sessions = [make_session(name, requested_at=1000.0 if name < "d" else 2000.0) for name in "abcde"]
        for session in sessions:
            store.insert(session, wall_at=1000.0)

        pages = []
        before = None
        while page := store.select(SessionFilter(), limit=2, before=before):
            pages.append([session.id for session in page])
            before = (page[-1].requested_at, page[-1].id)

        assert pages == [["ses_e", "ses_d"], ["ses_c", "ses_b"], ["ses_a"]]

    def test_a_page_may_be_empty(self, store: SessionStore) -> None:
        """A limit of zero gives nothing."""
        store.insert(make_session("a"), wall_at=1000.0)

        assert store.select(SessionFilter(), limit=0) == ()

    def test_sessions_are_counted_by_stored_state(self, store: SessionStore) -> None:
        """Every state has a count, and the counts follow changes."""
        insert_four(store)
        store.change_tree("ses_d", revoked, wall_at=1000.0)

        assert store.count_by_state() == {
            SessionState.REQUESTED: 1,
            SessionState.ACTIVE: 1,
            SessionState.DENIED: 0,
            SessionState.ENDED: 1,
            SessionState.EXPIRED: 0,
            SessionState.REVOKED: 1,
        }

    # Changing many

    def test_a_change_reaches_all_matching_and_all_below(self, store: SessionStore) -> None:
        """Descendants change with a session that matches, though they do not match themselves."""
        root, child, grandchild = insert_family(store, user="ada", child_user="bob")
        other = make_session("other", user="bob")
        store.insert(other, wall_at=1000.0)
        written = store.change_where(SessionFilter(user="ada"), revoked, wall_at=1000.0)

        assert written == (revoked(root), revoked(child), revoked(grandchild))
        assert store.view(grandchild.handle_digest).chain == tuple(reversed(written))
        assert store.get(other.id) == (other,)

    def test_a_change_meets_each_session_once_and_ancestors_first(self, store: SessionStore) -> None:
        """A session that matches and is below one that matches is changed once, after its ancestors."""
        # The younger a session here, the older it claims to be: only descent gives the order.
        root = make_session("c", requested_at=3000.0)
        child = make_session("b", root, requested_at=2000.0)
        grandchild = make_session("a", child, requested_at=1000.0)
        for session in (root, child, grandchild):
            store.insert(session, wall_at=1000.0)
        met: list[str] = []
        store.change_where(SessionFilter(), lambda session: met.append(session.id), wall_at=1000.0)

        assert met == [root.id, child.id, grandchild.id]

    def test_a_change_may_leave_sessions(self, store: SessionStore) -> None:
        """What the change leaves is not written and not returned."""
        root, child, _ = insert_family(store)
        written = store.change_where(
            SessionFilter(), lambda session: revoked(session) if session.id == child.id else None, wall_at=1000.0
        )

        assert written == (revoked(child),)
        assert store.get(root.id) == (root,)

    def test_a_tree_is_changed(self, store: SessionStore) -> None:
        """A session and its descendants change, its ancestors and siblings do not."""
        root, child, grandchild = insert_family(store)
        sibling = make_session("sibling", root)
        store.insert(sibling, wall_at=1000.0)
        written = store.change_tree(child.id, revoked, wall_at=1000.0)

        assert written == (revoked(child), revoked(grandchild))
        assert store.get(sibling.id) == (sibling, root)

    def test_the_tree_of_an_unknown_session_is_empty(self, store: SessionStore) -> None:
        """Nothing is written."""
        assert store.change_tree("ses_unknown", revoked, wall_at=1000.0) == ()

    def test_a_change_that_fails_changes_nothing(self, store: SessionStore) -> None:
        """An error in the middle comes out as it is, leaves everything as it was, and the store goes on."""
        root, child, _ = insert_family(store)

        def fail_below(session: Session) -> Session:
            if session.parent_id:
                raise LookupError
            return successor_of(session)

        with pytest.raises(LookupError):
            store.change_where(SessionFilter(), fail_below, wall_at=5000.0)
        assert store.view(child.handle_digest).chain == (child, root)
        assert store.view(child.handle_digest).high_water_at == 1000.0
        assert store.change_tree(child.id, unchanged, wall_at=6000.0) == ()

    def test_a_change_makes_successors(self, store: SessionStore) -> None:
        """A change that answers with something else than the direct successor is a conflict."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.change_tree(session.id, lambda stored: stored, wall_at=1000.0)
        assert store.get(session.id) == (session,)

    # Purging

    def test_what_was_over_before_a_moment_is_removed(self, store: SessionStore) -> None:
        """Over is what was closed before it, or whose deadline was before it; neither later ones nor live ones go."""
        far, past = (Deadline(wall_at=wall_at, boot_at=0.0, boot_id="boot-1") for wall_at in (9000.0, 2500.0))
        for state in (SessionState.ENDED, SessionState.REVOKED, SessionState.DENIED):
            insert_over(store, state.value, state=state, deadline=far)
        store.insert(make_session("expired", deadline=past), wall_at=1000.0)
        store.insert(make_session("lapsed", deadline=past, state=SessionState.REQUESTED), wall_at=1000.0)
        insert_over(store, "late", ended_at=3000.0, deadline=past)
        store.insert(make_session("live"), wall_at=1000.0)

        assert store.purge(over_before=3000.0, limit=9, wall_at=5000.0) == 5
        assert {session.id for session in store.select(SessionFilter(), limit=9)} == {"ses_late", "ses_live"}
        assert sum(store.count_by_state().values()) == 2

    def test_a_removed_session_is_as_unknown_as_any(self, store: SessionStore) -> None:
        """Neither handle nor id finds it, and both could be given again."""
        session = insert_over(store, "a")
        store.view(session.handle_digest)
        store.purge(over_before=3000.0, limit=9, wall_at=3000.0)

        assert store.view(session.handle_digest) == replace(store.view(b"\0" * 32), chain=())
        assert store.get(session.id) == ()
        assert store.change_tree(session.id, revoked, wall_at=3000.0) == ()
        with pytest.raises(ConflictError):
            store.update([successor_of(session)], wall_at=3000.0)
        store.insert(session, wall_at=3000.0)
        assert store.view(session.handle_digest).chain == (session,)

    def test_the_oldest_are_removed_first(self, store: SessionStore) -> None:
        """A limit bounds how many go at once, and the next time goes on where the last has stopped."""
        for name, requested_at in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
            insert_over(store, name, requested_at=requested_at)
        removed, left = [], []
        for limit in (2, 0, 9, 9):
            removed.append(store.purge(over_before=3000.0, limit=limit, wall_at=3000.0))
            left.append([session.id for session in store.select(SessionFilter(), limit=9)])

        assert removed == [2, 0, 1, 0]
        assert left == [["ses_a"], ["ses_a"], [], []]

    def test_what_stands_above_another_session_stays(self, store: SessionStore) -> None:
        """A chain stays complete: a session goes when none below it is stored any longer."""
        root = insert_over(store, "root")
        live = make_session("live", root)
        store.insert(live, wall_at=1000.0)
        insert_over(store, "over", root)
        removed = [store.purge(over_before=3000.0, limit=9, wall_at=3000.0) for _ in range(2)]

        assert removed == [1, 0]
        assert store.view(live.handle_digest).chain == (live, root)

        store.update([successor_of(live, state=SessionState.ENDED, ended_at=1500.0)], wall_at=3000.0)
        assert [store.purge(over_before=3000.0, limit=9, wall_at=3000.0) for _ in range(3)] == [1, 1, 0]

    def test_nothing_is_removed_before_it_is_over(self, store: SessionStore) -> None:
        """A moment in the future removes nothing that is not over yet, and no clock goes back behind a removal."""
        store.insert(make_session("a"), wall_at=1000.0)

        assert store.purge(over_before=9999.0, limit=9, wall_at=4600.0) == 0
        assert store.purge(over_before=9999.0, limit=9, wall_at=4601.0) == 1
        assert store.high_water_at() == 4601.0

    # Bundles

    def test_an_activated_bundle_is_the_active_one(self, store: SessionStore) -> None:
        """View, store and content agree on it, also when it follows another."""
        store.activate_bundle(make_bundle("v1"), b"one", unchanged)
        store.view(b"\0" * 32)
        bundle = make_bundle("v2", activated_at=3000.0)
        store.activate_bundle(bundle, b"two", unchanged)

        assert store.active_bundle() == bundle
        assert store.view(b"\0" * 32).bundle == bundle
        assert (store.bundle_content("v2"), store.bundle_content("v1")) == (b"two", b"one")
        assert store.bundle_content("v3") is None

    def test_an_activation_changes_live_sessions(self, store: SessionStore) -> None:
        """The change sees what is stored as requested or active, and is written with the bundle."""
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
        """With `captured`, every session that holds something else for its user and agent is changed, and all live."""
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
        """Activating the active version changes nothing: not who did it, no session, no high-water mark."""
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
        """When the change of sessions fails, the former bundle stays active."""
        store.insert(make_session("a"), wall_at=1000.0)
        bundle = make_bundle("v1")
        store.activate_bundle(bundle, b"one", unchanged)

        with pytest.raises(ConflictError):
            store.activate_bundle(make_bundle("v2"), b"two", lambda stored: stored)
        assert (store.active_bundle(), store.bundle_content("v2")) == (bundle, None)

    def test_the_active_content_is_kept_however_many_follow(self, store: SessionStore) -> None:
        """A bundle that is activated again after many others has its content; the oldest have not."""
        store.activate_bundle(make_bundle("first"), b"first", unchanged)
        for number in range(15):
            store.activate_bundle(make_bundle(f"v{number}"), b"content", unchanged)
        gone = store.bundle_content("first")
        store.activate_bundle(make_bundle("v8"), b"content", unchanged)
        for number in range(9):
            store.activate_bundle(make_bundle(f"w{number}"), b"content", unchanged)

        assert gone is None
        assert (store.bundle_content("v8"), store.bundle_content("w8")) == (b"content", b"content")

    def test_an_activation_keeps_how_it_came_about(self, store: SessionStore) -> None:
        """Reason, choice, number and signer are those of the latest activation, in each look."""
        bundle = make_bundle("v1", reason="the new one fails", chosen=True, number=7, signed_by="key")
        store.activate_bundle(bundle, b"one", unchanged)

        assert store.active_bundle() == bundle
        assert store.view(b"\0" * 32).bundle == bundle
        assert store.kept_bundles() == (bundle,)

    @pytest.mark.parametrize("changed", [{"chosen": True}, {"number": 8}, {"signed_by": "key"}])
    def test_the_active_bundle_may_be_activated_otherwise(self, store: SessionStore, changed: dict[str, Any]) -> None:
        """Somebody may choose the version that a source brought, or bring it signed: then this is how it runs."""
        store.activate_bundle(make_bundle("v1"), b"one", unchanged)
        store.view(b"\0" * 32)
        otherwise = make_bundle("v1", activated_at=3000.0, **changed)
        store.activate_bundle(otherwise, b"signed", unchanged)

        assert (store.active_bundle(), store.bundle_content("v1")) == (otherwise, b"signed")
        assert store.kept_bundles() == (otherwise,)

    @pytest.mark.parametrize(("active", "expected"), [("v1", ""), ("v1", "v0"), ("", "v1")])
    def test_an_activation_that_expects_another_bundle_is_refused(
        self, store: SessionStore, active: str, expected: str
    ) -> None:
        """Who has not seen the active bundle activates nothing."""
        if active:
            store.activate_bundle(make_bundle(active), b"one", unchanged)
        before = store.active_bundle()

        with pytest.raises(ConflictError):
            store.activate_bundle(make_bundle("v2"), b"two", unchanged, expected=expected)
        assert (store.active_bundle(), store.bundle_content("v2")) == (before, None)

    def test_an_activation_that_expects_the_active_bundle_is_made(self, store: SessionStore) -> None:
        """Empty expects that nothing is active yet."""
        store.activate_bundle(make_bundle("v1"), b"one", unchanged, expected="")
        store.activate_bundle(make_bundle("v2"), b"two", unchanged, expected="v1")

        assert store.active_bundle() == make_bundle("v2")

    def test_kept_bundles_are_listed_by_their_latest_activation(self, store: SessionStore) -> None:
        """The active one stands first; one that came back stands once, with its latest activation."""
        for place, version in enumerate(("v1", "v2", "v3", "v1")):
            store.activate_bundle(make_bundle(version, activated_at=2000.0 - place), b"content", unchanged)

        listed = [(bundle.version, bundle.activated_at) for bundle in store.kept_bundles()]
        assert listed == [("v1", 1997.0), ("v3", 1998.0), ("v2", 1999.0)]

    def test_the_past_outlives_the_content(self, store: SessionStore) -> None:
        """Whether a version was active, and the highest number, are known long after the content has gone."""
        never = store.bundle_past("v0")
        for number in range(1000):
            store.activate_bundle(make_bundle(f"v{number}", number=1000 - number), b"", unchanged)

        past = store.bundle_past("v0")
        assert (never.was_active, never.highest_number) == (False, 0)
        assert (past.was_active, past.highest_number) == (True, 1000)
        assert (store.bundle_content("v0"), store.bundle_past("w").was_active) == (None, False)

    # The high-water mark

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
    def test_every_write_raises_the_mark(self, store: SessionStore, write: Write) -> None:
        """The next view holds at least the time that was written."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)
        before = store.view(session.handle_digest).high_water_at
        write(store)

        after = store.view(session.handle_digest).high_water_at
        assert (before, after, store.high_water_at()) == (1000.0, 5000.0, 5000.0)

    def test_the_mark_never_falls(self, store: SessionStore) -> None:
        """A write with an earlier time leaves it, as the wall clock may have been set back."""
        store.touch(wall_at=5000.0)
        store.touch(wall_at=1000.0)
        store.insert(make_session("a"), wall_at=1000.0)

        assert store.high_water_at() == 5000.0

    # Cuts

    @pytest.mark.parametrize(
        ("cut", "revoked"),
        [
            (Cut(tenant="default", at=1001.0, by="admin", reason="enough"), "ab"),
            (Cut(tenant="default", at=1003.0, by="admin", reason="enough"), "abd"),
            (Cut(tenant="default", user="bob", at=1003.0, by="admin", reason="enough"), "b"),
            (Cut(tenant="default", agent="writer", at=1003.0, by="admin", reason="enough"), "d"),
            (Cut(tenant="other", at=1003.0, by="admin", reason="enough"), "c"),
            (Cut(tenant="default", at=999.0, by="admin", reason="enough"), ""),
        ],
    )
    def test_a_cut_revokes_what_it_concerns(self, store: SessionStore, cut: Cut, revoked: str) -> None:
        """Every look at a session that it concerns sees it revoked, until it is lifted; others are as they were."""
        four = [
            make_session("a", requested_at=1000.0),
            make_session("b", requested_at=1001.0, user="bob"),
            make_session("c", requested_at=1002.0, tenant="other"),
            make_session("d", requested_at=1003.0, agent="writer"),
        ]
        for session in four:
            store.insert(session, wall_at=1000.0)
            store.view(session.handle_digest)
        store.cut(cut)
        looks = [
            [store.view(session.handle_digest).chain[0] for session in four],
            [store.get(session.id)[0] for session in four],
            list(reversed(store.select(SessionFilter(), limit=9))),
        ]
        store.lift(cut)

        expected = [f"ses_{name}" for name in revoked]
        for look in looks:
            assert [one.id for one in look if one.state is SessionState.REVOKED] == expected
            ended = [(one.ended_at, one.ended_by, one.reason) for one in look if one.id in expected]
            assert ended == [(cut.at, "admin", "enough")] * len(expected)
        assert [store.get(session.id)[0] for session in four] == four

    def test_a_cut_reaches_below(self, store: SessionStore) -> None:
        """A session of somebody else below one that is cut has a revoked ancestor."""
        root, _, grandchild = insert_family(store, child_user="bob")
        store.view(grandchild.handle_digest)
        store.cut(Cut(tenant=root.tenant, user="ada", at=4000.0, by="admin", reason="enough"))

        states = [session.state for session in store.view(grandchild.handle_digest).chain]
        assert states == [SessionState.ACTIVE, SessionState.ACTIVE, SessionState.REVOKED]
        assert store.high_water_at() == 4000.0

    def test_what_is_over_stays_as_it_was_under_a_cut(self, store: SessionStore) -> None:
        """A session that ended or expired before is not revoked."""
        ended = insert_over(store, "ended")
        expired = make_session("expired")
        store.insert(expired, wall_at=1000.0)
        store.cut(Cut(tenant=ended.tenant, at=expired.deadline.wall_at, by="admin", reason="enough"))

        assert [store.get(ended.id)[0], store.get(expired.id)[0]] == [ended, expired]

    def test_many_are_changed_in_steps(self, store: SessionStore) -> None:
        """With a limit, the newest sessions that match go first, each with what is below it."""
        insert_four(store)
        which = SessionFilter(states=frozenset({SessionState.ACTIVE, SessionState.REQUESTED}), ends_after=1000.0)
        change = revoke(Instant(wall_at=1010.0, boot_at=0.0, boot_id=""), by="admin", reason="enough")
        steps = [store.change_where(which, change, wall_at=1010.0, limit=2) for _ in range(3)]

        assert [sorted(session.id for session in step) for step in steps] == [["ses_c", "ses_d"], ["ses_b"], []]

    def test_what_is_requested_later_is_left_out(self, store: SessionStore) -> None:
        """A filter by a moment holds for lists and for changes; what was requested at that very moment is in."""
        for name, requested_at in (("a", 1000.0), ("b", 1001.0), ("c", 1002.0)):
            store.insert(make_session(name, requested_at=requested_at), wall_at=requested_at)
        which = SessionFilter(requested_until=1001.0, ends_after=1000.0)
        change = revoke(Instant(wall_at=1002.0, boot_at=0.0, boot_id=""), by="admin", reason="enough")
        listed = store.select(which, limit=9)
        changed = store.change_where(which, change, wall_at=1002.0, limit=9)

        assert [sorted(one.id for one in found) for found in (listed, changed)] == [["ses_a", "ses_b"]] * 2

    def test_a_cut_whose_place_another_has_taken_lifts_nothing(self, store: SessionStore) -> None:
        """Two who revoke the same sessions do not undo each other's revocation."""
        session = make_session("a", requested_at=1001.0)
        store.insert(session, wall_at=1001.0)
        first = Cut(tenant=session.tenant, at=1000.0, by="admin", reason="enough")
        store.cut(first)
        store.cut(replace(first, at=1002.0))
        store.lift(first)

        assert store.get(session.id)[0].state is SessionState.REVOKED

    def test_live_sessions_of_a_caller_are_counted(self, store: SessionStore) -> None:
        """Those that wait or are active, and have not expired by the moment that is asked about."""
        for session in (
            make_session("a", opened_by="gateway"),
            make_session("b", opened_by="gateway", state=SessionState.REQUESTED),
            make_session("c", opened_by="gateway", state=SessionState.ENDED),
            make_session("d", opened_by="another"),
        ):
            store.insert(session, wall_at=1000.0)
        end = make_session("a").deadline.wall_at

        counts = [store.count_live("gateway", wall_at=at) for at in (1000.0, end - 1.0, end)]
        assert counts == [2, 2, 0]

    # Scopes

    def test_equal_scopes_are_one_object(self, store: SessionStore) -> None:
        """Sessions share a scope however they are read, and however it was written."""
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

    def test_a_stored_scope_does_not_change(self, store: SessionStore) -> None:
        """Neither the mapping that a caller passed nor the one that is handed out can widen what is stored."""
        tools = {"git/log": "sha256:0"}
        session = make_session("a", scope=Scope(id="sha256:1", tools=tools))
        store.insert(session, wall_at=1000.0)
        tools["git/push"] = "sha256:0"
        stored = store.view(session.handle_digest).chain[0].scope

        assert stored is not None
        assert dict(stored.tools) == {"git/log": "sha256:0"}
        with pytest.raises(TypeError):
            stored.tools["git/push"] = "sha256:0"  # type: ignore[index]  # what must fail is tried on purpose

    def test_an_id_of_a_scope_stands_for_its_tools(self, store: SessionStore) -> None:
        """Other tools under a known id are a conflict: they would change another session's scope."""
        first = make_session("a", scope=Scope(id="sha256:1", tools={"git/log": "sha256:0"}))
        store.insert(first, wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.insert(make_session("b", scope=Scope(id="sha256:1", tools={})), wall_at=1000.0)
        assert store.get("ses_b") == ()

    # Closing

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
        ],
    )
    def test_a_closed_store_does_not_answer(self, store: SessionStore, call: Write) -> None:
        """After closing, once or twice, every method says that the store is unavailable."""
        store.insert(make_session("a"), wall_at=1000.0)
        store.view(make_session("a").handle_digest)
        store.close()
        store.close()

        with pytest.raises(StoreUnavailableError):
            call(store)


def insert_family(store: SessionStore, *, user: str = "ada", child_user: str = "ada") -> tuple[Session, ...]:
    """Insert a session, its child and its grandchild; return them in this order."""
    root = make_session("root", user=user)
    child = make_session("child", root, user=child_user)
    grandchild = make_session("grandchild", child, user=child_user)
    for session in (root, child, grandchild):
        store.insert(session, wall_at=1000.0)
    return root, child, grandchild


def insert_over(store: SessionStore, name: str, parent: Session | None = None, **changes: Any) -> Session:  # noqa: ANN401 - any field
    """Insert a session that ended at 2000."""
    session = make_session(name, parent, **{"state": SessionState.ENDED, "ended_at": 2000.0, **changes})
    store.insert(session, wall_at=1000.0)
    return session


def insert_four(store: SessionStore) -> None:
    """Insert four unlike sessions, the oldest first: `ses_a` to `ses_d`."""
    for session in (
        make_session("a", requested_at=1000.0, state=SessionState.ENDED),
        make_session("b", requested_at=1001.0, state=SessionState.REQUESTED, user="bob"),
        make_session("c", requested_at=1002.0, agent="writer", tenant="other"),
        make_session("d", requested_at=1003.0, agent="writer", opened_by="laptop"),
    ):
        store.insert(session, wall_at=1000.0)
