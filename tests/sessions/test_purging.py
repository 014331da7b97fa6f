"""Sessions that have been over for long leave the store in small steps, and nobody can tell that they were there."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pdp.app.embedded import open_embedded
from pdp.clock import Deadline
from pdp.errors import AlreadyReportedError
from pdp.model import AT_EACH_CALL, Call, Caller, CallRequest, Decision, Role
from pdp.registry.words import SessionRequest
from pdp.sessions.history import MemorySessionHistory
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.purging import Purge
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.store import SessionStore
from pdp.sessions.values import Charge, Debit, HeldValues, Report, SessionFilter
from pdp.testing.bundles import bundle_files, compile_here, tool
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import write_folder
from pdp.testing.stores.samples import insert_over, make_moment, make_session
from pdp.testing.waiting import wait_until
from tests.machinery.servers.server_process import ServerProcess

DAY = 86400.0
PEP = Caller(id="gateway", kind="test", roles=frozenset({Role.PEP}))
APPROVER = Caller(id="approver", kind="test", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)
FILES = bundle_files(
    policies={"s": '@id("s/all") permit (principal, action, resource is Server);'},
    tools={"s": [tool("read")]},
    overlays={"s": "risk: read_only"},
    directory='users: {ada: {}}\nagents: {coder: {ceiling: ["s/*"]}}',
)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SessionStore:
    """Give an empty store of each kind."""
    return MemorySessionStore() if request.param == "memory" else SQLiteSessionStore(tmp_path / "sessions.db")


def purge_of(store: SessionStore, clock: FakeClock, keep_ended_seconds: float) -> Purge:
    """Return what removes sessions."""
    history = MemorySessionHistory()
    return Purge(store, history, clock, keep_ended_seconds=keep_ended_seconds, keep_reports_seconds=900.0)


def test_reports_go_when_they_are_old() -> None:
    """Sessions or not; a report can then be made anew, but its token is as old as it."""
    clock, history = FakeClock(wall_at=10_000.0), MemorySessionHistory()
    for age, name in ((901.0, "old"), (899.0, "fresh")):
        history.keep_report(Report(decision_id=name, digest=b"1", reported_at=10_000.0 - age))
    Purge(MemorySessionStore(), history, clock, keep_ended_seconds=60.0, keep_reports_seconds=900.0).run(lambda _: True)

    history.keep_report(Report(decision_id="old", digest=b"2", reported_at=10_000.0))
    with pytest.raises(AlreadyReportedError):
        history.keep_report(Report(decision_id="fresh", digest=b"2", reported_at=10_000.0))


def test_budgets_go_with_their_sessions() -> None:
    """When a session has been over for long enough at the latest; and what tells retries, when it is too old."""
    clock, history = FakeClock(wall_at=10_000.0), MemorySessionHistory()
    ends = {"old": 9_939.0, "fresh": 9_941.0, "live": 20_000.0}
    debits = {
        name: Debit(session_id=name, budget="max_calls", amount=1, most=9, window=0, ends_at=ends_at)
        for name, ends_at in ends.items()
    }
    for name, debit in debits.items():
        history.charge(Charge(debits=(debit,), retry_digest=name.encode(), now=make_moment(9_939.0)))
    Purge(MemorySessionStore(), history, clock, keep_ended_seconds=60.0, keep_reports_seconds=900.0).run(lambda _: True)

    assert {"old": False, "fresh": True, "live": True} == {name: bool(history.used(name)) for name in ends}
    assert (2,) == history.charge(Charge(debits=(debits["live"],), retry_digest=b"live", now=make_moment(9_950.0))).used


def test_values_go_as_soon_as_the_root_is_over(store: SessionStore) -> None:
    """Also when it ended early, and when it is no longer stored; a session below it is no root."""
    clock, history = FakeClock(wall_at=10_000.0), MemorySessionHistory()
    late = replace(make_session("late"), deadline=Deadline(wall_at=9_999.0, boot_at=1e9, boot_id="boot-1"))
    live = replace(make_session("live"), deadline=Deadline(wall_at=20_000.0, boot_at=1e9, boot_id="boot-1"))
    for session in (late, live):
        store.insert(session, wall_at=9_000.0)
    ended = insert_over(store, "ended", ended_at=9_999.0)
    for name in (ended.id, late.id, live.id, "ses_gone"):
        history.values().keep(HeldValues(tree_id=name, clean=(b"v" * 16,)))
    Purge(store, history, clock, keep_ended_seconds=DAY, keep_reports_seconds=900.0).run(lambda _: True)

    assert (live.id,) == history.values().trees(after="", limit=10)


def test_all_goes_that_has_been_over_for_long_enough(store: SessionStore) -> None:
    """Step follows step until nothing is left, with a pause after each; families go from the youngest up."""
    clock = FakeClock(wall_at=2000.0 + DAY)
    parent = insert_over(store, "root")
    for number in range(450):
        insert_over(store, f"child{number}", parent)
    insert_over(store, "late", ended_at=2001.0)
    pauses: list[float] = []

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return False

    assert purge_of(store, clock, DAY - 1).run(pause) == 451
    assert [session.id for session in store.select(SessionFilter(), limit=9)] == ["ses_late"]
    assert len(pauses) == 4
    store.close()


def test_who_stops_need_not_wait_for_the_rest(store: SessionStore) -> None:
    """After a step it can be told to leave what is left."""
    for number in range(300):
        insert_over(store, f"s{number}")

    assert purge_of(store, FakeClock(wall_at=9000.0), 60.0).run(lambda _: True) == 200
    store.close()


def test_a_removed_handle_is_answered_as_one_that_never_was(store: SessionStore, tmp_path: Path) -> None:
    """Access has ended long before, without anybody cleaning up; what is said changes, what is allowed does not."""
    clock = FakeClock()
    write_folder(tmp_path / "policies", FILES)
    pdp = open_embedded(tmp_path / "policies", sessions=store, clock=clock, compile_files=compile_here)
    wanted = SessionRequest(user="ada", agent="coder", purpose="look", tool_patterns=("s/*",))
    view, handle = pdp.registrar.request(wanted, PEP)
    pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)

    def ask(session_handle: str) -> Decision:
        return pdp.authorizer.authorize(
            CallRequest(call=Call(session_handle=session_handle, server="s", tool="read")), PEP
        )

    allowed = ask(handle)
    clock.advance(view.session.duration + 1)
    expired = ask(handle)
    clock.advance(31 * DAY)
    purge_of(store, clock, 30 * DAY).run(lambda _: False)
    removed, unknown = ask(handle), ask("x" * len(handle))

    assert [one.ruling.basis.value for one in (allowed, expired)] == ["permit", "session_expired"]
    assert removed.ruling.basis.value == "session_not_found"
    assert replace(removed, id="", phases=(), duration_us=0.0) == replace(unknown, id="", phases=(), duration_us=0.0)
    pdp.close()


def test_a_server_removes_what_is_over(tmp_path: Path) -> None:
    """From its start on, by its setting, without anybody asking."""
    write_folder(tmp_path / "policies", FILES)
    with ServerProcess(tmp_path):
        pass
    file = tmp_path / "data" / "sessions.sqlite"
    with closing(SQLiteSessionStore(file)) as store:
        insert_over(store, "old")
        store.insert(make_session("expired"), wall_at=1000.0)

    with ServerProcess(tmp_path, sessions_keep_ended_seconds="60"), closing(SQLiteSessionStore(file)) as store:
        wait_until(lambda: not store.select(SessionFilter(), limit=9))

        assert sum(store.count_by_state().values()) == 0
