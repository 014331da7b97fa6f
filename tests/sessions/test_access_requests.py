"""Access requests: both stores pass the contract, kills use nothing twice, and the file holds no argument."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from pdp.clock import Deadline
from pdp.errors import InvalidRequestError, StoreUnavailableError, WrongStateError
from pdp.sessions import access
from pdp.sessions.access import AccessRequest, AccessState, Unaskable
from pdp.sessions.history import MemorySessionHistory, ReopeningHistory
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.sqlitehistory import SQLiteSessionHistory
from pdp.testing.stores.access import AccessRequestsContract, at, bound, request

USING = Path(__file__).parent / "using_process.py"
CANARY = b'{"to":"canary-3f9c@example.com"}'
END = Deadline(wall_at=100_000.0, boot_at=100_000.0, boot_id="boot")
YES = partial(access.approve, now=at(1000.0), by="ann", session_end=END)
NO = partial(access.deny, now=at(1000.0), by="ann", reason="no")


class TestMemoryAccessRequests(AccessRequestsContract):
    """Those of the history in memory."""

    def make_store(self, folder: Path) -> SessionHistory:  # noqa: ARG002 - it needs no file
        """Return an empty history."""
        return MemorySessionHistory()


class TestSQLiteAccessRequests(AccessRequestsContract):
    """Those of the history in a file."""

    def make_store(self, folder: Path) -> SessionHistory:
        """Return an empty history."""
        return SQLiteSessionHistory(folder / "history.db")


class TestReopenedAccessRequests(AccessRequestsContract):
    """Those of a history that is opened when it is needed."""

    def make_store(self, folder: Path) -> SessionHistory:
        """Return an empty history."""
        return ReopeningHistory(lambda: SQLiteSessionHistory(folder / "history.db"), on_failure=lambda _: None)


@pytest.mark.parametrize("uses", [0, 4, -1, 21])
def test_an_approval_covers_no_more_than_its_forbids_allow(uses: int) -> None:
    """A run of at most as many calls; and one call where they allow no run."""
    runs, alone = request(call=bound(run=3)), request()

    assert [3, 1] == [access.approve(runs, at(1000.0), by="a", session_end=END, uses=n).most_uses for n in (3, 1)]
    for one, number in ((runs, uses), (alone, 2)):
        with pytest.raises(InvalidRequestError, match="covers"):
            access.approve(one, at(1000.0), by="a", session_end=END, uses=number)


def test_an_approval_ends_with_its_session() -> None:
    """At the latest; by either clock."""
    soon = Deadline(wall_at=1200.0, boot_at=1100.0, boot_id="boot")
    approved = access.approve(request(), at(1000.0), by="ann", session_end=soon)

    assert (1200.0, 1100.0) == (approved.deadline.wall_at, approved.deadline.boot_at)
    assert [AccessState.APPROVED, AccessState.EXPIRED] == [
        access.state_of(approved, at(now)) for now in (1099.0, 1100.0)
    ]


@pytest.mark.parametrize("before", [request(), YES(request())])
def test_what_is_over_by_the_boot_clock_alone_is_closed_for_good(before: AccessRequest) -> None:
    """After a reboot only the wall clock can tell, and that was set back: a no counts then, too."""
    now = at(before.deadline.boot_at)._replace(wall_at=before.deadline.wall_at - 100)
    close = access.deny if before.state is AccessState.OPEN else access.revoke
    closed = close(before, now, by="ann", reason="no")
    rebooted = now._replace(boot_at=1.0, boot_id="next")

    assert AccessState.EXPIRED is access.state_of(before, now)
    assert before.state is access.state_of(before, rebooted)
    assert access.state_of(closed, rebooted) in (AccessState.DENIED, AccessState.REVOKED)
    with pytest.raises(WrongStateError, match="expired"):
        close(before, at(before.deadline.wall_at), by="ann", reason="no")


@pytest.mark.parametrize("given", [{"bundle_version": "v2"}, {"live": False}])
def test_what_cannot_be_used_shows_as_expired(given: dict[str, Any]) -> None:
    """Another bundle is active, or the session is over; a final state stays."""
    opened, approved, refused = request(), YES(request()), NO(request())
    states = [access.state_of(one, at(1000.0), **given) for one in (opened, approved, refused)]

    assert [AccessState.EXPIRED, AccessState.EXPIRED, AccessState.DENIED] == states
    assert AccessState.OPEN is access.state_of(opened, at(1000.0), bundle_version="v1")


def test_memory_forgets_the_oldest_requests() -> None:
    """Nobody may be there to remove them."""
    history = MemorySessionHistory(most=2)
    for number in range(3):
        history.access().ask(request(f"{number}", bound(b"%d" % number)), b"{}", at(1000.0 + number))

    assert [True, False, False] == [history.access().get(f"acc_{number}") is None for number in range(3)]
    assert history.access().arguments("acc_0", at(1000.0)) is None


def content_of(folder: Path) -> bytes:
    """Return all that the files of a history hold."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("history.db*")))


def kept(folder: Path) -> tuple[bytes, bytes]:
    """Return the key and the sealed text of the only request."""
    with closing(apsw.Connection(str(folder / "history.db"))) as other:
        rows: list[tuple[Any, ...]] = other.execute("SELECT key, sealed FROM access").fetchall()
    ((key, sealed),) = rows
    return bytes(key), bytes(sealed)


def answered(history: SessionHistory) -> None:
    """Answer the request."""
    history.access().answer("acc_1", YES)


def refused(history: SessionHistory) -> None:
    """Refuse it."""
    history.access().answer("acc_1", NO)


def expired(history: SessionHistory) -> None:
    """Let its time pass."""
    history.access().expire(at(9000.0))


def forgotten(history: SessionHistory) -> None:
    """Let its session be over for a long time."""
    history.access().forget(ended_before=9000.0)


def replaced(history: SessionHistory) -> None:
    """Ask for more about the same call."""
    asks = (*bound().asks, bound().asks[0]._replace(policy="guard/more"))
    history.access().ask(request("2", bound(asks=asks)), b"{}", at(1001.0))


@pytest.mark.parametrize("ends", [answered, refused, expired, forgotten, replaced])
def test_the_file_holds_no_argument(tmp_path: Path, ends: Callable[[SessionHistory], None]) -> None:
    """Never in clear; and when the request is no longer open, neither its sealed text nor its key is left."""
    with closing(SQLiteSessionHistory(tmp_path / "history.db")) as history:
        history.access().ask(request(), CANARY, at(1000.0))
        key, sealed = kept(tmp_path)
        before = content_of(tmp_path)
        assert history.access().arguments("acc_1", at(1000.0)) == CANARY
        ends(history)
        after = content_of(tmp_path)

    assert [True, True, False] == [part in before for part in (key, sealed, b"canary-3f9c")]
    assert [False, False, False] == [part in after for part in (key, sealed, b"canary-3f9c")]


def test_large_arguments_leave_nothing_either(tmp_path: Path) -> None:
    """They take several pages of the file."""
    with closing(SQLiteSessionHistory(tmp_path / "history.db")) as history:
        history.access().ask(request(), CANARY * 500, at(1000.0))
        key, sealed = kept(tmp_path)
        pieces = [key, *(sealed[start : start + 64] for start in range(0, len(sealed) - 64, 1024))]
        answered(history)
        after = content_of(tmp_path)

    assert [] == [piece for piece in pieces if piece in after]


def test_sealed_text_belongs_to_its_request(tmp_path: Path) -> None:
    """What was moved to another one in the file is not shown."""
    with closing(SQLiteSessionHistory(tmp_path / "history.db")) as history:
        for name in ("1", "2"):
            history.access().ask(request(name, bound(name.encode())), CANARY, at(1000.0))
        with closing(apsw.Connection(str(tmp_path / "history.db"))) as other:
            other.execute(
                "UPDATE access SET (key, sealed) = (SELECT key, sealed FROM access WHERE id = 'acc_1') "
                "WHERE id = 'acc_2'"
            )

        assert history.access().arguments("acc_1", at(1000.0)) == CANARY
        with pytest.raises(StoreUnavailableError, match="were changed in the file"):
            history.access().arguments("acc_2", at(1000.0))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"call": {}}'])
def test_a_damaged_request_is_no_answer(tmp_path: Path, content: str) -> None:
    """And allows nothing."""
    with closing(SQLiteSessionHistory(tmp_path / "history.db")) as history:
        history.access().ask(request(), CANARY, at(1000.0))
        answered(history)
        with closing(apsw.Connection(str(tmp_path / "history.db"))) as other:
            other.execute("UPDATE access SET content = ?", (content,))

        for look in (lambda: history.access().get("acc_1"), lambda: history.access().use(bound(), b"", at(1000.0))):
            with pytest.raises(StoreUnavailableError, match="damaged"):
                look()


def test_a_file_of_an_earlier_program_is_brought_up_to_date(tmp_path: Path) -> None:
    """Noes that were said count in the tree of their session, and approvals can be used and told apart."""
    path = tmp_path / "history.db"
    with closing(SQLiteSessionHistory(path)) as history:
        for name in ("1", "2"):
            call = bound(name.encode(), session_id="ses_b")
            history.access().ask(request(name, call, ancestor_ids=("ses_m", "ses_a")), CANARY, at(1000.0))
        history.access().answer("acc_1", NO)
        history.access().answer("acc_2", YES)
    with closing(apsw.Connection(str(path))) as other:
        other.execute(
            "DROP INDEX access_unexpired; ALTER TABLE access DROP COLUMN expiry_noted; DROP TABLE outbox;"
            "ALTER TABLE access_revision DROP COLUMN missed_events;"
            "DROP INDEX access_by_tree; ALTER TABLE access DROP COLUMN tree_id;"
            "ALTER TABLE access_uses DROP COLUMN boot_id; ALTER TABLE access_uses DROP COLUMN decision_id"
        )
    with closing(SQLiteSessionHistory(path)) as history:
        asked = history.access().ask(request("3", bound(b"1")), CANARY, at(1000.0))
        uses = [history.access().use(bound(b"2", session_id="ses_b"), b"r", at(1000.0), word) for word in ("d", "e")]

    assert asked is Unaskable.DENIED
    assert ["d", "d"] == [use and use.decision_id for use in uses]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (
            "count(*) FROM access WHERE state = 'open' AND asked_by = 'a' AND wall_at > 1",
            "access_of_caller (asked_by=? AND state=? AND wall_at>?)",
        ),
        (
            "id FROM access WHERE state IN ('open') AND wall_at > 1 ORDER BY asked_at DESC, id DESC LIMIT 9",
            "access_by_state (state=? AND wall_at>?)",
        ),
        ("id FROM access WHERE +state IN ('used') ORDER BY asked_at DESC, id DESC LIMIT 9", "access_by_age"),
        ("id FROM access WHERE tree_id = 'a' AND state = 'denied'", "access_by_tree (tree_id=? AND state=?)"),
    ],
)
def test_what_has_expired_is_not_read(tmp_path: Path, wanted: str, index: str) -> None:
    """Requests are kept for a month; a question, and those who look at what waits, read only what has not ended."""
    with (
        closing(SQLiteSessionHistory(tmp_path / "history.db")),
        closing(apsw.Connection(str(tmp_path / "history.db"))) as other,
    ):
        plan = [str(row[3]) for row in other.execute(f"EXPLAIN QUERY PLAN SELECT {wanted}")]

    assert plan[0].endswith(index)


def test_answers_need_no_room_and_uses_do(tmp_path: Path) -> None:
    """On a disk that is nearly full a person can still say no, and no call uses what is left for that."""
    path = tmp_path / "history.db"
    with closing(SQLiteSessionHistory(path)) as roomy:
        for name in ("1", "2"):
            roomy.access().ask(request(name, bound(name.encode())), CANARY, at(1000.0))
        roomy.access().answer("acc_1", YES)
    with closing(SQLiteSessionHistory(path, reserve_bytes=1 << 62)) as full:
        assert full.access().answer("acc_2", NO).state is AccessState.DENIED
        for act in (
            lambda: full.access().use(bound(b"1"), b"", at(1000.0)),
            lambda: full.access().ask(request("3", bound(b"3")), CANARY, at(1000.0)),
        ):
            with pytest.raises(StoreUnavailableError, match="nearly full"):
                act()
        revoked = full.access().answer("acc_1", partial(access.revoke, now=at(1000.0), by="ann", reason="r"))
        assert revoked.state is AccessState.REVOKED


def test_a_change_that_raises_writes_nothing(tmp_path: Path) -> None:
    """The revision stays, too."""
    with closing(SQLiteSessionHistory(tmp_path / "history.db")) as history:
        opened = history.access().ask(request(), CANARY, at(1000.0))
        assert isinstance(opened, AccessRequest)
        with pytest.raises(WrongStateError):
            history.access().answer("acc_1", partial(access.revoke, now=at(1000.0), by="ann", reason="r"))

        assert (opened, 1) == (history.access().get("acc_1"), history.access().revision())
        assert CANARY == history.access().arguments("acc_1", at(1000.0))


@pytest.mark.parametrize(("approvals", "processes"), [(60, 3), pytest.param(1000, 12, marks=pytest.mark.long)])
def test_killed_processes_use_each_approval_once(tmp_path: Path, approvals: int, processes: int) -> None:
    """What was acknowledged is in the file, each once; a kill costs at most one approval, and uses none twice."""
    path = tmp_path / "history.db"
    with closing(SQLiteSessionHistory(path)) as history:
        for number in range(approvals):
            asked_by = f"gateway-{number // 50}"
            call = bound(b"%d" % number, session_id=f"ses_{number // 20}")
            history.access().ask(request(f"{number}", call, asked_by=asked_by), b"{}", at(1000.0))
            history.access().answer(f"acc_{number}", YES)
    command = [sys.executable, str(USING), str(path), str(approvals)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    doomed, lines = running[: processes // 2 + 1], []
    for place, one in enumerate(doomed):
        assert one.stdout is not None
        lines += [one.stdout.readline() for _ in range(3 + 2 * place)]
        one.kill()
    for one in running:
        lines += [line for line in one.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
    with closing(SQLiteSessionHistory(path)) as after:
        found = after.access().select(access.AccessFilter(), limit=approvals + 1)

    said = [line.strip() for line in lines if line]
    assert len(set(said)) == len(said)
    assert {(AccessState.USED, 1)} == {(one.state, one.used) for one in found}
    assert approvals - len(doomed) <= len(said) <= approvals == len(found)
