"""The contract of `SessionLists`."""

# ruff: noqa: S101 - a published test suite: it asserts, and compares with literal numbers

from __future__ import annotations

import pytest

from pdp.model import SessionState
from pdp.sessions.store import Sessions
from pdp.sessions.values import SessionFilter
from pdp.testing.stores.samples import insert_four, make_session, revoked
from pdp.testing.stores.suite import StoreSuite


class SessionListsContract(StoreSuite):
    """Lists and counts are those of the stored sessions."""

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

    def test_a_page_may_be_empty(self, store: Sessions) -> None:
        """A limit of zero gives nothing."""
        store.insert(make_session("a"), wall_at=1000.0)

        assert store.select(SessionFilter(), limit=0) == ()

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
