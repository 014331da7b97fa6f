"""The sender of a deployment: at least once, in order, one at a time, and nothing waits for it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from pdp.clock import Deadline
from pdp.errors import StoreUnavailableError
from pdp.messages.queue import GIVEN_UP, REMOVED, TOO_MANY
from pdp.messages.receivers import Receiver
from pdp.messages.sender import Keeping, Sender
from pdp.messages.sorting import Message
from pdp.messages.sqlitequeue import SQLiteMessageQueue
from pdp.model import SessionState
from pdp.sessions.history import MemorySessionHistory
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.outbox import Outbox, OutboxEvent, Topic
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.store import SessionStore
from pdp.sessions.values import SessionFilter
from pdp.testing.clock import FakeClock
from pdp.testing.stores.access import at, request
from pdp.testing.stores.samples import make_session, revoked, successor_of
from pdp.testing.waiting import wait_until
from tests.machinery.messagereceiver import PATIENT_POST, HTTPReceiver, http_receiver, make_receiver

ON_CALL = "on-call"
# Of sessions beside the clock of the system.
_LATE = Deadline(wall_at=1e11, boot_at=1e11, boot_id="boot-1")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no attempt end by its own time."""
    monkeypatch.setattr("pdp.messages.sender.Post", PATIENT_POST)


@pytest.fixture
def server() -> Iterator[HTTPReceiver]:
    """Run a receiver."""
    with http_receiver() as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that starts when the sessions of tests do."""
    return FakeClock(wall_at=1000.0)


@pytest.fixture
def sending(tmp_path: Path, clock: FakeClock) -> Callable[..., Sender]:
    """Return a sender, not started, over stores in memory and one queue in a file."""

    def make(*receivers: Receiver, sessions: SessionStore, **others: Any) -> Sender:
        made: dict[str, Any] = {
            "requests": MemorySessionHistory(tells=True).access,
            "open_queue": partial(SQLiteMessageQueue, tmp_path / "messages.sqlite"),
            "lock_path": tmp_path / "messages.lock",
            "keeping": Keeping(seconds=604800.0, messages=100),
            "clock": clock,
            "link_to": lambda _: "",
            "purposes": False,
            "every": 0.01,
            **others,
        }
        return Sender(receivers, sessions=sessions, **made)

    return make


def waiting(name: str, **changes: Any) -> Any:
    """Return a session that waits for approval."""
    return make_session(name, state=SessionState.REQUESTED, **changes)


def put(
    queue: SQLiteMessageQueue, name: str, topic: Topic, *ids: str, created_at: float = 1000.0, receiver: str = ON_CALL
) -> None:
    """Put a message into a queue, `msg_` and its name."""
    event = OutboxEvent(id=f"evt_{name}", topic=topic, at=1.0, ids=ids)
    queue.put([Message(id=f"msg_{name}", receiver=receiver, event=event)], [], at=created_at)


def test_what_happens_arrives(server: HTTPReceiver, tmp_path: Path, sending: Callable[..., Sender]) -> None:
    """What sessions and access requests do, and what becomes of both by time alone."""
    store, history = MemorySessionStore(tells=True), MemorySessionHistory(tells=True)
    store.insert(waiting("a"), wall_at=1000.0)
    history.access().ask(request(), b"{}", at(1000.0))
    clock = FakeClock(wall_at=1000.0)

    with sending(make_receiver(tmp_path, server.url), sessions=store, requests=history.access, clock=clock):
        wait_until(lambda: len(server.taken) == 2)
        clock.advance(5000.0)
        wait_until(lambda: len(server.taken) == 4)

    assert sorted(server.stories) == [
        ("access.expired", ["acc_1"]),
        ("access.requested", ["acc_1"]),
        ("session.expired", ["ses_a"]),
        ("session.requested", ["ses_a"]),
    ]
    assert store.untold(limit=9) == history.access().untold(limit=9) == ((), 0)


def test_a_thousand_revoked_at_once_are_one_message(
    server: HTTPReceiver, tmp_path: Path, sending: Callable[..., Sender]
) -> None:
    """In whatever steps they were written."""
    store = MemorySessionStore(tells=True)
    for number in range(1000):
        store.insert(make_session(f"{number:03}"), wall_at=1000.0)
    store.forget_told(store.untold(limit=1000))
    for _ in range(2):
        live = SessionFilter(user="ada", states=frozenset({SessionState.ACTIVE}))
        store.change_where(live, revoked, wall_at=1000.0, limit=500)

    with sending(make_receiver(tmp_path, server.url), sessions=store) as sender:
        wait_until(lambda: bool(server.taken) and not sender.standings()[0].waiting)

    ((kind, ids),) = server.stories
    assert (kind, server.messages[0]["data"]["count"], len(ids)) == ("session.revoked", 1000, 10)


def test_one_that_is_refused_holds_up_only_its_own_session(
    server: HTTPReceiver, tmp_path: Path, clock: FakeClock, sending: Callable[..., Sender]
) -> None:
    """What follows about it waits, what is about others goes; all of it arrives in order."""
    store = MemorySessionStore(tells=True)
    server.status_of = {"ses_a": 500}
    with sending(make_receiver(tmp_path, server.url), sessions=store) as sender:
        store.insert(waiting("a"), wall_at=1000.0)
        wait_until(lambda: len(server.tried) == 1)
        store.update([successor_of(waiting("a"), state=SessionState.DENIED)], wall_at=1000.0)
        store.insert(waiting("b", agent="other"), wall_at=1000.0)
        wait_until(lambda: sender.standings()[0].waiting == 3)
        # Past the pause of the receiver, and not past that of the message.
        clock.advance(1.0)
        wait_until(lambda: bool(server.taken))
        assert server.stories == [("session.requested", ["ses_b"])]
        server.status_of = {}
        clock.advance(600.0)
        wait_until(lambda: len(server.taken) == 3)

    assert server.stories[1:] == [("session.requested", ["ses_a"]), ("session.denied", ["ses_a"])]


def test_a_receiver_that_is_down_is_tried_again_with_the_same_id(
    server: HTTPReceiver, tmp_path: Path, clock: FakeClock, sending: Callable[..., Sender]
) -> None:
    """Not before its pause is over; its problem is shown until then."""
    store = MemorySessionStore(tells=True)
    store.insert(waiting("a"), wall_at=1000.0)
    server.status = 500
    with sending(make_receiver(tmp_path, server.url), sessions=store) as sender:
        wait_until(lambda: sender.standings() != () and sender.standings()[0].failed == 1)
        time.sleep(0.1)
        assert len(server.tried) == 1
        assert sender.standings()[0].problem == "answers `500`"
        server.status = 204
        clock.advance(2.0)
        wait_until(lambda: sender.standings()[0].sent == 1)

    assert (len(server.tried), len(server.taken)) == (2, 1)


def test_a_slow_receiver_delays_no_write_and_no_other_receiver(
    server: HTTPReceiver, tmp_path: Path, sending: Callable[..., Sender]
) -> None:
    """Each has a thread of its own, and the end of the server does not wait for it."""
    store = MemorySessionStore(tells=True)
    server.held = True
    with http_receiver() as quick:
        both = (make_receiver(tmp_path, server.url), make_receiver(tmp_path, quick.url, name="quick"))
        with sending(*both, sessions=store):
            store.insert(waiting("a"), wall_at=1000.0)
            wait_until(lambda: bool(server.tried) and bool(quick.taken))
            store.insert(waiting("b"), wall_at=1000.0)
            wait_until(lambda: len(quick.taken) == 2)

    # It would have been taken by now if anybody had waited for it.
    assert server.taken == []


def test_another_process_goes_on_when_the_sender_is_killed(
    server: HTTPReceiver, tmp_path: Path, project_root: Path
) -> None:
    """It sends again what was on its way, with the same id, and then the rest."""
    make_receiver(tmp_path, server.url)
    command = [sys.executable, "-m", "tests.messages.sending_process", str(tmp_path)]
    with closing(SQLiteSessionStore(tmp_path / "sessions.db", tells=True)) as store:
        server.held = True
        with subprocess.Popen(command, cwd=project_root, stdin=subprocess.PIPE) as first:
            store.insert(waiting("a", deadline=_LATE), wall_at=1000.0)
            wait_until(lambda: len(server.tried) == 1)
            with subprocess.Popen(command, cwd=project_root, stdin=subprocess.PIPE) as second:
                store.insert(waiting("b", deadline=_LATE), wall_at=1000.0)
                first.kill()
                server.held = False
                server.let_go.set()
                wait_until(lambda: {ids[0] for _, ids in server.stories} == {"ses_a", "ses_b"})
                second.kill()

    ids = {headers["webhook-id"] for headers, _ in server.taken}
    assert len(ids) == 2
    assert [story[1] for story in server.stories][-1] == ["ses_b"]


def test_only_one_sends(server: HTTPReceiver, tmp_path: Path, sending: Callable[..., Sender]) -> None:
    """The other one begins when the first has stopped."""
    store, receiver = MemorySessionStore(tells=True), make_receiver(tmp_path, server.url)
    with ExitStack() as running:
        first = running.enter_context(sending(receiver, sessions=store))
        wait_until(first.sends)
        with sending(receiver, sessions=store) as second:
            store.insert(waiting("a"), wall_at=1000.0)
            wait_until(lambda: len(server.taken) == 1)
            assert not second.sends()
            running.close()
            wait_until(second.sends)


def test_events_that_a_dead_sender_left_are_told_once(
    server: HTTPReceiver, tmp_path: Path, sending: Callable[..., Sender]
) -> None:
    """It had made its messages of them, and died before the store was told."""
    store = MemorySessionStore(tells=True)
    store.insert(waiting("a"), wall_at=1000.0)
    (event,) = store.untold(limit=9).events
    with closing(SQLiteMessageQueue(tmp_path / "messages.sqlite")) as queue:
        queue.put([Message(id="msg_1", receiver=ON_CALL, event=event)], [event.id], at=1000.0)
    with sending(make_receiver(tmp_path, server.url), sessions=store) as sender:
        wait_until(lambda: sender.sends() and sender.standings()[0].sent == 1)
        wait_until(lambda: store.untold(limit=9) == ((), 0))

    assert [headers["webhook-id"] for headers, _ in server.taken] == ["msg_1"]


def test_what_dead_senders_noted_is_forgotten(tmp_path: Path, sending: Callable[..., Sender]) -> None:
    """Each died after the store had been told, and before the note was gone."""
    with closing(SQLiteMessageQueue(tmp_path / "messages.sqlite")) as queue:
        queue.put([], ["evt_1", "evt_2"], at=1000.0)
        with sending(sessions=MemorySessionStore(tells=True)):
            wait_until(lambda: queue.taken(["evt_1", "evt_2"]) == frozenset())


def test_what_was_noted_stays_while_a_store_does_not_answer(
    tmp_path: Path, clock: FakeClock, sending: Callable[..., Sender]
) -> None:
    """It can hold one of these events still."""
    looked = 0

    def requests() -> Outbox:
        nonlocal looked
        looked += 1
        raise StoreUnavailableError("the session history does not answer")

    with closing(SQLiteMessageQueue(tmp_path / "messages.sqlite")) as queue:
        queue.put([], ["evt_1"], at=1000.0)
        with sending(sessions=MemorySessionStore(tells=True), requests=requests):
            wait_until(lambda: looked == 2)
            clock.advance(60.0)
            wait_until(lambda: looked == 5)

        assert queue.taken(["evt_1"]) == {"evt_1"}


def test_on_a_full_disk_one_message_does_not_become_many(
    server: HTTPReceiver,
    tmp_path: Path,
    clock: FakeClock,
    sending: Callable[..., Sender],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was taken and cannot be noted is not sent again, and goes on once there is room; the log tells it once."""
    store, path = MemorySessionStore(tells=True), tmp_path / "messages.sqlite"
    with sending(make_receiver(tmp_path, server.url), sessions=store) as sender:
        wait_until(sender.sends)
        with closing(apsw.Connection(str(path))) as connection:
            connection.set_busy_timeout(30_000)  # the sender writes now and then too
            connection.execute("CREATE TRIGGER full BEFORE DELETE ON messages BEGIN SELECT RAISE(ABORT, ''); END")
            store.insert(waiting("a"), wall_at=1000.0)
            wait_until(lambda: len(server.taken) == 1)
            clock.advance(900.0)
            time.sleep(0.1)
            connection.execute("DROP TRIGGER full")
        store.insert(waiting("b"), wall_at=1000.0)
        wait_until(lambda: len(server.taken) == 2)

    assert [ids for _, ids in server.stories] == [["ses_a"], ["ses_b"]]
    assert ["cannot be used" in one for one in caplog.messages].count(True) == 1


def test_a_gap_is_told(server: HTTPReceiver, tmp_path: Path, sending: Callable[..., Sender]) -> None:
    """Once there is room; the ending stood meanwhile."""
    path = tmp_path / "sessions.db"
    with closing(SQLiteSessionStore(path, tells=True)) as store:
        store.insert(make_session("a", deadline=_LATE), wall_at=1000.0)
        store.forget_told(store.untold(limit=9))
        with closing(apsw.Connection(str(path))) as connection:
            connection.execute("CREATE TRIGGER full BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, ''); END")
            store.change_tree("ses_a", revoked, wall_at=1000.0)
        with sending(make_receiver(tmp_path, server.url), sessions=store):
            wait_until(lambda: len(server.taken) == 1)

        assert store.get("ses_a")[0].state is SessionState.REVOKED

    assert server.stories == [("messages.missed", [])]


def test_a_store_that_cannot_forget_makes_no_second_message(
    server: HTTPReceiver, tmp_path: Path, sending: Callable[..., Sender]
) -> None:
    """Neither of its events nor of a gap, however often they are read."""
    path = tmp_path / "sessions.db"
    with closing(SQLiteSessionStore(path, tells=True)) as store:
        store.insert(waiting("a", deadline=_LATE), wall_at=1000.0)
        with closing(apsw.Connection(str(path))) as connection:
            connection.execute("UPDATE meta SET missed_events = 3")
            connection.execute("CREATE TRIGGER kept BEFORE DELETE ON outbox BEGIN SELECT RAISE(ABORT, ''); END")
        with sending(make_receiver(tmp_path, server.url), sessions=store):
            wait_until(lambda: len(server.taken) == 2)
            time.sleep(0.1)

        assert len(store.untold(limit=9).events) == 1
    assert [kind for kind, _ in server.stories] == ["session.requested", "messages.missed"]


def test_a_gap_is_told_after_an_earlier_one_of_the_same_size(
    server: HTTPReceiver, tmp_path: Path, sending: Callable[..., Sender]
) -> None:
    """Also if the sender of the earlier one died before it had forgotten what it noted."""
    path = tmp_path / "sessions.db"
    with closing(SQLiteSessionStore(path, tells=True)) as store, closing(apsw.Connection(str(path))) as connection:
        for told, queue in enumerate((_ForgetfulQueue, SQLiteMessageQueue), start=1):
            connection.execute("UPDATE meta SET missed_events = 3")
            opened = partial(queue, tmp_path / "messages.sqlite")
            with sending(make_receiver(tmp_path, server.url), sessions=store, open_queue=opened) as sender:
                wait_until(lambda: store.untold(limit=9) == ((), 0))
                # Its end would abort an attempt.
                wait_until(partial(_has_sent, sender, told))

    assert [("messages.missed", [])] * 2 == server.stories


def _has_sent(sender: Sender, count: int) -> bool:
    return [one.sent for one in sender.standings()] == [count]


class _ForgetfulQueue(SQLiteMessageQueue):
    """A queue of a sender that dies before the last step."""

    def forget_taken(self, event_ids: Collection[str]) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("given_up", "problem"),
    [
        ({"receivers": [ON_CALL], "created_before": 1001.0, "most": 9}, GIVEN_UP),
        ({"receivers": [], "created_before": 0.0, "most": 9}, REMOVED),
        ({"receivers": [ON_CALL], "created_before": 0.0, "most": 1}, TOO_MANY),
    ],
)
def test_what_is_not_taken_becomes_a_dead_letter(tmp_path: Path, given_up: dict[str, Any], problem: str) -> None:
    """After its time, for a receiver that is gone, or beyond so many; a retry sends it once more."""
    with closing(SQLiteMessageQueue(tmp_path / "messages.sqlite")) as queue:
        for number in range(2):
            put(queue, f"{number}", Topic.SESSION_DENIED, f"ses_{number}", created_at=1000.0 + number)
        assert queue.give_up(**given_up) >= 1
        (oldest, *_) = queue.letters(dead=True, limit=9)
        left = queue.due(ON_CALL, at=2000.0)

        assert (oldest.message.id, oldest.problem) == ("msg_0", problem)
        assert left is None or left.message.id == "msg_1"
        assert queue.retry(ON_CALL, at=3000.0) >= 1
        assert (queue.letters(dead=True, limit=9), queue.retry(at=3000.0)) == ((), 0)
        again = queue.due(ON_CALL, at=3000.0)
        assert again is not None
        assert again.message == oldest.message


def test_what_gathered_while_a_receiver_was_away_is_one_message(tmp_path: Path) -> None:
    """Of each topic, in order; with a new id, because the first could have been sent before."""
    stories = [(topic, number) for number in range(8) for topic in (Topic.SESSION_REQUESTED, Topic.SESSION_APPROVED)]
    with closing(SQLiteMessageQueue(tmp_path / "messages.sqlite")) as queue:
        for topic, number in stories:
            put(queue, f"{topic}{number}", topic, f"ses_{number}")
        told = []
        while (letter := queue.due(ON_CALL, at=2000.0)) is not None:
            told.append((letter.message.event.topic, letter.message.event.count, letter.message.event.ids[0]))
            assert not letter.message.id.endswith("0")
            queue.sent(letter, at=2000.0)

    assert told == [(Topic.SESSION_REQUESTED, 8, "ses_0"), (Topic.SESSION_APPROVED, 8, "ses_0")]


def test_what_follows_a_message_that_is_put_off_waits_for_it(tmp_path: Path) -> None:
    """What is about others goes meanwhile."""
    stories = [(Topic.SESSION_REQUESTED, "ses_a"), (Topic.SESSION_DENIED, "ses_a"), (Topic.SESSION_DENIED, "ses_b")]
    with closing(SQLiteMessageQueue(tmp_path / "messages.sqlite")) as queue:
        for topic, name in stories:
            put(queue, f"{topic}{name}", topic, name)
        (first, *_) = queue.letters(dead=False, limit=9)
        queue.failed(first, "answers `500`", next_at=2001.0)
        told = []
        for moment in (2000.0, 2000.0, 2001.0, 2001.0):
            if (letter := queue.due(ON_CALL, at=moment)) is not None:
                told.append((letter.message.event.topic, letter.message.event.ids[0]))
                queue.sent(letter, at=moment)

    assert told == [stories[2], stories[0], stories[1]]


def test_however_many_were_put_off_what_follows_is_sent(tmp_path: Path) -> None:
    """A receiver can refuse many and take others; of those that wait for one that was refused, none is sent."""
    with closing(SQLiteMessageQueue(tmp_path / "messages.sqlite")) as queue:
        for number in range(500):
            put(queue, f"{number}", Topic.SESSION_REQUESTED, f"ses_{number}")
        for one in queue.letters(dead=False, limit=500):
            queue.failed(one, "answers `400`", next_at=3000.0)
        put(queue, "denied", Topic.SESSION_DENIED, "ses_7")
        put(queue, "late", Topic.SESSION_REQUESTED, "ses_late")
        due = queue.due(ON_CALL, at=2000.0)

    assert due is not None
    assert due.message.id == "msg_late"


def test_what_was_tried_is_told_as_it_was(tmp_path: Path) -> None:
    """Its receiver may have it: the same id must not bring something else. The rest is a burst of its own."""
    with closing(SQLiteMessageQueue(tmp_path / "messages.sqlite")) as queue:
        for number in range(8):
            put(queue, f"{number}", Topic.SESSION_REQUESTED, f"ses_{number}")
        (first,) = queue.letters(dead=False, limit=1)
        queue.failed(first, "answers `500`", next_at=2001.0)
        rest, again = queue.due(ON_CALL, at=2000.0), queue.due(ON_CALL, at=2001.0)

    assert rest is not None
    assert again is not None
    assert (rest.message.event.count, rest.message.event.ids[0]) == (7, "ses_1")
    assert again.message == first.message


def test_dead_letters_are_bounded(tmp_path: Path) -> None:
    """The latest of each receiver stay: one that is broken pushes out none of another's."""
    with closing(SQLiteMessageQueue(tmp_path / "messages.sqlite")) as queue:
        put(queue, "other", Topic.SESSION_DENIED, receiver="team-chat")
        for number in range(5):
            put(queue, f"{number}", Topic.SESSION_DENIED)
        queue.give_up([ON_CALL, "team-chat"], created_before=2000.0, most=2)

        assert [one.message.id for one in queue.letters(dead=True, limit=9)] == ["msg_other", "msg_3", "msg_4"]
