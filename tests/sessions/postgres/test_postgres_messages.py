"""Machines on one database tell each event once and in order, one machine at a time, also when one of them dies."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from pdp.clock import Deadline, SystemClock
from pdp.config.settings import MessageSettings, SessionSettings, Settings
from pdp.errors import StoreUnavailableError
from pdp.messages.postgresqueue import PostgresMessageQueue
from pdp.messages.queue import MessageQueue
from pdp.messages.sorting import Message
from pdp.messages.sqlitequeue import SQLiteMessageQueue
from pdp.messagesettings import sender_of
from pdp.model import Session, SessionState
from pdp.sessions.outbox import Outbox, OutboxEvent, Topic
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.testing.stores.samples import make_session, successor_of
from pdp.testing.waiting import wait_until
from tests.machinery.messagereceiver import PATIENT_POST, HTTPReceiver, http_receiver, make_receiver
from tests.sessions.postgres.conftest import PATIENT
from tests.sessions.postgres.postgresserver import PostgresServer
from tests.sessions.postgres.telling import TENANTS, machine

pytestmark = pytest.mark.replicas

NOW = SystemClock().now()
LATE = Deadline(wall_at=1e11, boot_at=1e11, boot_id="boot-1")
IDS = tuple(f"ses_{number}" for number in range(len(TENANTS)))


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no attempt end by its own time."""
    monkeypatch.setattr("pdp.messages.sender.Post", PATIENT_POST)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[HTTPReceiver]:
    """Run a receiver, whose files are in the folder of the test."""
    with http_receiver() as server:
        make_receiver(tmp_path, server.url)
        yield server


@pytest.fixture
def queues(conninfo: str) -> Iterator[Callable[..., PostgresMessageQueue]]:
    """Give what opens the queue of a machine, whose turn lasts longer than any test."""
    with ExitStack() as opened:
        yield lambda **more: opened.enter_context(
            closing(PostgresMessageQueue(conninfo, **{"turn_seconds": 50.0, **more}))
        )


@pytest.fixture
def turn_ends(server: PostgresServer) -> Callable[[], None]:
    """Give what ends the present turn, as the clock does."""

    def end() -> None:
        with server.connect() as connection:
            connection.execute("UPDATE pdp_sessions.message_turn SET ends_at = clock_timestamp()")

    return end


def waiting(number: int) -> Session:
    """Return a session that waits for approval, in a tenant of its own."""
    return make_session(f"{number}", state=SessionState.REQUESTED, tenant=TENANTS[number], deadline=LATE)


def live(store: PostgresSessionStore, number: int) -> None:
    """Have a session be requested and denied."""
    session = waiting(number)
    store.insert(session, wall_at=NOW.wall_at)
    store.update([successor_of(session, state=SessionState.DENIED)], wall_at=NOW.wall_at)


def message(name: str, topic: Topic = Topic.SESSION_REQUESTED, *ids: str) -> Message:
    """Return a message to the receiver."""
    return Message(
        id=f"msg_{name}", receiver="on-call", event=OutboxEvent(id=f"evt_{name}", topic=topic, at=1.0, ids=ids)
    )


def test_two_machines_tell_each_event_once_and_in_order(receiver: HTTPReceiver, tmp_path: Path, conninfo: str) -> None:
    """Whichever has made it: both find all of them."""
    with (
        machine(tmp_path, tmp_path / "one", conninfo) as (first, here),
        machine(tmp_path, tmp_path / "two", conninfo) as (second, there),
        ThreadPoolExecutor(2) as made,
    ):
        done = [made.submit(live, (here, there)[number % 2], number) for number in range(len(IDS))]
        assert [one.result() for one in done] == [None] * len(IDS)
        wait_until(lambda: len(receiver.taken) >= 2 * len(IDS))
        wait_until(lambda: here.untold(limit=9) == ((), 0))
        assert sorted([first.sends(), second.sends()]) == [False, True]

    told = [(ids[0], kind) for kind, ids in receiver.stories]
    assert Counter(told) == Counter((one, kind) for one in IDS for kind in ("session.requested", "session.denied"))
    assert all(told.index((one, "session.requested")) < told.index((one, "session.denied")) for one in IDS)


def test_another_machine_goes_on_with_what_a_dead_one_had_taken(
    receiver: HTTPReceiver, tmp_path: Path, conninfo: str, project_root: Path
) -> None:
    """Nothing is lost, and what was on its way comes again with the same id, before what follows."""
    command = [sys.executable, "-m", "tests.sessions.postgres.telling", str(tmp_path), str(tmp_path / "one"), conninfo]
    half = len(IDS) // 2
    with (
        closing(PostgresSessionStore(conninfo, **PATIENT, tells=True)) as store,
        subprocess.Popen(command, cwd=project_root, stdin=subprocess.PIPE) as first,
    ):
        for number in range(half):
            live(store, number)
        wait_until(lambda: len(receiver.taken) == len(IDS))
        with machine(tmp_path, tmp_path / "two", conninfo) as (second, _):
            receiver.held = True
            for number in range(half, len(IDS)):
                live(store, number)
            # All are in the queue, and one is on its way.
            wait_until(lambda: store.untold(limit=9) == ((), 0) and len(receiver.tried) == len(IDS) + 1)
            assert not second.sends()
            first.kill()
            receiver.held = False
            receiver.let_go.set()
            wait_until(lambda: second.sends() and not second.standings()[0].waiting)

    told = [(ids[0], kind) for kind, ids in receiver.stories]
    sent = {headers["webhook-id"]: story for (headers, _), story in zip(receiver.taken, told, strict=True)}
    assert set(told) == {(one, kind) for one in IDS for kind in ("session.requested", "session.denied")}
    assert len(sent) == 2 * len(IDS)
    assert len(told) <= 2 * len(IDS) + 1
    assert all(told.index((one, "session.requested")) < told.index((one, "session.denied")) for one in IDS)


def test_a_machine_that_stops_in_its_turn_changes_nothing_afterwards(
    queues: Callable[..., PostgresMessageQueue], turn_ends: Callable[[], None]
) -> None:
    """Another one has its place, and has taken what it had read."""
    stalled, other = queues(), queues()
    before = stalled.lead()
    assert other.lead() == ""
    assert stalled.lead() == before
    stalled.put([message("1"), message("2")], ["evt_1"], at=1000.0)
    letter = stalled.due("on-call", at=1000.0)
    assert letter is not None
    turn_ends()
    after = other.lead()
    for change in (
        lambda: stalled.put([message("3")], [], at=1000.0),
        lambda: stalled.sent(letter, at=1000.0),
        lambda: stalled.failed(letter, "answers `500`", next_at=2000.0),
        lambda: stalled.forget_taken(["evt_1"]),
        lambda: stalled.give_up([], created_before=9e9, most=0),
    ):
        with pytest.raises(StoreUnavailableError, match="another machine sends messages now"):
            change()

    assert after not in ("", before)
    assert stalled.lead() == ""
    assert stalled.due("on-call", at=1000.0) is None
    assert other.due("on-call", at=1000.0) == letter
    assert other.taken(["evt_1"]) == {"evt_1"}


@pytest.mark.parametrize("counter", ["pdp_sessions.meta", "pdp_history.access_revision"])
def test_a_gap_that_two_machines_tell_is_counted_once(
    queues: Callable[..., PostgresMessageQueue],
    turn_ends: Callable[[], None],
    conninfo: str,
    server: PostgresServer,
    counter: str,
) -> None:
    """The one that was stopped before it could forget it does not take away what was lost since."""
    with (
        server.connect() as connection,
        closing(PostgresSessionStore(conninfo, **PATIENT, tells=True)) as store,
        closing(PostgresSessionHistory(conninfo, **PATIENT, tells=True)) as history,
    ):
        outbox: Outbox = store if counter == "pdp_sessions.meta" else history.access()
        connection.execute(f"UPDATE {counter} SET missed_events = 3")  # noqa: S608 - our own names
        stalled, other = queues(), queues()
        before, told = stalled.lead(), outbox.untold(limit=9)
        turn_ends()
        outbox.forget_told(outbox.untold(limit=9), turn=other.lead())
        connection.execute(f"UPDATE {counter} SET missed_events = missed_events + 2")  # noqa: S608 - the same
        outbox.forget_told(told, turn=before)

        assert (told.missed, outbox.untold(limit=9).missed) == (3, 2)


def test_a_clock_that_was_put_back_does_not_lengthen_a_turn(
    queues: Callable[..., PostgresMessageQueue], server: PostgresServer
) -> None:
    """The database can be on a machine whose clock is behind that of the one before."""
    assert queues().lead()
    with server.connect() as connection:
        connection.execute("UPDATE pdp_sessions.message_turn SET ends_at = ends_at + interval '1 hour'")

    assert queues().lead()


def test_a_machine_that_ends_leaves_its_turn(queues: Callable[..., PostgresMessageQueue]) -> None:
    """Others need not wait for it."""
    first = queues()
    assert first.lead()
    first.close()

    assert queues().lead()


def test_a_machine_that_does_not_reach_the_database_sends_nothing(queues: Callable[..., PostgresMessageQueue]) -> None:
    """By its own clock its turn is over: another one may have it."""
    now = [100.0]
    queue = queues(monotonic=lambda: now[0])
    queue.lead()
    queue.put([message("1")], [], at=1000.0)
    assert queue.due("on-call", at=1000.0) is not None
    now[0] += 50.0

    assert queue.due("on-call", at=1000.0) is None


def _use(queue: MessageQueue) -> list[Any]:
    """Do all that a queue can do, and return what it shows."""
    found: list[Any] = [bool(queue.lead())]
    for number in range(3):
        queue.put(
            [message(f"{number}", Topic.SESSION_REQUESTED, f"ses_{number}")], [f"evt_{number}"], at=1000.0 + number
        )
    found += [queue.taken(["evt_0", "evt_9"]), first := queue.due("on-call", at=2000.0)]
    assert first is not None
    queue.failed(first, "answers `500`", next_at=2002.0)
    found += [second := queue.due("on-call", at=2000.0), queue.due("on-call", at=2002.0)]
    assert second is not None
    queue.sent(second, at=2001.0)
    queue.forget_taken(["evt_0"])
    found += [queue.taken(["evt_0", "evt_1"]), queue.standings()]
    queue.put([message("late", Topic.SESSION_DENIED), message("last", Topic.SESSION_DENIED)], [], at=3000.0)
    found += [queue.give_up(["on-call"], created_before=1001.0, most=2), queue.letters(dead=True, limit=9)]
    found += [queue.give_up([], created_before=0.0, most=9), queue.standings()]
    found += [queue.retry("other", at=4000.0), queue.retry("on-call", at=4000.0)]
    found += [
        queue.letters(dead=False, receiver="on-call", limit=9),
        queue.letters(dead=False, receiver="other", limit=9),
    ]
    burst = [message(f"burst-{number}", Topic.ACCESS_REQUESTED, f"acc_{number}") for number in range(7)]
    queue.put(burst, [], at=5000.0)
    for one in queue.letters(dead=False, receiver="on-call", limit=4):
        queue.sent(one, at=5001.0)
    told = queue.due("on-call", at=5000.0)
    assert told is not None
    assert told.message.id not in [one.id for one in burst]
    return [*found, told.message.event, queue.standings()]


def test_the_queue_is_as_in_a_file(queues: Callable[..., PostgresMessageQueue], tmp_path: Path) -> None:
    """Whatever is done with it."""
    with closing(SQLiteMessageQueue(tmp_path / "messages.sqlite")) as file:
        assert _use(file) == _use(queues())


def test_what_waits_in_the_file_of_a_machine_is_sent(receiver: HTTPReceiver, tmp_path: Path, conninfo: str) -> None:
    """Of a program before this one; what that one had taken of the store is not told again."""
    data = tmp_path / "data"
    with (
        closing(PostgresSessionStore(conninfo, **PATIENT, tells=True)) as store,
        closing(PostgresSessionHistory(conninfo, **PATIENT, tells=True, beside=store)) as history,
    ):
        store.insert(make_session("1", deadline=LATE), wall_at=NOW.wall_at)
        (event,) = store.untold(limit=9).events
        with closing(SQLiteMessageQueue(data / "messages.sqlite")) as file:
            file.put([Message(id="msg_1", receiver="on-call", event=event)], [event.id], at=NOW.wall_at)
        (tmp_path / "postgres").write_text(conninfo)
        (tmp_path / "postgres").chmod(0o600)
        receivers = tmp_path / "receivers.yaml"
        receivers.write_text("on-call: {form: json, url_file: on-call.url, secret_file: on-call.secret}")
        receivers.chmod(0o600)
        settings = Settings(
            data_dir=str(data),
            sessions=SessionSettings(store="postgres", postgres_file=str(tmp_path / "postgres")),
            messages=MessageSettings(receivers_file=str(receivers)),
        )
        sender = sender_of(settings, sessions=store, history=history, clock=SystemClock(), on_attempt=lambda *_: None)
        with sender:
            wait_until(lambda: bool(receiver.taken) and store.untold(limit=9) == ((), 0))
        with closing(SQLiteMessageQueue(data / "messages.sqlite")) as file:
            left = file.letters(dead=False, limit=9)

    assert [headers["webhook-id"] for headers, _ in receiver.taken] == ["msg_1"]
    assert left == ()
