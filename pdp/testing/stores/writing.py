"""The contract of a `SessionWriter`."""

# ruff: noqa: S101, PLR2004 - a published test suite: it asserts, and compares with literal numbers

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from threading import Barrier
from typing import Any

import pytest

from pdp.clock import Deadline, Instant
from pdp.errors import ConflictError, RequestIdConflictError
from pdp.model import Scope, Session, SessionState
from pdp.sessions.lifecycle import revoke
from pdp.sessions.store import Sessions
from pdp.sessions.values import Cut, SessionFilter
from pdp.sessions.writes import MOST_NAMED, WRITE_SECONDS, Write
from pdp.testing.stores.samples import (
    insert_family,
    insert_four,
    insert_over,
    make_scope,
    make_session,
    revoked,
    successor_of,
    unchanged,
)
from pdp.testing.stores.suite import StoreSuite

_CUT = Cut(tenant="default", user="ada", agent="", at=1000.0, by="lead", reason="left")


def _write(name: str, *, asked: str = "this") -> Write:
    return Write(key=sha256(name.encode()).digest(), digest=sha256(asked.encode()).digest())


class SessionWriterContract(StoreSuite):
    """A write follows the stored state, and happens completely or not at all."""

    def test_what_a_block_writes_is_stored_at_once(self, store: Sessions) -> None:
        """Only its acknowledgement waits for the end of the block, also of one within another."""
        session = make_session("a")
        with store.fencing(), store.fencing():
            store.insert(session, wall_at=1000.0)
            within = store.get(session.id)

        assert (within, store.get(session.id)) == ((session,), (session,))

    # Inserting

    def test_an_id_is_inserted_once(self, store: Sessions) -> None:
        """A second session with the same id is a conflict, and the first stays."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.insert(replace(session, handle_digest=b"\1" * 32), wall_at=1000.0)
        assert store.get(session.id) == (session,)

    def test_a_handle_is_inserted_once(self, store: Sessions) -> None:
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
    def test_a_session_begins_at_epoch_one_below_its_ancestors(self, store: Sessions, session: Session) -> None:
        """Anything else is a conflict, and nothing is inserted: no ancestor can be overlooked."""
        store.insert(make_session("root"), wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.insert(session, wall_at=1000.0)
        assert store.get(session.id) == ()

    def test_an_id_of_a_scope_stands_for_its_tools(self, store: Sessions) -> None:
        """Other tools under a known id are a conflict: they would change another session's scope."""
        first = make_session("a", scope=Scope(id="sha256:1", tools={"git/log": "sha256:0"}))
        store.insert(first, wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.insert(make_session("b", scope=Scope(id="sha256:1", tools={})), wall_at=1000.0)
        assert store.get("ses_b") == ()

    # Updating

    def test_an_update_replaces_the_session(self, store: Sessions) -> None:
        """After an update every method returns the successor."""
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
    def test_an_update_follows_directly(self, store: Sessions, epoch: int) -> None:
        """A session with any epoch but the next is a conflict, and the stored one stays."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.update([replace(session, epoch=epoch, user="bob")], wall_at=1000.0)
        assert store.get(session.id) == (session,)

    @pytest.mark.parametrize(
        "change", [{"handle_digest": b"\1" * 32}, {"parent_id": "ses_b"}, {"ancestor_ids": ("b",)}]
    )
    def test_an_update_keeps_handle_and_ancestors(self, store: Sessions, change: dict[str, Any]) -> None:
        """A session with another handle or other ancestors is not a successor."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.update([successor_of(session, **change)], wall_at=1000.0)
        assert store.get(session.id) == (session,)

    def test_an_approval_of_less_is_kept(self, store: Sessions) -> None:
        """A session that becomes active with other tools, duration and terms than it had is that one for all reads."""
        asked = make_session("a", state=SessionState.REQUESTED, terms_json='{"max_calls":9}')
        store.insert(asked, wall_at=1000.0)
        approved = successor_of(
            asked,
            state=SessionState.ACTIVE,
            scope=make_scope("git/log"),
            duration=600.0,
            terms_json='{"max_calls":3}',
            deadline=replace(asked.deadline, wall_at=1600.0),
        )

        store.update([approved], wall_at=1000.0)

        assert store.get(asked.id) == (approved,)
        assert store.view(asked.handle_digest).chain == (approved,)
        assert store.select(SessionFilter(), limit=1) == (approved,)

    # Changes that are asked for again

    def test_a_change_is_remembered_with_its_sessions(self, store: Sessions) -> None:
        """Of each kind, those that it wrote; a change that was not asked for under this key is not."""
        root, child, grandchild = insert_family(store)
        store.insert(make_session("a", state=SessionState.REQUESTED), wall_at=1000.0, write=_write("insert"))
        later = successor_of(make_session("a", state=SessionState.REQUESTED), state=SessionState.ACTIVE)
        store.update([later], wall_at=1000.0, write=_write("update"))
        store.change_tree(child.id, revoked, wall_at=1000.0, write=_write("change"))
        store.lift(_CUT, write=_write("cut"), session_ids=(root.id,))

        assert [store.written(_write(name), wall_at=1000.0) for name in ("insert", "update", "change", "cut", "x")] == [
            ("ses_a",),
            ("ses_a",),
            (child.id, grandchild.id),
            (root.id,),
            None,
        ]

    def test_a_change_is_made_once(self, store: Sessions) -> None:
        """A second one under the same key is a conflict and writes nothing, whatever it is."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0, write=_write("once"))

        for again in (
            lambda: store.insert(make_session("b"), wall_at=1000.0, write=_write("once")),
            lambda: store.update([successor_of(session)], wall_at=1000.0, write=_write("once")),
            lambda: store.change_tree(session.id, revoked, wall_at=1000.0, write=_write("once")),
        ):
            with pytest.raises(ConflictError):
                again()
        assert store.select(SessionFilter(), limit=9) == (session,)
        with pytest.raises(RequestIdConflictError):
            store.written(_write("once", asked="other"), wall_at=1000.0)

    def test_a_change_that_was_not_made_is_not_remembered(self, store: Sessions) -> None:
        """One that fails, and one that changes nothing, can be asked for anew."""
        with pytest.raises(ConflictError):
            store.update([make_session("a")], wall_at=1000.0, write=_write("failed"))
        store.change_tree("ses_a", revoked, wall_at=1000.0, write=_write("empty"))

        assert [store.written(_write(name), wall_at=1000.0) for name in ("failed", "empty")] == [None, None]

    def test_a_change_is_remembered_for_a_while(self, store: Sessions) -> None:
        """Its key is free again afterwards."""
        store.insert(make_session("a"), wall_at=1000.0, write=_write("one"))

        found = [store.written(_write("one"), wall_at=1000.0 + after) for after in (WRITE_SECONDS - 1, WRITE_SECONDS)]
        store.insert(make_session("b"), wall_at=1000.0 + WRITE_SECONDS, write=_write("one"))

        assert found == [("ses_a",), None]
        assert store.written(_write("one"), wall_at=1000.0 + WRITE_SECONDS) == ("ses_b",)

    def test_a_change_of_very_many_sessions_is_not_remembered(self, store: Sessions) -> None:
        """It is made again instead, and what is kept stays small."""
        names = tuple(f"ses_{number}" for number in range(MOST_NAMED + 1))
        for name, ids in (("many", names), ("most", names[1:])):
            store.lift(_CUT, write=_write(name), session_ids=ids)

        assert store.written(_write("many"), wall_at=1000.0) is None
        assert store.written(_write("most"), wall_at=1000.0) == names[1:]

    def test_a_handle_is_renewed_while_a_session_waits(self, store: Sessions) -> None:
        """The first one finds nothing from then on, also where it was remembered."""
        session = make_session("a", state=SessionState.REQUESTED)
        store.insert(session, wall_at=1000.0)
        store.view(session.handle_digest)
        renewed = successor_of(session, handle_digest=b"\1" * 32)
        store.renew_handle(renewed, wall_at=1000.0)

        assert store.view(session.handle_digest).chain == ()
        assert store.view(renewed.handle_digest).chain == store.get(session.id) == (renewed,)

    @pytest.mark.parametrize(
        "change", [{"state": SessionState.ACTIVE}, {"epoch": 1}, {"parent_id": "ses_b"}, {"id": "ses_b"}], ids=str
    )
    def test_no_other_handle_is_renewed(self, store: Sessions, change: dict[str, Any]) -> None:
        """A session that works has the handle that its gateway holds; and a successor is one of its own."""
        stored = make_session("a", state=change.get("state", SessionState.REQUESTED))
        store.insert(stored, wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.renew_handle(replace(successor_of(stored, handle_digest=b"\1" * 32), **change), wall_at=1000.0)
        assert store.view(stored.handle_digest).chain == (stored,)

    def test_an_unknown_session_cannot_be_updated(self, store: Sessions) -> None:
        """An update does not insert."""
        with pytest.raises(ConflictError):
            store.update([make_session("a")], wall_at=1000.0)
        assert store.get("ses_a") == ()

    def test_an_update_is_written_as_a_whole_or_not_at_all(self, store: Sessions) -> None:
        """One conflict among several sessions leaves all of them, and the high-water mark, unchanged."""
        first, second = make_session("a"), make_session("b")
        store.insert(first, wall_at=1000.0)
        store.insert(second, wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.update([successor_of(first), second], wall_at=5000.0)
        assert store.get(first.id) == (first,)
        assert store.view(first.handle_digest).high_water_at == 1000.0

    def test_one_session_has_one_successor(self, store: Sessions) -> None:
        """Two successors of the same epoch in one update are a conflict."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.update([successor_of(session, user="bob"), successor_of(session, user="eve")], wall_at=1000.0)
        assert store.get(session.id) == (session,)

    def test_a_race_has_one_winner(self, store: Sessions) -> None:
        """Of eight threads that write the same successor at once, one succeeds and seven get a conflict."""
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

    # Changing many

    def test_a_change_reaches_all_matching_and_all_below(self, store: Sessions) -> None:
        """Descendants change with a matching session, even if they do not match themselves."""
        root, child, grandchild = insert_family(store, user="ada", child_user="bob")
        other = make_session("other", user="bob")
        store.insert(other, wall_at=1000.0)
        written = store.change_where(SessionFilter(user="ada"), revoked, wall_at=1000.0)

        assert written == (revoked(root), revoked(child), revoked(grandchild))
        assert store.view(grandchild.handle_digest).chain == tuple(reversed(written))
        assert store.get(other.id) == (other,)

    def test_a_change_meets_each_session_once_and_ancestors_first(self, store: Sessions) -> None:
        """A matching session below another matching one is changed once, after its ancestors."""
        # The younger a session is here, the older its stated time: only descent gives the order.
        root = make_session("c", requested_at=3000.0)
        child = make_session("b", root, requested_at=2000.0)
        grandchild = make_session("a", child, requested_at=1000.0)
        for session in (root, child, grandchild):
            store.insert(session, wall_at=1000.0)
        met: list[str] = []
        store.change_where(SessionFilter(), lambda session: met.append(session.id), wall_at=1000.0)

        assert met == [root.id, child.id, grandchild.id]

    def test_a_change_may_leave_sessions(self, store: Sessions) -> None:
        """Sessions that the change leaves are not written and not returned."""
        root, child, _ = insert_family(store)
        written = store.change_where(
            SessionFilter(), lambda session: revoked(session) if session.id == child.id else None, wall_at=1000.0
        )

        assert written == (revoked(child),)
        assert store.get(root.id) == (root,)

    def test_a_tree_is_changed(self, store: Sessions) -> None:
        """A session and its descendants change, its ancestors and siblings do not."""
        root, child, grandchild = insert_family(store)
        sibling = make_session("sibling", root)
        store.insert(sibling, wall_at=1000.0)
        written = store.change_tree(child.id, revoked, wall_at=1000.0)

        assert written == (revoked(child), revoked(grandchild))
        assert store.get(sibling.id) == (sibling, root)

    def test_the_tree_of_an_unknown_session_is_empty(self, store: Sessions) -> None:
        """Nothing is written."""
        assert store.change_tree("ses_unknown", revoked, wall_at=1000.0) == ()

    def test_a_change_that_fails_changes_nothing(self, store: Sessions) -> None:
        """An error in the middle is raised unchanged, changes nothing, and the store goes on."""
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

    def test_a_change_makes_successors(self, store: Sessions) -> None:
        """A change that returns anything but the direct successor is a conflict."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)

        with pytest.raises(ConflictError):
            store.change_tree(session.id, lambda stored: stored, wall_at=1000.0)
        assert store.get(session.id) == (session,)

    def test_many_are_changed_in_steps(self, store: Sessions) -> None:
        """With a limit, the newest matching sessions are first, each with those below it."""
        insert_four(store)
        which = SessionFilter(states=frozenset({SessionState.ACTIVE, SessionState.REQUESTED}), ends_after=1000.0)
        change = revoke(Instant(wall_at=1010.0, boot_at=0.0, boot_id=""), by="admin", reason="enough")
        steps = [store.change_where(which, change, wall_at=1010.0, limit=2) for _ in range(3)]

        assert [sorted(session.id for session in step) for step in steps] == [["ses_c", "ses_d"], ["ses_b"], []]

    def test_what_is_requested_later_is_left_out(self, store: Sessions) -> None:
        """A filter by a moment applies to lists and to changes; a session of that very moment is included."""
        for name, requested_at in (("a", 1000.0), ("b", 1001.0), ("c", 1002.0)):
            store.insert(make_session(name, requested_at=requested_at), wall_at=requested_at)
        which = SessionFilter(requested_until=1001.0, ends_after=1000.0)
        change = revoke(Instant(wall_at=1002.0, boot_at=0.0, boot_id=""), by="admin", reason="enough")
        listed = store.select(which, limit=9)
        changed = store.change_where(which, change, wall_at=1002.0, limit=9)

        assert [sorted(one.id for one in found) for found in (listed, changed)] == [["ses_a", "ses_b"]] * 2

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
    def test_a_cut_revokes_what_it_concerns(self, store: Sessions, cut: Cut, revoked: str) -> None:
        """Every read of a session that it covers shows it revoked, until it is lifted; others are unchanged."""
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
        reads = [
            [store.view(session.handle_digest).chain[0] for session in four],
            [store.get(session.id)[0] for session in four],
            list(reversed(store.select(SessionFilter(), limit=9))),
        ]
        store.lift(cut)

        expected = [f"ses_{name}" for name in revoked]
        for read in reads:
            assert [one.id for one in read if one.state is SessionState.REVOKED] == expected
            ended = [(one.ended_at, one.ended_by, one.reason) for one in read if one.id in expected]
            assert ended == [(cut.at, "admin", "enough")] * len(expected)
        assert [store.get(session.id)[0] for session in four] == four

    def test_a_cut_reaches_below(self, store: Sessions) -> None:
        """Another user's session below one that is cut has a revoked ancestor."""
        root, _, grandchild = insert_family(store, child_user="bob")
        store.view(grandchild.handle_digest)
        store.cut(Cut(tenant=root.tenant, user="ada", at=4000.0, by="admin", reason="enough"))

        states = [session.state for session in store.view(grandchild.handle_digest).chain]
        assert states == [SessionState.ACTIVE, SessionState.ACTIVE, SessionState.REVOKED]
        assert store.high_water_at() == 4000.0

    def test_what_is_over_stays_as_it_was_under_a_cut(self, store: Sessions) -> None:
        """A session that ended or expired before is not revoked."""
        ended = insert_over(store, "ended")
        expired = make_session("expired")
        store.insert(expired, wall_at=1000.0)
        store.cut(Cut(tenant=ended.tenant, at=expired.deadline.wall_at, by="admin", reason="enough"))

        assert [store.get(ended.id)[0], store.get(expired.id)[0]] == [ended, expired]

    def test_a_cut_whose_place_another_has_taken_lifts_nothing(self, store: Sessions) -> None:
        """Two callers that revoke the same sessions do not undo each other's revocation."""
        session = make_session("a", requested_at=1001.0)
        store.insert(session, wall_at=1001.0)
        first = Cut(tenant=session.tenant, at=1000.0, by="admin", reason="enough")
        store.cut(first)
        store.cut(replace(first, at=1002.0))
        store.lift(first)

        assert store.get(session.id)[0].state is SessionState.REVOKED
        assert store.cuts() == (replace(first, at=1002.0),)

    # Purging

    def test_what_was_over_before_a_moment_is_removed(self, store: Sessions) -> None:
        """Over means closed before it, or with a deadline before it; later and live ones stay."""
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

    def test_a_removed_session_is_as_unknown_as_any(self, store: Sessions) -> None:
        """Neither handle nor id finds it, and both can be used again."""
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

    def test_the_oldest_are_removed_first(self, store: Sessions) -> None:
        """A limit bounds how many are removed at once, and the next call continues there."""
        for name, requested_at in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
            insert_over(store, name, requested_at=requested_at)
        removed, left = [], []
        for limit in (2, 0, 9, 9):
            removed.append(store.purge(over_before=3000.0, limit=limit, wall_at=3000.0))
            left.append([session.id for session in store.select(SessionFilter(), limit=9)])

        assert removed == [2, 0, 1, 0]
        assert left == [["ses_a"], ["ses_a"], [], []]

    def test_what_stands_above_another_session_stays(self, store: Sessions) -> None:
        """A chain stays complete: a session is removed when none below it is stored any longer."""
        root = insert_over(store, "root")
        live = make_session("live", root)
        store.insert(live, wall_at=1000.0)
        insert_over(store, "over", root)
        removed = [store.purge(over_before=3000.0, limit=9, wall_at=3000.0) for _ in range(2)]

        assert removed == [1, 0]
        assert store.view(live.handle_digest).chain == (live, root)

        store.update([successor_of(live, state=SessionState.ENDED, ended_at=1500.0)], wall_at=3000.0)
        assert [store.purge(over_before=3000.0, limit=9, wall_at=3000.0) for _ in range(3)] == [1, 1, 0]

    def test_nothing_is_removed_before_it_is_over(self, store: Sessions) -> None:
        """A moment in the future removes nothing that is not over yet, and no clock goes back after a removal."""
        store.insert(make_session("a"), wall_at=1000.0)

        assert store.purge(over_before=9999.0, limit=9, wall_at=4600.0) == 0
        assert store.purge(over_before=9999.0, limit=9, wall_at=4601.0) == 1
        assert store.high_water_at() == 4601.0
