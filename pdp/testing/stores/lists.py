"""The contract of `SessionLists`."""

# ruff: noqa: S101 - a published test suite: it asserts, and compares with literal numbers

from __future__ import annotations

from typing import Any

import pytest

from pdp.model import SessionState
from pdp.sessions.store import Sessions
from pdp.sessions.values import SessionFilter
from pdp.testing.stores.samples import insert_four, insert_over, make_session, revoked
from pdp.testing.stores.suite import StoreSuite


class SessionListsContract(StoreSuite):
    """Lists and counts are those of the stored sessions."""

    @pytest.mark.parametrize(
        ("which", "expected"),
        [
            (SessionFilter(), "dcba"),
            (SessionFilter(id="ses_c"), "c"),
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
    def test_a_filter_selects(self, store: Sessions, which: SessionFilter, expected: str) -> None:
        """Every field that is not empty must match, and the newest session comes first."""
        insert_four(store)

        found = store.select(which, limit=9)

        assert "".join(session.id.removeprefix("ses_") for session in found) == expected

    def test_pages_follow_one_another(self, store: Sessions) -> None:
        """Each page begins after the last session of the page before, even among sessions of the same time."""
        sessions = [make_session(name, requested_at=1000.0 if name < "d" else 2000.0) for name in "abcde"]
        for session in sessions:
            store.insert(session, wall_at=1000.0)

        pages = []
        before = None
        while page := store.select(SessionFilter(), limit=2, before=before):
            pages.append([session.id for session in page])
            before = (page[-1].requested_at, page[-1].id)

        assert pages == [["ses_e", "ses_d"], ["ses_c", "ses_b"], ["ses_a"]]

    @pytest.mark.parametrize(
        "which", [SessionFilter(tenant="default", user="ada"), SessionFilter(tenant="default", agent="coder")]
    )
    def test_pages_of_one_user_or_agent_follow_one_another(self, store: Sessions, which: SessionFilter) -> None:
        """Others, of the same name in another tenant too, are on no page; nor are those that were removed."""
        others: dict[str, dict[str, Any]] = {"b": {"user": "bob", "agent": "writer"}, "d": {"tenant": "other"}}
        for place, name in enumerate("abcdef"):
            # The last ones were requested first.
            store.insert(make_session(name, requested_at=2000.0 - place, **others.get(name, {})), wall_at=1000.0)
        insert_over(store, "g", requested_at=1997.5)
        store.purge(over_before=3000.0, limit=9, wall_at=3000.0)

        pages = []
        before = None
        while page := store.select(which, limit=2, before=before):
            pages.append([session.id for session in page])
            before = (page[-1].requested_at, page[-1].id)

        assert pages == [["ses_a", "ses_c"], ["ses_e", "ses_f"]]

    def test_a_page_may_be_empty(self, store: Sessions) -> None:
        """A limit of zero gives nothing."""
        store.insert(make_session("a"), wall_at=1000.0)

        assert store.select(SessionFilter(), limit=0) == ()

    @pytest.mark.parametrize(
        ("which", "expected"),
        [
            (SessionFilter(id="ses_a"), "eca"),
            (SessionFilter(id="ses_b"), "ec"),
            (SessionFilter(user="bob"), "fe"),
            (SessionFilter(agent="nobody"), ""),
        ],
    )
    def test_live_families_are_what_a_change_reaches(
        self, store: Sessions, which: SessionFilter, expected: str
    ) -> None:
        """Those below a matching session count, once each; those that are over do not, the newest come first."""
        a = make_session("a", requested_at=1000.0)
        b = make_session("b", requested_at=1001.0, parent=a, state=SessionState.ENDED)
        c = make_session("c", requested_at=1002.0, parent=b)
        d = make_session("d", requested_at=1003.0, state=SessionState.DENIED)
        e = make_session("e", requested_at=1004.0, parent=c, user="bob")
        f = make_session("f", requested_at=1005.0, user="bob")
        for session in (a, b, c, d, e, f):
            store.insert(session, wall_at=1000.0)
        mark = store.high_water_at()

        count, newest = store.live_families(which, wall_at=1000.0, limit=2)
        everything = store.live_families(which, wall_at=1000.0, limit=9)[1]

        assert "".join(session.id.removeprefix("ses_") for session in everything) == expected
        assert (count, newest) == (len(expected), everything[:2])
        assert store.live_families(which, wall_at=a.deadline.wall_at, limit=9) == (0, ())
        assert store.high_water_at() == mark

    def test_sessions_are_counted_by_stored_state(self, store: Sessions) -> None:
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

    def test_live_sessions_of_a_caller_are_counted(self, store: Sessions) -> None:
        """The count has the requested and active sessions that have not expired at the given moment."""
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
