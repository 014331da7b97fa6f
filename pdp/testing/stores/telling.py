"""The contract of an `Outbox`: that of a session store, and that of access requests."""

# ruff: noqa: S101, PLR2004 - a published test suite: it asserts, and compares with literal numbers

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pdp.clock import Deadline
from pdp.errors import ConflictError
from pdp.model import SessionState
from pdp.sessions import access
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.outbox import FIRST_IDS, Outbox, Topic, Untold
from pdp.sessions.store import SessionStore
from pdp.sessions.values import Cut, SessionFilter
from pdp.testing.stores.access import at, bound, request
from pdp.testing.stores.samples import insert_family, make_bundle, make_freeze, make_session, revoked, successor_of
from pdp.testing.stores.suite import StoreSuite

_END = Deadline(wall_at=100_000.0, boot_at=100_000.0, boot_id="boot")
_EARLY = Deadline(wall_at=2000.0, boot_at=2000.0, boot_id="boot-1")


def _told(outbox: Outbox) -> list[tuple[str, int, tuple[str, ...]]]:
    return [(one.topic.value, one.count, one.ids) for one in outbox.untold(limit=100).events]


def _taken(outbox: Outbox) -> list[tuple[str, int, tuple[str, ...]]]:
    """Return the events, and remove them."""
    found = _told(outbox)
    outbox.forget_told(outbox.untold(limit=100))
    return found


class TellingStoreContract(StoreSuite):
    """A session store that tells: each change that receivers wait for is one event, written with the change."""

    def make_silent_store(self, folder: Path) -> Any:  # noqa: ANN401 - as `make_store`
        """Return an empty store that does not tell."""
        raise NotImplementedError

    def test_each_step_of_a_session_is_told_once(self, store: SessionStore) -> None:
        """In the order in which it was made; what is no topic is not told."""
        waiting = make_session("a", state=SessionState.REQUESTED)
        active = successor_of(waiting, state=SessionState.ACTIVE, approved_by="ann", approved_at=1001.0)
        labelled = successor_of(active, labels=("x",))
        store.insert(waiting, wall_at=1000.0)
        store.update([active], wall_at=1001.0)
        store.update([labelled], wall_at=1001.0)
        store.change_tree("ses_a", revoked, wall_at=1002.0)
        store.change_tree("ses_a", revoked, wall_at=1003.0)
        events = store.untold(limit=100).events

        assert [one.topic for one in events] == [
            Topic.SESSION_REQUESTED,
            Topic.SESSION_APPROVED,
            Topic.SESSION_REVOKED,
        ]
        assert [(one.by, one.at, one.ends_at) for one in events[:2]] == [
            ("gateway", 1000.0, 4600.0),
            ("ann", 1001.0, 4600.0),
        ]
        assert {(one.ids, one.user, one.agent, one.tenant, one.purpose) for one in events} == {
            (("ses_a",), "ada", "coder", "default", "fix the build")
        }

    def test_a_refused_session_is_told(self, store: SessionStore) -> None:
        """And one that its owner ends is not: no receiver waits for it."""
        for name, state in (("a", SessionState.DENIED), ("b", SessionState.ENDED)):
            waiting = make_session(name, state=SessionState.REQUESTED)
            store.insert(waiting, wall_at=1000.0)
            store.update([successor_of(waiting, state=state)], wall_at=1001.0)

        assert [one for one in _told(store) if one[0] != "session.requested"] == [("session.denied", 1, ("ses_a",))]

    def test_what_is_not_written_is_not_told(self, store: SessionStore) -> None:
        """A change that loses to another one leaves no event."""
        waiting = make_session("a", state=SessionState.REQUESTED)
        store.insert(waiting, wall_at=1000.0)
        with pytest.raises(ConflictError):
            store.update([successor_of(successor_of(waiting), state=SessionState.DENIED)], wall_at=1001.0)

        assert _told(store) == [("session.requested", 1, ("ses_a",))]

    def test_what_one_write_does_to_many_is_one_event(self, store: SessionStore) -> None:
        """It has a count and the first ids; what differs between them is empty."""
        for number in range(12):
            store.insert(make_session(f"{number:02}", user=f"user-{number}"), wall_at=1000.0)
        _taken(store)
        store.change_where(SessionFilter(agent="coder"), revoked, wall_at=1001.0)
        (event,) = store.untold(limit=100).events

        assert (event.topic, event.count, len(event.ids)) == (Topic.SESSION_REVOKED, 12, FIRST_IDS)
        assert event.ids[0] == "ses_00"
        assert (event.user, event.agent) == ("", "coder")

    def test_a_cut_is_told_once(self, store: SessionStore) -> None:
        """With the number of live sessions; their change afterwards, and their end on the clock, tell nothing more."""
        for name, requested_at in (("a", 1000.0), ("b", 1001.0), ("late", 3001.0)):
            store.insert(make_session(name, requested_at=requested_at), wall_at=1000.0)
        store.insert(make_session("other", user="bob"), wall_at=1000.0)
        _taken(store)
        cut = Cut(tenant="default", user="ada", at=3000.0, by="lead", reason="gone")
        store.cut(cut)
        store.change_tree("ses_a", revoked, wall_at=3000.0)

        assert _taken(store) == [("session.revoked", 2, ("ses_b", "ses_a"))]
        assert store.note_expired(wall_at=9000.0, limit=100) == 3
        assert _told(store) == [("session.expired", 2, ("ses_late", "ses_other"))]

    @pytest.mark.parametrize("tenant", ["default", ""])
    def test_a_freeze_is_told(self, store: SessionStore, tenant: str) -> None:
        """That it was set, that the first of two confirmed its end, and that it was lifted; of all tenants, too."""
        freeze = make_freeze(tenant)
        confirmed = replace(freeze, confirmed_by="ann", confirmed_at=2500.0)
        store.freeze(freeze)
        store.change_freeze(freeze.id, lambda _: confirmed, wall_at=2500.0)
        store.change_freeze(freeze.id, lambda one: one, wall_at=2550.0)
        store.change_freeze(freeze.id, lambda _: None, wall_at=2600.0)
        events = store.untold(limit=100).events

        assert [(one.topic, one.at, one.by) for one in events] == [
            (Topic.FREEZE_SET, 2000.0, "lead"),
            (Topic.FREEZE_LIFT_CONFIRMED, 2500.0, "ann"),
            (Topic.FREEZE_LIFTED, 2600.0, ""),
        ]
        assert {(one.tenant, one.ids) for one in events} == {(tenant, (freeze.id,))}

    def test_what_a_bundle_revokes_is_told(self, store: SessionStore) -> None:
        """Its directory can lack a user."""
        insert_family(store)
        _taken(store)
        store.activate_bundle(make_bundle("v1"), b"one", revoked)

        assert _told(store) == [("session.revoked", 3, ("ses_root", "ses_child", "ses_grandchild"))]

    def test_an_expiry_is_noted_once(self, store: SessionStore) -> None:
        """When the wall clock has reached it; at most so many at a time, the earliest first."""
        store.insert(make_session("later"), wall_at=1000.0)
        store.insert(make_session("early", state=SessionState.REQUESTED, deadline=_EARLY), wall_at=1000.0)
        store.insert(make_session("over", state=SessionState.ENDED), wall_at=1000.0)
        _taken(store)

        assert store.note_expired(wall_at=1999.0, limit=9) == 0
        assert [store.note_expired(wall_at=4600.0, limit=1) for _ in range(3)] == [1, 1, 0]
        events = store.untold(limit=100).events
        assert [(one.ids, one.was, one.at) for one in events] == [
            (("ses_early",), "requested", 2000.0),
            (("ses_later",), "active", 4600.0),
        ]

    def test_an_end_that_was_moved_is_noted_too(self, store: SessionStore) -> None:
        """Also one that was moved to before an expiry that was noted already."""
        session = make_session("a")
        store.insert(session, wall_at=1000.0)
        store.note_expired(wall_at=4000.0, limit=9)
        store.update([successor_of(session, deadline=_EARLY)], wall_at=4000.0)
        _taken(store)

        assert store.note_expired(wall_at=4000.0, limit=9) == 1
        assert _told(store) == [("session.expired", 1, ("ses_a",))]

    def test_what_was_passed_on_is_gone(self, store: SessionStore) -> None:
        """And only that; what is removed a second time changes nothing."""
        for name in "abc":
            store.insert(make_session(name), wall_at=1000.0)
        first = store.untold(limit=2)
        store.forget_told(first)
        store.forget_told(first)

        assert _told(store) == [("session.approved", 1, ("ses_c",))]

    def test_what_is_removed_expires_no_more(self, store: SessionStore) -> None:
        """A purge leaves nothing to be noted."""
        store.insert(make_session("a", deadline=_EARLY), wall_at=1000.0)
        store.purge(over_before=5000.0, limit=9, wall_at=5000.0)

        assert store.note_expired(wall_at=5000.0, limit=9) == 0

    def test_a_silent_store_has_no_events(self, tmp_path: Path) -> None:
        """Nothing is written that nobody reads, and no expiry is noted."""
        store = self.make_silent_store(tmp_path / "silent")
        store.insert(make_session("a", deadline=_EARLY), wall_at=1000.0)
        store.cut(Cut(tenant="default", at=1500.0, by="lead", reason="gone"))

        assert store.note_expired(wall_at=9000.0, limit=9) == 0
        assert store.untold(limit=9) == Untold()
        store.close()


class TellingAccessContract(StoreSuite):
    """A history that tells: what happens to access requests, and nothing of their use."""

    def test_each_answer_is_told(self, store: SessionHistory) -> None:
        """A request, a yes and a yes that is taken back; a use and one that is given back are not."""
        requests = store.access()
        requests.ask(request(), b"{}", at(1000.0))
        requests.ask(request("other"), b"{}", at(1000.0))
        requests.answer("acc_1", partial(access.approve, now=at(1001.0), by="ann", session_end=_END))
        use = requests.use(bound(), b"retry", at(1002.0))
        assert use is not None
        requests.give_back(use)
        requests.answer("acc_1", partial(access.revoke, now=at(1003.0), by="ann", reason="a slip"))
        events = requests.untold(limit=100).events

        assert _told(requests) == [
            ("access.requested", 1, ("acc_1",)),
            ("access.approved", 1, ("acc_1",)),
            ("access.revoked", 1, ("acc_1",)),
        ]
        assert {(one.session_id, one.tool, one.tenant, one.user) for one in events} == {
            ("ses_a", "mail/send", "default", "alice")
        }
        assert [one.by for one in events] == ["gateway", "ann", "ann"]

    def test_a_no_is_told(self, store: SessionHistory) -> None:
        """It is no expiry later."""
        requests = store.access()
        requests.ask(request(), b"{}", at(1000.0))
        requests.answer("acc_1", partial(access.deny, now=at(1001.0), by="ann", reason="no"))

        assert [one[0] for one in _taken(requests)] == ["access.requested", "access.denied"]
        assert requests.note_expired(wall_at=9000.0, limit=9) == 0

    def test_an_expiry_is_noted_once(self, store: SessionHistory) -> None:
        """Of a request that was not answered, and of an approval that was not used up."""
        requests = store.access()
        requests.ask(request(), b"{}", at(1000.0))
        requests.ask(request("2", bound(b"other")), b"{}", at(1000.0))
        requests.answer("acc_2", partial(access.approve, now=at(1001.0), by="ann", session_end=_END))
        _taken(requests)

        assert requests.note_expired(wall_at=1600.0, limit=9) == 0
        assert [requests.note_expired(wall_at=1900.0, limit=1) for _ in range(3)] == [1, 1, 0]
        events = requests.untold(limit=100).events
        assert [(one.topic, one.ids, one.was) for one in events] == [
            (Topic.ACCESS_EXPIRED, ("acc_2",), "approved"),
            (Topic.ACCESS_EXPIRED, ("acc_1",), "open"),
        ]
