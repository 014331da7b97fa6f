"""What changes have come to is in the record, whatever ends between the commit of one and its line there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import pytest

from pdp.audit.completing import Completing
from pdp.clock import SystemClock
from pdp.errors import ConflictError, StoreUnavailableError
from pdp.model import Session
from pdp.observer import Event, EventKind
from pdp.record import DecisionLog, SigningKey, read_records
from pdp.record.keys import PublicKeys
from pdp.record.verify import verify
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgresfailover import Replication
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.sessions.postgressettling import Settling, SettlingStore
from pdp.sessions.unrecorded import KnownRows
from pdp.testing.stores.samples import make_session, revoked
from pdp.testing.waiting import wait_until
from tests.sessions.postgres.conftest import PATIENT
from tests.sessions.postgres.machine import living
from tests.sessions.postgres.postgresserver import PostgresServer
from tests.sessions.postgres.tcpproxy import Proxy

pytestmark = pytest.mark.replicas

SIGNER = SigningKey.generate()
ROOT = make_session("root")
AT = SystemClock().now().wall_at


def ended(sessions: Sequence[Session]) -> Iterable[Event]:
    """Say of each session that it was revoked."""
    return [Event.of_session(EventKind.SESSION_REVOKED, one, at=AT, facts={"reason": "enough"}) for one in sessions]


@dataclass(kw_only=True)
class Process:
    """A process with a record and a store."""

    log: DecisionLog
    known: KnownRows
    store: PostgresSessionStore
    completing: Completing

    def revoke(self, *, recorded: bool = True) -> None:
        """Revoke the session; without `recorded`, end right after the commit, as when it is killed there."""
        with self.store.fencing(ended):
            changed = self.store.change_tree(ROOT.id, revoked, wall_at=AT)
            if not recorded:
                raise KeyboardInterrupt
            for event in ended(changed):
                self.log.event(event)

    def die_after_commit(self) -> None:
        """Revoke the session, and be gone before that is recorded."""
        with pytest.raises(KeyboardInterrupt):
            self.revoke(recorded=False)
        self.end()

    def end(self) -> None:
        """Be gone, and leave what there is."""
        self.store.close()
        self.log.close()


@pytest.fixture
def started(conninfo: str, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Give what starts a process on the same tables: by default on one folder for records."""
    with ExitStack() as opened:

        def start(folder: str = "record", at: str = conninfo) -> Process:
            log = DecisionLog(tmp_path / folder, key=b"k" * 32, signer=SIGNER)
            opened.callback(log.close)
            known = KnownRows(log.chain)
            store = opened.enter_context(closing(PostgresSessionStore(at, **PATIENT, known_rows=known)))
            completing = Completing(store.unrecorded, log, every=60.0)
            completing.turn()
            return Process(log=log, known=known, store=store, completing=completing)

        yield start


@pytest.fixture
def rows(server: PostgresServer) -> Iterator[Callable[[], int]]:
    """Give what counts the changes that may not be recorded."""
    with server.connect() as connection:
        yield lambda: int((connection.execute("SELECT count(*) FROM pdp_sessions.unrecorded").fetchone() or (-1,))[0])


def revocations(folder: Path) -> list[str]:
    """Return the sessions that a record says were revoked; it verifies."""
    assert [] == [str(one) for one in verify(folder, PublicKeys.of(SIGNER), open_end=True).findings]
    return [record["session_id"] for _, _, record in read_records(folder) if record["kind"] == "session.revoked"]


def test_what_a_killed_process_has_not_recorded_is_recorded_by_the_next(
    started: Callable[..., Process], rows: Callable[[], int], tmp_path: Path
) -> None:
    """It continues the chain, and says in it that a record is late; what it has recorded, no later one records."""
    first = started()
    first.store.insert(ROOT, wall_at=AT)
    first.die_after_commit()
    before = revocations(tmp_path / "record")
    second = started()
    after = revocations(tmp_path / "record")
    second.end()
    third = started()
    third.log.tick()
    third.completing.turn()
    gaps = [record["late"] for _, _, record in read_records(tmp_path / "record") if record["kind"] == "record.gap"]

    assert ([], [ROOT.id], [1]) == (before, after, gaps)
    assert [ROOT.id] == revocations(tmp_path / "record")
    assert 0 == rows()


def test_what_is_recorded_is_not_recorded_again(
    started: Callable[..., Process], rows: Callable[[], int], tmp_path: Path
) -> None:
    """A process can also be killed after the line, while the store still keeps what it says."""
    first = started()
    first.store.insert(ROOT, wall_at=AT)
    first.revoke()
    kept = rows()
    first.end()
    started()

    assert 1 == kept
    assert [ROOT.id] == revocations(tmp_path / "record")


def test_what_stands_before_a_late_line_is_not_recorded_again(
    started: Callable[..., Process], rows: Callable[[], int], tmp_path: Path
) -> None:
    """A line can say an earlier time than the ones before it, and the search goes on beyond it."""
    first = started()
    first.store.insert(ROOT, wall_at=AT)
    first.revoke()
    first.log.event_late([Event(kind=EventKind.FREEZE_SET, at=AT - 3600.0)])
    kept = rows()
    first.end()
    started()

    assert 1 == kept
    assert [ROOT.id] == revocations(tmp_path / "record")


def test_a_row_that_cannot_be_read_keeps_no_other(
    started: Callable[..., Process], server: PostgresServer, rows: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    """Rows would grow in number for as long as the process lives; the log says that there is such a one."""
    process = started()
    process.store.insert(ROOT, wall_at=AT)
    process.revoke()
    with server.connect() as connection:
        connection.execute("INSERT INTO pdp_sessions.unrecorded VALUES ('damaged', %s, '[1]')", (process.log.chain,))
    before = rows()
    for _ in range(2):
        process.log.tick()
        process.completing.turn()

    assert (2, 1) == (before, rows())
    assert ["the decision log may lack what changes of sessions have come to: a stored event is damaged"] == [
        one.getMessage() for one in caplog.records if one.name == "pdp.record"
    ]


def test_it_is_kept_until_the_record_has_it_on_its_disk(
    started: Callable[..., Process], rows: Callable[[], int]
) -> None:
    """Until then, a loss of power can take the line; an end in order leaves nothing."""
    process = started()
    process.store.insert(ROOT, wall_at=AT)
    process.log.tick()
    process.revoke()
    process.completing.turn()
    written = rows()
    process.log.tick()
    process.completing.turn()
    on_disk = rows()
    with process.store.fencing(lambda _: [Event(kind=EventKind.FREEZE_SET, at=AT)]):
        process.store.touch(wall_at=AT)
    process.completing.stop()

    assert (1, 0, 0) == (written, on_disk, rows())


def test_a_lost_answer_to_a_commit_leaves_nothing_unrecorded(
    started: Callable[..., Process], server: PostgresServer, rows: Callable[[], int], tmp_path: Path
) -> None:
    """The process lives on, and the caller has got an error; the change is made and stands."""
    with closing(Proxy(server.port)) as proxy:
        process = started(at=server.conninfo_at(proxy.port))
        process.store.insert(ROOT, wall_at=AT)
        proxy.cut_after = b"COMMIT"
        with pytest.raises(StoreUnavailableError, match="may or may not have been made"):
            process.revoke()
        proxy.cut_after = b""
        wait_until(lambda: rows() == 1)
        process.completing.turn()
        process.completing.turn()

        assert [ROOT.id] == revocations(tmp_path / "record")


def test_what_was_not_made_is_not_recorded(started: Callable[..., Process], tmp_path: Path) -> None:
    """An error before the commit takes what the record was to say with it."""
    process = started()
    process.store.insert(ROOT, wall_at=AT)

    def refuse() -> None:
        with process.store.fencing(lambda _: ended([ROOT])):
            process.store.insert(ROOT, wall_at=AT)

    with pytest.raises(ConflictError):
        refuse()
    process.completing.turn()

    assert [] == revocations(tmp_path / "record")


@pytest.fixture
def fails_over(takes_over: Callable[[], None], conninfo: str, tmp_path: Path) -> Callable[..., None]:
    """Give what has a process find another server, which costs a session; then it is told what was revoked."""

    def failed_over(process: Process, session: Session, revoked: Callable[[tuple[Session, ...]], None]) -> None:
        process.store.insert(session, wall_at=AT)
        takes_over()
        settling = Settling(
            opened=lambda: SettlingStore(conninfo, **PATIENT, known_rows=process.known),
            history=lambda: PostgresSessionHistory(conninfo, **PATIENT),
            clock=SystemClock(),
            went_back=Mock(),
            account=ended,
            revoked=revoked,
            again=Mock(),
            seconds=0.0,
        )
        terms = settling.terms(Replication.ASYNC, tmp_path / "acknowledged")
        PostgresSessionStore(conninfo, **PATIENT, failover=terms).close()

    return failed_over


def test_what_a_failover_has_cost_is_recorded_by_the_next(
    started: Callable[..., Process], fails_over: Callable[..., None], tmp_path: Path
) -> None:
    """A process that revokes what is live, and is killed before it has recorded that."""
    session, process, dies = living("live"), started(), Mock(side_effect=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        fails_over(process, session, dies)
    process.end()
    started()

    assert [session.id] == [one.id for one in dies.call_args.args[0]]
    assert [session.id] == revocations(tmp_path / "record")


def test_what_a_failover_has_cost_is_recorded_once(
    started: Callable[..., Process], fails_over: Callable[..., None], tmp_path: Path
) -> None:
    """The process can complete its record after the commit, and before it has recorded it."""
    session, process = living("live"), started()

    def revoked(sessions: tuple[Session, ...]) -> None:
        # The first turn may only find that the connection is lost.
        for _ in range(2):
            process.completing.turn()
        for event in ended(sessions):
            process.log.event(event)

    fails_over(process, session, revoked)

    assert [session.id] == revocations(tmp_path / "record")


@pytest.mark.parametrize(("folder", "found"), [("record", [ROOT.id]), ("elsewhere", [])])
def test_a_chain_that_nobody_continues_is_completed_on_its_machine(
    started: Callable[..., Process], tmp_path: Path, folder: str, found: list[str]
) -> None:
    """Its worker is gone for good: another one of the machine records what it left, and no other machine does."""
    dying, living = started(), started(folder)
    dying.store.insert(ROOT, wall_at=AT)
    living.completing.turn()
    with pytest.raises(KeyboardInterrupt):
        dying.revoke(recorded=False)
    # A living process records its own.
    living.completing.turn()
    before = [*revocations(tmp_path / "record"), *revocations(tmp_path / folder)]
    dying.end()
    living.completing.turn()

    assert [] == before
    assert found == revocations(tmp_path / folder)
