"""The contract of `SessionChanges`."""

# ruff: noqa: S101 - a published test suite: it asserts, and compares with literal numbers

from __future__ import annotations

from dataclasses import replace

import pytest

from pdp.errors import UnknownRevisionError
from pdp.model import SessionState
from pdp.sessions.store import SessionStore
from pdp.sessions.values import Changes, Cut, SessionFilter
from pdp.testing.stores.samples import insert_family, insert_over, make_bundle, make_session, revoked, successor_of
from pdp.testing.stores.suite import StoreSuite


class SessionChangesContract(StoreSuite):
    """Who follows a store misses nothing, or is told to list again.

    A subclass for a store that keeps hardly any changes says that it is `forgetful`, and one for a store that does not
    tell which labels calls have added that it `tells_labels` not.
    """

    forgetful = False
    tells_labels = True

    def told(self, changes: Changes | None, *names: str) -> Changes | None:
        """Assert which sessions changed, and return the changes; None only if the store may have forgotten them."""
        assert changes is not None or self.forgetful
        assert changes is None or [session.id for session in changes.sessions] == [f"ses_{name}" for name in names]
        return changes

    def test_nothing_has_changed_since_the_latest_revision(self, store: SessionStore) -> None:
        """And the revision is told with it."""
        store.insert(make_session("a"), wall_at=1000.0)
        latest = store.head()

        assert store.changed(after=latest, limit=9) == Changes(head=latest, sessions=(), bundle_version="")

    def test_inserted_and_changed_sessions_are_told_as_they_are_now(self, store: SessionStore) -> None:
        """Each once, whatever has happened to it, and none that has not changed."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)
        seen = store.head()
        narrowed = successor_of(session, labels=("read",))
        ended = successor_of(narrowed, state=SessionState.ENDED)
        store.update([narrowed, ended], wall_at=1000.0)
        store.insert(make_session("b"), wall_at=1000.0)

        changes = self.told(store.changed(after=seen, limit=9), "a", "b")
        assert changes is None or changes.sessions[0] == ended
        assert changes is None or changes.head == store.head()
        assert store.head().revision > seen.revision

    def test_what_is_below_a_changed_session_is_told(self, store: SessionStore) -> None:
        """Its change is one of theirs."""
        root, _, _ = insert_family(store)
        seen = store.head()
        store.change_tree(root.id, revoked, wall_at=1000.0)

        self.told(store.changed(after=seen, limit=9), "child", "grandchild", "root")

    def test_what_a_call_settled_is_told(self, store: SessionStore) -> None:
        """A label that an allowed call adds is a change of the session, unless it is kept apart."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)
        seen = store.head()
        store.settle((session,), frozenset({"read"}), by="dec_1", wall_at=1000.0)

        self.told(store.changed(after=seen, limit=9), *(["a"] if self.tells_labels else []))

    def test_an_activation_is_told(self, store: SessionStore) -> None:
        """With the sessions that it changed."""
        store.insert(make_session("a"), wall_at=1000.0)
        seen = store.head()
        store.activate_bundle(make_bundle("v1"), b"", lambda one: successor_of(one, entities_json="[1]"))

        changes = self.told(store.changed(after=seen, limit=9), "a")
        assert changes is None or changes.bundle_version == "v1"

    def test_a_removed_session_is_left_out(self, store: SessionStore) -> None:
        """It was over before."""
        seen = store.head()
        insert_over(store, "a")
        store.purge(over_before=3000.0, limit=9, wall_at=4000.0)

        self.told(store.changed(after=seen, limit=9))

    def test_after_a_cut_the_sessions_must_be_listed(self, store: SessionStore) -> None:
        """It can concern any number of them; what changes afterwards is told one by one again."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)
        seen = store.head()
        store.cut(Cut(tenant=session.tenant, at=1000.0, by="admin", reason="enough"))
        cut = store.head()
        store.insert(make_session("b", tenant="other"), wall_at=1000.0)

        assert store.changed(after=seen, limit=9) is None
        self.told(store.changed(after=cut, limit=9), "b")

    def test_too_many_changes_are_not_told(self, store: SessionStore) -> None:
        """As many as the limit are."""
        seen = store.head()
        for name in "abc":
            store.insert(make_session(name), wall_at=1000.0)

        assert store.changed(after=seen, limit=2) is None
        self.told(store.changed(after=seen, limit=3), "a", "b", "c")

    def test_a_revision_that_is_yet_to_come_is_of_other_data(self, store: SessionStore) -> None:
        """Of a store that has been replaced by its backup, for example; and so is one with another tag."""
        latest = store.head()

        assert store.changed(after=replace(latest, revision=latest.revision + 1), limit=9) is None
        assert store.changed(after=replace(latest, tag="another"), limit=9) is None

    def test_a_change_is_told_as_a_list_shows_it(self, store: SessionStore) -> None:
        """Also a session that a cut concerned before it changed."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)
        store.cut(Cut(tenant=session.tenant, at=1000.0, by="admin", reason="enough"))
        seen = store.head()
        store.update([successor_of(session, labels=("read",))], wall_at=1000.0)

        changes = store.changed(after=seen, limit=9)
        assert changes is not None
        assert changes.sessions == store.select(SessionFilter(), limit=9)

    def test_a_view_has_the_change_that_it_must_have(self, store: SessionStore) -> None:
        """The latest one, and any that was earlier."""
        session = make_session("a")
        earlier = store.head()
        store.insert(session, wall_at=1000.0)

        assert store.view(session.handle_digest, store.head()).chain == (session,)
        assert store.view(session.handle_digest, earlier).chain == (session,)

    def test_there_is_no_view_with_a_change_that_the_store_does_not_have(self, store: SessionStore) -> None:
        """Of one that is yet to come, or of another history: never an older view instead."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)
        latest = store.head()

        for foreign in (replace(latest, revision=latest.revision + 1), replace(latest, tag="another")):
            with pytest.raises(UnknownRevisionError):
                store.view(session.handle_digest, foreign)
        assert store.view(session.handle_digest, latest).chain == (session,)
