"""`pdp messages`: what receivers are told, beside a server and without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pdp.messages.sorting import Message
from pdp.messages.sqlitequeue import SQLiteMessageQueue
from pdp.sessions.outbox import OutboxEvent, Topic
from tests.cli.conftest import Run
from tests.machinery.ports import free_port

QUEUE = Path(".pdp/messages.sqlite")


@pytest.fixture
def queue() -> Iterator[SQLiteMessageQueue]:
    """Give the queue of a deployment: one message waits, and one was given up."""
    with closing(SQLiteMessageQueue(QUEUE)) as queue:
        for number, count in ((1, 1), (2, 12)):
            ids = tuple(f"ses_{number}{one}" for one in range(min(count, 10)))
            event = OutboxEvent(id=f"evt_{number}", topic=Topic.SESSION_REVOKED, at=1.0, ids=ids, count=count)
            queue.put([Message(id=f"msg_{number}", receiver="on-call", event=event)], [], at=1000.0 * number)
        queue.give_up(["on-call"], created_before=1500.0, most=9)
        yield queue


def test_each_receiver_is_shown(run: Run, queue: SQLiteMessageQueue) -> None:
    """With what waits, what is dead and the last problem."""
    (letter,) = queue.letters(dead=False, limit=9)
    queue.failed(letter, "answers `500`", next_at=9e9)
    done = run("messages", "list", "--json")

    assert done.exit_code == 0
    assert json.loads(done.stdout) == [
        {
            "receiver": "on-call",
            "waiting": 1,
            "dead": 1,
            "oldest_time": "1970-01-01T00:33:20.000000Z",
            "sent": 0,
            "sent_time": "",
            "failed": 1,
            "problem": "answers `500`",
        }
    ]
    assert "on-call" in run("messages", "list").stdout


def test_letters_are_listed(run: Run, queue: SQLiteMessageQueue) -> None:  # noqa: ARG001 - what is listed
    """Those that were given up, or those that wait, of one receiver or all."""
    (dead,) = json.loads(run("messages", "list", "--dead", "--json").stdout)
    (waiting,) = json.loads(run("messages", "list", "--waiting", "--json").stdout)

    assert (dead["message"], dead["about"], dead["problem"]) == ("msg_1", "ses_10", "not taken in time")
    assert (waiting["message"], waiting["about"]) == ("msg_2", "ses_20 and 11 more")
    assert json.loads(run("messages", "list", "--dead", "--receiver", "other", "--json").stdout) == []


def test_what_was_given_up_is_sent_once_more(run: Run, queue: SQLiteMessageQueue) -> None:
    """Once."""
    first, second = (run("messages", "retry", "on-call").stdout for _ in range(2))

    assert (first, second) == ("1 messages are sent once more\n", "0 messages are sent once more\n")
    assert len(queue.letters(dead=False, limit=9)) == 2


def test_before_the_first_message_nothing_is_made(run: Run) -> None:
    """The file is the server's to make."""
    done = [run("messages", "list", "--json"), run("messages", "retry", "--json")]

    assert [json.loads(one.stdout) for one in done] == [[], {"retried": 0}]
    assert not QUEUE.exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("list", "--dead", "--waiting"), "`--dead` and `--waiting` cannot be combined"),
        (("test", "on-cal"), "no such receiver: `on-cal`; did you mean `on-call`?"),
        (("test", "on-call"), "the receiver `on-call` did not take it: cannot be reached: connection refused"),
    ],
)
def test_what_cannot_be_done_is_said(run: Run, words: tuple[str, ...], problem: str) -> None:
    """In one line."""
    Path("on-call.url").write_text(f"http://127.0.0.1:{free_port()}/", encoding="utf-8")
    Path("on-call.url").chmod(0o600)
    Path("receivers.yaml").write_text("on-call: {form: chat, url_file: on-call.url}", encoding="utf-8")
    done = run("messages", *words, env={"PDP_MESSAGES__RECEIVERS_FILE": "receivers.yaml"})

    assert (done.exit_code, done.stderr.splitlines()[-1]) == (2, f"error: {problem}")


def test_messages_in_memory_are_the_servers_alone(run: Run) -> None:
    """No command can see them."""
    done = run("messages", "list", env={"PDP_SESSIONS__STORE": "memory"})

    assert done.stderr == "error: `sessions.store` is `memory`: messages, too, are only in the server's memory\n"
