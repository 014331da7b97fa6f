"""`pdp store forget`: one person is removed where that breaks nothing, and each place that keeps them is named."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from pdp.app.record import open_record, record_key
from pdp.clock import Deadline, SystemClock
from pdp.config.settings import Settings
from pdp.messages.sorting import Message
from pdp.messages.sqlitequeue import SQLiteMessageQueue
from pdp.observer import Event, EventKind
from pdp.record.reader import read_records
from pdp.sessions.outbox import OutboxEvent, Topic
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.sqlitehistory import SQLiteSessionHistory
from pdp.sessions.values import Charge, Debit
from pdp.testing.stores.samples import insert_over, make_moment, make_session
from tests.cli.conftest import Run

FOLDER, WHO, OTHER = Path(".pdp"), "ada@example.org", "bob@example.org"


@pytest.fixture
def kept(run: Run) -> None:
    """Fill the files of a deployment with two people, of whom one approved for the other."""
    assert 0 == run("init").exit_code
    with closing(SQLiteSessionStore(FOLDER / "sessions.sqlite")) as store:
        root = insert_over(store, "root", user=WHO, purpose="a purpose of hers")
        insert_over(store, "child", root, user=WHO)
        insert_over(store, "bob", user=OTHER, approved_by=WHO)
        insert_over(store, "elsewhere", user=WHO, tenant="other")
    with closing(SQLiteSessionHistory(FOLDER / "history.sqlite")) as history:
        debit = Debit(session_id="ses_root", budget="calls", amount=1, most=5, window=0, ends_at=4600.0)
        history.charge(Charge(debits=(debit,), retry_digest=b"", now=make_moment(1500.0)))
    with closing(SQLiteMessageQueue(FOLDER / "messages.sqlite")) as queue:
        for number, user in enumerate((WHO, OTHER)):
            event = OutboxEvent(id=f"evt_{number}", topic=Topic.SESSION_REVOKED, at=1.0, tenant="default", user=user)
            queue.put([Message(id=f"msg_{number}", receiver="on-call", event=event)], [], at=1000.0)
    settings = Settings(data_dir=str(FOLDER))
    log = open_record(settings, key=record_key(settings), clock=SystemClock())
    with closing(log):
        for user in (WHO, OTHER):
            log.event(Event(kind=EventKind.SESSION_ENDED, at=1.0, session_id="ses_root", user=user, tenant="default"))


def fates(run: Run, *more: str) -> dict[str, tuple[int, str]]:
    """Forget the person, or preview it; return what is found where, and what becomes of it."""
    done = run("store", "forget", WHO, *more, "--json")
    assert 0 == done.exit_code, done.output
    return {one["where"]: (one["found"], one["fate"]) for one in json.loads(done.stdout)["places"] if one["found"]}


def in_files(text: str) -> list[str]:
    """Return the files of stores and messages that hold a text, also in what was deleted."""
    return sorted(path.name for path in FOLDER.glob("*.sqlite*") if text.encode() in path.read_bytes())


def test_a_store_in_postgresql_is_forgotten_in_by_way_of_sqlite(run: Run) -> None:
    """The command says how, also without a word about what would be removed."""
    done = run("store", "forget", WHO, env={"PDP_SESSIONS__STORE": "postgres", "PDP_SESSIONS__POSTGRES_FILE": "x"})

    assert (2, True) == (done.exit_code, "`pdp store move`, forget there, and move it back" in done.stderr)


@pytest.mark.usefixtures("kept")
def test_a_person_is_forgotten_and_what_stays_is_named(run: Run) -> None:
    """A preview changes nothing; then nothing is left in the files but what others have; the record verifies."""
    before = fates(run)
    held = in_files("a purpose of hers")
    after = fates(run, "--apply", "--yes")
    again = fates(run)

    whole = {
        "sessions.sqlite: sessions": (2, "to be removed"),
        "history.sqlite: budgets, counts": (1, "to be removed"),
        "messages.sqlite: messages": (1, "to be removed"),
        "sessions.sqlite: sessions of others, or with one below": (1, "stays"),
        "record": (1, "stays"),
    }
    assert whole == before
    assert {where: (found, fate.replace("to be ", "")) for where, (found, fate) in whole.items()} == after
    assert {where: one for where, one in whole.items() if one[1] == "stays"} == again
    assert (["sessions.sqlite"], []) == (held[:1], in_files("a purpose of hers"))
    with closing(SQLiteSessionStore(FOLDER / "sessions.sqlite")) as store:
        assert [False, True, True] == [bool(store.get(f"ses_{one}")) for one in ("child", "bob", "elsewhere")]
    with closing(SQLiteMessageQueue(FOLDER / "messages.sqlite")) as queue:
        assert [OTHER] == [one.message.event.user for one in queue.letters(dead=False, limit=9)]
    assert 0 == run("audit", "verify", ".pdp/record", "--public-key", ".pdp/record-signing.pub.pem").exit_code


@pytest.mark.usefixtures("kept")
def test_that_somebody_was_forgotten_is_recorded_without_them(run: Run) -> None:
    """By whom, and how much went."""
    fates(run, "--apply", "--yes")

    (told,) = [one.record for one in read_records(FOLDER / "record") if one.record["kind"] == "person.forgotten"]
    assert "sessions.sqlite: sessions: 2" in told["facts"]["removed"]
    assert (True, False) == (told["caller_id"].startswith("local:"), WHO in json.dumps(told))


@pytest.mark.usefixtures("kept")
def test_who_has_a_live_session_is_not_forgotten(run: Run) -> None:
    """The session has to end first, and nothing is removed meanwhile."""
    with closing(SQLiteSessionStore(FOLDER / "sessions.sqlite")) as store:
        far = Deadline(wall_at=9e9, boot_at=9e9, boot_id="boot-1")
        store.insert(make_session("live", user=WHO, deadline=far), wall_at=1000.0)

    done = run("store", "forget", WHO, "--apply", "--yes")

    assert 2 == done.exit_code
    assert f"error: 1 sessions of `{WHO}` are live" in done.stderr
    assert ["sessions.sqlite"] == in_files("a purpose of hers")[:1]


@pytest.mark.usefixtures("kept")
def test_nothing_is_removed_while_a_server_runs(run: Run) -> None:
    """It could write it again; a preview needs no pause."""
    with closing(SQLiteSessionStore(FOLDER / "sessions.sqlite")):
        preview, applied = (run("store", "forget", WHO, *more) for more in ((), ("--apply", "--yes")))

    assert (0, 2) == (preview.exit_code, applied.exit_code)
    assert "a server uses the session store" in applied.stderr


def test_the_index_goes_when_the_record_names_nobody_any_more(run: Run) -> None:
    """As long as it does, the index would be made with the same ids again."""
    assert 0 == run("init").exit_code
    with closing(SQLiteSessionStore(FOLDER / "sessions.sqlite")):
        pass
    (FOLDER / "record").mkdir(exist_ok=True)
    index = FOLDER / "record" / "audit-index.sqlite"
    index.write_bytes(WHO.encode())

    found = fates(run, "--apply", "--yes")

    assert ({"audit-index.sqlite": (1, "removed")}, False) == (found, index.exists())
