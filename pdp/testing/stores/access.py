"""The contract of `AccessRequests`, which a `SessionHistory` holds."""

# ruff: noqa: S101, PLR2004 - a published test suite: it asserts, and compares with literal numbers

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Barrier
from typing import Any

import pytest

from pdp.clock import Deadline, Instant
from pdp.errors import (
    ConflictError,
    NotFoundError,
    RequestIdConflictError,
    StoreUnavailableError,
    WrongStateError,
)
from pdp.model import Ask
from pdp.sessions.access import (
    APPROVAL_SECONDS,
    MOST_NOES,
    MOST_OPEN_OF_CALLER,
    MOST_OPEN_OF_SESSION,
    REQUEST_SECONDS,
    AccessFilter,
    AccessRequest,
    AccessState,
    BoundCall,
    Unaskable,
    approve,
    deny,
    revoke,
)
from pdp.sessions.historycontract import RETRY_SECONDS, SessionHistory
from pdp.sessions.outbox import Untold
from pdp.sessions.writes import WRITE_SECONDS, Write
from pdp.testing.stores.suite import StoreSuite

_END = Deadline(wall_at=100_000.0, boot_at=100_000.0, boot_id="boot")
_FORBIDS = (Ask("ses_a", "guard/a", "sha256:a", "May it?", 5), Ask("ses_a", "guard/b", "sha256:b", "And this?", 3))


def at(wall_at: float) -> Instant:
    """Return a time at which both clocks read the same."""
    return Instant(wall_at=wall_at, boot_at=wall_at, boot_id="boot")


def bound(digest: bytes = b"call", **others: Any) -> BoundCall:  # noqa: ANN401 - fields of a call
    """Return a call of one session that asks about one forbid."""
    made: dict[str, Any] = {
        "session_id": "ses_a",
        "server": "mail",
        "tool": "send",
        "definition_digest": "sha256:d",
        "bundle_version": "v1",
        "digest": digest,
        "names": b"names",
        "targets": frozenset(),
        "asks": _FORBIDS[:1],
        **others,
    }
    return BoundCall(**made)


def request(name: str = "1", call: BoundCall | None = None, *, now: float = 1000.0, **others: Any) -> AccessRequest:  # noqa: ANN401 - fields of a request
    """Return a request about a call that is not in the store yet."""
    made: dict[str, Any] = {
        "id": f"acc_{name}",
        "call": call or bound(),
        "tenant": "default",
        "user": "alice",
        "agent": "coder",
        "asked_by": "gateway",
        "decision_id": f"dec_{name}",
        "asked_at": now,
        "deadline": Deadline.after(at(now), REQUEST_SECONDS),
        "ends_at": 5000.0,
        **others,
    }
    return AccessRequest(**made)


def _yes(uses: int = 1, now: float = 1000.0) -> Callable[[AccessRequest], AccessRequest]:
    return partial(approve, now=at(now), by="ann", session_end=_END, uses=uses)


def _no(now: float = 1000.0) -> Callable[[AccessRequest], AccessRequest]:
    return partial(deny, now=at(now), by="ann", reason="not today")


def _taken_back(now: float = 1000.0) -> Callable[[AccessRequest], AccessRequest]:
    return partial(revoke, now=at(now), by="ann", reason="a slip")


class AccessRequestsContract(StoreSuite):
    """A person is asked once, an approval covers what it says and no more, and bounds hold."""

    def test_a_request_is_opened(self, store: SessionHistory) -> None:
        """It is as it was given, with a revision, and its arguments can be read."""
        wanted = request(ancestor_ids=("ses_p",), provenance=("known",), links=("unseen",))
        opened = store.access().ask(wanted, b'{"to":"bob"}', at(1000.0))

        assert opened == replace(wanted, revision=1)
        assert store.access().get("acc_1") == opened
        assert store.access().arguments("acc_1", at(1899.0)) == b'{"to":"bob"}'
        assert store.access().revision() == 1
        assert (store.access().get("acc_2"), store.access().arguments("acc_2", at(1000.0))) == (None, None)

    def test_the_same_open_call_is_one_request(self, store: SessionHistory) -> None:
        """Nothing is written for the second one, also when less must be lifted now."""
        both = request(call=bound(asks=_FORBIDS))
        opened = store.access().ask(both, b"{}", at(1000.0))

        assert store.access().ask(request("2"), b"{}", at(1001.0)) == opened
        assert (store.access().get("acc_2"), store.access().revision()) == (None, 1)

    def test_a_call_that_lifts_more_is_asked_about_anew(self, store: SessionHistory) -> None:
        """The first request has expired, and its arguments are gone."""
        store.access().ask(request(), b"{}", at(1000.0))
        anew = store.access().ask(request("2", bound(asks=_FORBIDS)), b"{}", at(1001.0))

        assert isinstance(anew, AccessRequest)
        assert anew.id == "acc_2"
        assert store.access().arguments("acc_1", at(1000.0)) is None
        with pytest.raises(WrongStateError):
            store.access().answer("acc_1", _yes(now=1001.0))

    @pytest.mark.parametrize(
        "other",
        [{"digest": b"other"}, {"bundle_version": "v2"}, {"session_id": "ses_b"}, {"definition_digest": "sha256:e"}],
        ids=str,
    )
    def test_another_call_is_another_request(self, store: SessionHistory, other: dict[str, Any]) -> None:
        """Its arguments, bundle, session or definition differ."""
        store.access().ask(request(), b"{}", at(1000.0))
        second = store.access().ask(request("2", bound(**other)), b"{}", at(1000.0))

        assert isinstance(second, AccessRequest)
        assert second.id == "acc_2"

    def test_an_expired_request_can_be_asked_anew(self, store: SessionHistory) -> None:
        """It can no longer be answered."""
        store.access().ask(request(), b"{}", at(1000.0))
        late = 1000.0 + REQUEST_SECONDS
        anew = store.access().ask(request("2", now=late), b"{}", at(late))

        assert isinstance(anew, AccessRequest)
        assert anew.id == "acc_2"
        assert store.access().arguments("acc_1", at(late)) is None
        for answer in (_yes(now=late), _no(late)):
            with pytest.raises(WrongStateError, match="expired, not open"):
                store.access().answer("acc_1", answer)

    def test_a_session_has_few_open_requests(self, store: SessionHistory) -> None:
        """One that is answered or has expired makes room; another session has room of its own."""
        for number in range(MOST_OPEN_OF_SESSION):
            store.access().ask(request(f"{number}", bound(b"%d" % number)), b"{}", at(1000.0))
        full = store.access().ask(request("x", bound(b"x")), b"{}", at(1000.0))
        same = store.access().ask(request("y", bound(b"1")), b"{}", at(1000.0))
        elsewhere = store.access().ask(request("z", bound(b"x", session_id="ses_b")), b"{}", at(1000.0))
        store.access().answer("acc_0", _yes())
        answered = store.access().ask(request("x", bound(b"x")), b"{}", at(1000.0))
        late = 1000.0 + REQUEST_SECONDS
        later = store.access().ask(request("l", bound(b"l"), now=late), b"{}", at(late))

        assert full is Unaskable.SESSION_ASKS_TOO_MUCH
        assert [one.id for one in (same, elsewhere, answered, later) if isinstance(one, AccessRequest)] == [
            *("acc_1", "acc_z", "acc_x", "acc_l")
        ]

    def test_a_caller_has_a_bounded_number_of_open_requests(self, store: SessionHistory) -> None:
        """In all of its sessions; a caller of another name or tenant has room of its own."""
        for number in range(MOST_OPEN_OF_CALLER):
            store.access().ask(request(f"{number}", bound(session_id=f"ses_{number}")), b"{}", at(1000.0))
        wanted = request("x", bound(session_id="ses_x"))
        others = [replace(wanted, id="acc_o", asked_by="other"), replace(wanted, id="acc_t", tenant="other")]

        assert store.access().ask(wanted, b"{}", at(1000.0)) is Unaskable.CALLER_ASKS_TOO_MUCH
        for number, other in enumerate(others):
            elsewhere = replace(other, call=bound(session_id=f"ses_other_{number}"))
            assert isinstance(store.access().ask(elsewhere, b"{}", at(1000.0)), AccessRequest)
        late = 1000.0 + REQUEST_SECONDS
        assert isinstance(store.access().ask(replace(wanted, asked_at=late), b"{}", at(late)), AccessRequest)

    def test_a_no_counts_in_its_session(self, store: SessionHistory) -> None:
        """The call is not asked about again, under no bundle and whatever must be lifted; another session may ask."""
        store.access().ask(request(), b"{}", at(1000.0))
        store.access().answer("acc_1", _no())
        again = [bound(), bound(asks=_FORBIDS), bound(bundle_version="v2")]

        assert [store.access().ask(request("2", call), b"{}", at(4000.0)) for call in again] == [Unaskable.DENIED] * 3
        assert isinstance(store.access().ask(request("2", bound(b"other")), b"{}", at(4000.0)), AccessRequest)
        elsewhere = request("3", bound(session_id="ses_b"))
        assert isinstance(store.access().ask(elsewhere, b"{}", at(4000.0)), AccessRequest)

    def test_after_some_noes_a_session_asks_nothing(self, store: SessionHistory) -> None:
        """What is open can be answered, and another session may ask."""
        for number in range(MOST_NOES + 1):
            store.access().ask(request(f"{number}", bound(b"%d" % number)), b"{}", at(1000.0))
        for number in range(MOST_NOES):
            store.access().answer(f"acc_{number}", _no())

        assert store.access().ask(request("x", bound(b"x")), b"{}", at(9000.0)) is Unaskable.TOO_MANY_NOES
        assert store.access().answer(f"acc_{MOST_NOES}", _yes()).state is AccessState.APPROVED

    def test_a_tree_of_sessions_asks_together(self, store: SessionHistory) -> None:
        """Open requests and noes count in all sessions below the same root: a delegated one asks nothing anew."""
        below, beside = ("ses_a",), ("ses_m", "ses_a")
        places = (("ses_b", below), ("ses_c", beside), ("ses_a", ()))
        for number in range(MOST_OPEN_OF_SESSION):
            name, above = places[number % 3]
            call = bound(b"%d" % number, session_id=name)
            store.access().ask(request(f"{number}", call, ancestor_ids=above), b"{}", at(1000.0))

        def ask(digest: bytes) -> list[AccessRequest | Unaskable]:
            wanted = [
                request("x", bound(digest, session_id=name), ancestor_ids=above)
                for name, above in (*places, ("ses_d", below))
            ]
            return [store.access().ask(one, b"{}", at(1000.0)) for one in wanted]

        assert ask(b"x") == [Unaskable.SESSION_ASKS_TOO_MUCH] * 4
        store.access().answer("acc_1", _no())
        assert ask(b"1") == [Unaskable.DENIED] * 4
        for number in (2, 3):
            store.access().answer(f"acc_{number}", _no())
        assert ask(b"x") == [Unaskable.TOO_MANY_NOES] * 4
        elsewhere = request("y", bound(session_id="ses_e"), ancestor_ids=("ses_f",))
        assert isinstance(store.access().ask(elsewhere, b"{}", at(1000.0)), AccessRequest)

    def test_the_same_call_of_two_sessions_of_a_tree_is_two_requests(self, store: SessionHistory) -> None:
        """Each session has its own approval; neither request ends the other."""
        store.access().ask(request(), b"{}", at(1000.0))
        child = bound(session_id="ses_b")
        second = store.access().ask(request("2", child, ancestor_ids=("ses_a",)), b"{}", at(1000.0))
        store.access().answer("acc_2", _yes())

        assert isinstance(second, AccessRequest)
        assert store.access().use(bound(), b"", at(1000.0)) is None
        assert store.access().answer("acc_1", _yes()).state is AccessState.APPROVED
        used = store.access().use(child, b"", at(1000.0))
        assert used is not None
        assert used.request.id == "acc_2"

    @pytest.mark.parametrize("answer", [_yes(), _no()])
    def test_an_answer_is_remembered(
        self, store: SessionHistory, answer: Callable[[AccessRequest], AccessRequest]
    ) -> None:
        """Under its key, for a while; one that could not be given is not, and a key is used once."""
        key, other = (Write(key=name, digest=b"asked") for name in (b"key", b"other"))
        for name in ("1", "2"):
            store.access().ask(request(name, bound(name.encode())), b"{}", at(1000.0))
        store.access().answer("acc_1", answer, write=key)
        with pytest.raises(WrongStateError):
            store.access().answer("acc_1", answer, write=other)
        with pytest.raises(ConflictError):
            store.access().answer("acc_2", answer, write=key)
        waiting = store.access().get("acc_2")

        assert waiting is not None
        assert waiting.state is AccessState.OPEN
        assert store.access().written(key, wall_at=1000.0) == ("acc_1",)
        assert store.access().written(other, wall_at=1000.0) is None
        assert store.access().written(key, wall_at=1000.0 + WRITE_SECONDS) is None
        with pytest.raises(RequestIdConflictError):
            store.access().written(replace(key, digest=b"other"), wall_at=1000.0)

    def test_several_are_answered_at_once(self, store: SessionHistory) -> None:
        """Those that can be, and all of them or none; what was answered is remembered together."""
        write = Write(key=b"key", digest=b"asked")
        for name in ("1", "2", "3", "4"):
            store.access().ask(request(name, bound(name.encode())), b"{}", at(1000.0))
        for name in ("acc_1", "acc_2", "acc_4"):
            store.access().answer(name, _yes())
        take_back = partial(revoke, now=at(1001.0), by="ann", reason="enough")
        names = ("acc_1", "acc_2", "acc_3", "acc_unknown")
        revoked = store.access().answer_all(names, take_back, write=write)
        with pytest.raises(ConflictError):
            store.access().answer_all(("acc_4",), take_back, write=write)
        states = [one.state for name in ("1", "2", "3", "4") if (one := store.access().get(f"acc_{name}")) is not None]

        assert [one.id for one in revoked] == ["acc_1", "acc_2"]
        assert states == [AccessState.REVOKED, AccessState.REVOKED, AccessState.OPEN, AccessState.APPROVED]
        assert store.access().written(write, wall_at=1001.0) == ("acc_1", "acc_2")
        assert store.access().answer_all(names, take_back, write=Write(key=b"none", digest=b"")) == ()

    @pytest.mark.parametrize("answer", [_yes(), _no()])
    def test_an_answer_takes_the_arguments_away(
        self, store: SessionHistory, answer: Callable[[AccessRequest], AccessRequest]
    ) -> None:
        """Nobody needs to see them any more. Who answered and when can be read."""
        store.access().ask(request(), b"{}", at(1000.0))
        answered = store.access().answer("acc_1", answer)

        assert store.access().arguments("acc_1", at(1000.0)) is None
        assert store.access().get("acc_1") == answered
        assert (answered.answered_by, answered.answered_at, answered.revision) == ("ann", 1000.0, 2)

    def test_of_many_answers_one_counts(self, store: SessionHistory) -> None:
        """The others are told what the state is; what is not there cannot be answered."""
        store.access().ask(request(), b"{}", at(1000.0))
        barrier = Barrier(4)

        def answer(number: int) -> bool:
            barrier.wait()
            try:
                store.access().answer("acc_1", _no() if number % 2 else _yes())
            except WrongStateError:
                return False
            return True

        with ThreadPoolExecutor(max_workers=4) as threads:
            assert sum(threads.map(answer, range(4))) == 1
        with pytest.raises(NotFoundError):
            store.access().answer("acc_2", _no())

    def test_an_approval_is_used_once(self, store: SessionHistory) -> None:
        """By the call that it was given for, and only after it was given."""
        store.access().ask(request(), b"{}", at(1000.0))
        early = store.access().use(bound(), b"", at(1000.0))
        store.access().answer("acc_1", _yes())
        foreseen = store.access().usable(bound(), b"", at(1001.0))
        use = store.access().use(bound(), b"", at(1001.0))

        assert early is None
        assert foreseen
        assert use is not None
        assert (use.request.state, use.request.used, use.used_at) == (AccessState.USED, 1, 1001.0)
        assert store.access().get("acc_1") == use.request
        assert store.access().use(bound(), b"", at(1001.0)) is None
        assert not store.access().usable(bound(), b"", at(1001.0))

    @pytest.mark.parametrize(
        "other",
        [
            {"digest": b"other"},
            {"session_id": "ses_b"},
            {"server": "post"},
            {"tool": "draft"},
            {"definition_digest": "sha256:e"},
            {"bundle_version": "v2"},
            {"asks": _FORBIDS},
            {"asks": (_FORBIDS[0]._replace(text_digest="sha256:z"),)},
            {"asks": (_FORBIDS[0]._replace(session_id="ses_p"),)},
            {"digest": b"other", "targets": frozenset({b"t"}), "run": 5},
        ],
        ids=str,
    )
    def test_an_approval_covers_nothing_else(self, store: SessionHistory, other: dict[str, Any]) -> None:
        """Any difference in what it binds leaves it unused."""
        store.access().ask(request(call=bound(targets=frozenset({b"t"}), run=5)), b"{}", at(1000.0))
        store.access().answer("acc_1", _yes())

        assert store.access().use(bound(**other), b"", at(1001.0)) is None
        assert store.access().use(bound(), b"", at(1001.0)) is not None

    def test_an_approval_may_lift_more_than_it_must(self, store: SessionHistory) -> None:
        """A forbid that no longer matches does not matter."""
        store.access().ask(request(call=bound(asks=_FORBIDS)), b"{}", at(1000.0))
        store.access().answer("acc_1", _yes())

        assert store.access().use(bound(), b"", at(1001.0)) is not None

    @pytest.mark.parametrize("answer", [_no(), None])
    def test_without_a_yes_nothing_is_used(
        self, store: SessionHistory, answer: Callable[[AccessRequest], AccessRequest] | None
    ) -> None:
        """It was refused, or nobody has answered."""
        store.access().ask(request(), b"{}", at(1000.0))
        if answer is not None:
            store.access().answer("acc_1", answer)

        assert store.access().use(bound(), b"", at(1001.0)) is None

    def test_an_approval_ends(self, store: SessionHistory) -> None:
        """At its time, by either clock, or when it is taken back; then it cannot be taken back again."""
        for name in ("1", "2"):
            store.access().ask(request(name, bound(name.encode())), b"{}", at(1000.0))
            store.access().answer(f"acc_{name}", _yes())
        end = 1000.0 + APPROVAL_SECONDS
        set_back = Instant(wall_at=1000.0, boot_at=end, boot_id="boot")
        revoked = store.access().answer("acc_2", _taken_back())

        assert store.access().use(bound(b"1"), b"", at(end)) is None
        assert store.access().use(bound(b"1"), b"", set_back) is None
        assert store.access().use(bound(b"2"), b"", at(1001.0)) is None
        assert revoked.state is AccessState.REVOKED
        for name, now in (("1", end), ("2", 1001.0)):
            with pytest.raises(WrongStateError):
                store.access().answer(f"acc_{name}", _taken_back(now))

    def test_a_used_approval_cannot_be_taken_back(self, store: SessionHistory) -> None:
        """The call may have been made."""
        store.access().ask(request(), b"{}", at(1000.0))
        store.access().answer("acc_1", _yes())
        store.access().use(bound(), b"", at(1000.0))

        with pytest.raises(WrongStateError, match="used, not approved"):
            store.access().answer("acc_1", _taken_back())

    def test_a_retry_uses_nothing(self, store: SessionHistory) -> None:
        """It gets the same use until that is too old, of the first decision; another call, or other forbids, do not."""
        store.access().ask(request(), b"{}", at(1000.0))
        store.access().answer("acc_1", _yes())
        first = store.access().use(bound(), b"retry", at(1000.0), "dec_1")
        late = 999.0 + RETRY_SECONDS

        assert first is not None
        assert first.decision_id == "dec_1"
        assert store.access().usable(bound(), b"retry", at(late))
        assert store.access().use(bound(), b"retry", at(late), "dec_2") == first
        assert store.access().use(bound(), b"other", at(1000.0)) is None
        assert store.access().use(bound(), b"", at(1000.0)) is None
        assert store.access().use(bound(bundle_version="v2"), b"retry", at(late)) is None
        assert store.access().use(bound(asks=_FORBIDS), b"retry", at(late)) is None
        assert store.access().use(bound(), b"retry", at(1000.0 + RETRY_SECONDS)) is None
        set_back = Instant(wall_at=1000.0, boot_at=1000.0 + RETRY_SECONDS, boot_id="boot")
        assert store.access().use(bound(), b"retry", set_back) is None

    def test_a_use_can_be_given_back(self, store: SessionHistory) -> None:
        """Then it was never made: the call, or a retry of it, uses the approval."""
        store.access().ask(request(), b"{}", at(1000.0))
        store.access().answer("acc_1", _yes())
        for retry in (b"", b"retry"):
            use = store.access().use(bound(), retry, at(1000.0))
            assert use is not None
            store.access().give_back(use)

        stored = store.access().get("acc_1")
        assert stored is not None
        assert (stored.state, stored.used) == (AccessState.APPROVED, 0)
        assert store.access().use(bound(), b"", at(1000.0)) is not None

    def test_a_use_on_which_another_try_counts_stays(self, store: SessionHistory) -> None:
        """The other one was allowed for it; when that one gives it back too, it is gone."""
        store.access().ask(request(), b"{}", at(1000.0))
        store.access().answer("acc_1", _yes())
        uses = [store.access().use(bound(), b"retry", at(1000.0)) for _ in range(2)]
        states = []
        for use in uses:
            assert use is not None
            store.access().give_back(use)
            stored = store.access().get("acc_1")
            states.append(stored.state if stored else None)

        assert states == [AccessState.USED, AccessState.APPROVED]

    def test_what_was_given_back_can_be_taken_back(self, store: SessionHistory) -> None:
        """And an approval that was taken back is not there again when a use of it is given back."""
        store.access().ask(request(call=bound(targets=frozenset({b"t"}), run=2)), b"{}", at(1000.0))
        store.access().answer("acc_1", _yes(2))
        use = store.access().use(bound(), b"", at(1000.0))
        store.access().answer("acc_1", _taken_back())
        assert use is not None
        store.access().give_back(use)

        stored = store.access().get("acc_1")
        assert stored is not None
        assert (stored.state, stored.used) == (AccessState.REVOKED, 0)
        assert store.access().use(bound(), b"", at(1000.0)) is None

    def test_a_run_covers_calls_that_are_alike(self, store: SessionHistory) -> None:
        """So many, with the same names of arguments, and to targets that were shown."""
        shown = bound(targets=frozenset({b"t", b"u"}), run=3)
        store.access().ask(request(call=shown), b"{}", at(1000.0))
        store.access().answer("acc_1", _yes(3))
        alike = replace(shown, digest=b"other", targets=frozenset({b"u"}))
        unlike = [
            replace(alike, names=b"more"),
            replace(alike, targets=frozenset({b"u", b"v"})),
            replace(alike, targets=frozenset()),
            replace(alike, run=0),
            replace(alike, tool="draft"),
            replace(alike, asks=_FORBIDS),
        ]

        assert [store.access().use(one, b"", at(1000.0)) for one in unlike] == [None] * 6
        assert [bool(store.access().use(one, b"", at(1000.0))) for one in (alike, shown, alike, alike, shown)] == [
            *(True, True, True, False, False)
        ]

    def test_many_at_once_use_each_approval_once(self, store: SessionHistory) -> None:
        """Threads that try all of them get each exactly once, and a run exactly so often as it allows."""
        shown = [bound(b"%d" % number, targets=frozenset({b"t"}), run=5) for number in range(6)]
        for number, call in enumerate(shown):
            store.access().ask(request(f"{number}", call), b"{}", at(1000.0))
            store.access().answer(f"acc_{number}", _yes(5 if number == 0 else 1))
        barrier = Barrier(4)

        def use(_: int) -> list[str]:
            barrier.wait()
            tried = [store.access().use(call, b"", at(1000.0)) for _ in range(3) for call in shown]
            return [one.request.id for one in tried if one is not None]

        with ThreadPoolExecutor(max_workers=4) as threads:
            made = [name for names in threads.map(use, range(4)) for name in names]
        assert {name: made.count(name) for name in set(made)} == {
            f"acc_{number}": 5 if number == 0 else 1 for number in range(6)
        }

    def test_requests_are_listed_newest_first(self, store: SessionHistory) -> None:
        """In pages, and by tenant, session, user, caller, state and end."""
        made = [
            request("1"),
            request("2", bound(session_id="ses_b"), now=1001.0, tenant="other", user="bob", asked_by="door"),
            request("3", bound(b"3"), now=1001.0),
            request("4", bound(b"4"), now=1000.5),
        ]
        for one in made:
            store.access().ask(one, b"{}", at(1001.0))
        store.access().answer("acc_4", _no())

        def listed(which: AccessFilter, limit: int = 9, before: tuple[float, str] | None = None) -> list[str]:
            return [one.id[4:] for one in store.access().select(which, limit=limit, before=before)]

        assert listed(AccessFilter()) == ["3", "2", "4", "1"]
        assert listed(AccessFilter(), 2) == ["3", "2"]
        assert listed(AccessFilter(), 2, (1001.0, "acc_2")) == ["4", "1"]
        assert [listed(AccessFilter(tenant=name)) for name in ("default", "other")] == [["3", "4", "1"], ["2"]]
        assert listed(AccessFilter(session_id="ses_b")) == listed(AccessFilter(user="bob")) == ["2"]
        assert listed(AccessFilter(asked_by="gateway", tenant="other")) == []
        assert listed(AccessFilter(states=frozenset({AccessState.DENIED}))) == ["4"]
        assert listed(AccessFilter(states=frozenset({AccessState.DENIED, AccessState.OPEN}), user="alice")) == [
            *("3", "4", "1")
        ]
        assert listed(AccessFilter(ends_after=1900.2)) == ["3", "2", "4"]

    def test_changes_are_told_by_revision(self, store: SessionHistory) -> None:
        """Each request once, as it is now; a use is a change too."""
        for name in ("1", "2"):
            store.access().ask(request(name, bound(name.encode())), b"{}", at(1000.0))
        seen = store.access().revision()
        store.access().answer("acc_2", _yes())
        store.access().answer("acc_1", _no())
        store.access().use(bound(b"2"), b"", at(1000.0))
        told = store.access().changed(AccessFilter(), after=seen, limit=9)

        assert [(one.id, one.state) for one in told] == [("acc_1", AccessState.DENIED), ("acc_2", AccessState.USED)]
        assert store.access().revision() == told[-1].revision > told[0].revision > seen
        assert [one.id for one in store.access().changed(AccessFilter(), after=0, limit=1)] == ["acc_1"]
        assert store.access().changed(AccessFilter(tenant="other"), after=0, limit=9) == ()
        assert store.access().changed(AccessFilter(), after=told[-1].revision, limit=9) == ()

    def test_expired_requests_lose_their_arguments(self, store: SessionHistory) -> None:
        """Open ones keep them, and the request itself stays."""
        store.access().ask(request("1"), b"{}", at(1000.0))
        store.access().ask(request("2", bound(b"2"), now=1100.0), b"{}", at(1100.0))
        late = at(1000.0 + REQUEST_SECONDS)

        assert (store.access().expire(late), store.access().expire(late)) == (1, 0)
        # The clock of a read that lags behind brings nothing back.
        assert store.access().arguments("acc_1", at(1000.0)) is None
        assert store.access().arguments("acc_2", late) == b"{}"
        assert store.access().get("acc_1") is not None

    def test_old_uses_are_no_longer_told_from_others(self, store: SessionHistory) -> None:
        """A retry after that needs an approval of its own."""
        store.access().ask(request(), b"{}", at(1000.0))
        store.access().answer("acc_1", _yes())
        store.access().use(bound(), b"retry", at(1000.0))
        store.access().expire(at(1000.0 + RETRY_SECONDS))

        assert store.access().use(bound(), b"retry", at(1000.0)) is None

    def test_requests_of_sessions_that_are_over_are_forgotten(self, store: SessionHistory) -> None:
        """Those that ended before a time; the revision does not fall."""
        store.access().ask(request("1"), b"{}", at(1000.0))
        store.access().ask(request("2", bound(session_id="ses_b"), ends_at=4999.0), b"{}", at(1000.0))

        assert (store.access().forget(ended_before=5000.0), store.access().forget(ended_before=5000.0)) == (1, 0)
        assert (store.access().get("acc_2"), store.access().arguments("acc_2", at(1000.0))) == (None, None)
        assert store.access().arguments("acc_1", at(1000.0)) == b"{}"
        assert store.access().revision() == 2

    @pytest.mark.parametrize(
        "call",
        [
            pytest.param(lambda access: access.ask(request(), b"{}", at(1.0)), id="ask"),
            pytest.param(lambda access: access.usable(bound(), b"", at(1.0)), id="usable"),
            pytest.param(lambda access: access.use(bound(), b"", at(1.0)), id="use"),
            pytest.param(lambda access: access.answer("acc_1", _no()), id="answer"),
            pytest.param(lambda access: access.get("acc_1"), id="get"),
            pytest.param(lambda access: access.arguments("acc_1", at(1.0)), id="arguments"),
            pytest.param(lambda access: access.select(AccessFilter(), limit=1), id="select"),
            pytest.param(lambda access: access.changed(AccessFilter(), after=0, limit=1), id="changed"),
            pytest.param(lambda access: access.revision(), id="revision"),
            pytest.param(lambda access: access.outwait(), id="outwait"),
            pytest.param(lambda access: access.expire(at(1.0)), id="expire"),
            pytest.param(lambda access: access.forget(ended_before=1.0), id="forget"),
            pytest.param(lambda access: access.untold(limit=1), id="untold"),
            pytest.param(lambda access: access.forget_told(Untold()), id="forget_told"),
            pytest.param(lambda access: access.note_expired(wall_at=1.0, limit=1), id="note_expired"),
        ],
    )
    def test_a_closed_history_answers_nothing_about_access(
        self, store: SessionHistory, call: Callable[[Any], object]
    ) -> None:
        """After closing, every method says that it is unavailable."""
        access = store.access()
        access.ask(request(), b"{}", at(1000.0))
        store.close()

        with pytest.raises(StoreUnavailableError):
            call(access)
