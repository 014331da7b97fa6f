"""`pdp messages`: show what receivers are told and what waits, send again what was given up, try a receiver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import click

from pdp.cli.groups import Group
from pdp.cli.options import json_option, with_settings
from pdp.cli.output import print_json, print_table, progress
from pdp.clock import SystemClock, utc_text
from pdp.config.settings import Settings
from pdp.errors import ConfigurationError, PDPError
from pdp.foundation.ids import new_event_id, new_message_id
from pdp.foundation.nearest import hint
from pdp.messages.queue import Letter, MessageQueue, Standing
from pdp.messages.sending import Post
from pdp.messages.sorting import Message
from pdp.messagesettings import link_to_of, queue_of, receivers_of
from pdp.sessions.outbox import OutboxEvent, Topic

_MOST = 1000


@click.group(cls=Group)
def messages() -> None:
    """Show what receivers are told, send again what was given up, and try a receiver."""


@messages.command("list", epilog="Example:  pdp messages list --dead")
@click.option("--dead", is_flag=True, help="List the messages that were given up, the oldest first, and why.")
@click.option("--waiting", is_flag=True, help="List the messages that wait, the oldest first.")
@click.option("--receiver", metavar="NAME", default="", help="Only those of one receiver.")
@json_option
@with_settings("data_dir")
def list_(*, settings: Settings, dead: bool, waiting: bool, receiver: str, as_json: bool) -> None:
    """Show how each receiver is served: what waits, what was given up, what was sent, and the last problem.

    Reads the file of messages in the data folder, or the database that servers share; a server may run meanwhile. At
    most 1,000 messages are listed.
    """
    if dead and waiting:
        raise click.UsageError("`--dead` and `--waiting` cannot be combined")
    with _queue(settings) as queue:
        if dead or waiting:
            letters = queue.letters(dead=dead, receiver=receiver, limit=_MOST) if queue else ()
            _print_letters(letters, as_json=as_json)
            return
        standings = [one for one in (queue.standings() if queue else ()) if receiver in ("", one.receiver)]
    if as_json:
        print_json([_plain(one) for one in standings])
        return
    columns = ("receiver", "waiting", "dead", "sent", "failed", "last sent", "problem")
    print_table(columns, [_row(one) for one in standings])


@messages.command(epilog="Example:  pdp messages retry on-call")
@click.argument("receiver", required=False, default="")
@json_option
@with_settings("data_dir")
def retry(*, settings: Settings, receiver: str, as_json: bool) -> None:
    """Send the messages once more that were given up, of one receiver or all.

    A running server sends them; they come late, and not in order.
    """
    with _queue(settings) as queue:
        count = queue.retry(receiver, at=SystemClock().now().wall_at) if queue else 0
    if as_json:
        print_json({"retried": count})
    else:
        click.echo(f"{count} messages are sent once more")


@messages.command(epilog="Example:  pdp messages test on-call")
@click.argument("receiver")
@json_option
@with_settings("data_dir")
def test(*, settings: Settings, receiver: str, as_json: bool) -> None:
    """Send a message to one receiver now, which says that it is a test.

    It is sent by this command, with the settings, files and network of whoever runs it. Exit code 0: it was taken.
    """
    known = {one.name: one for one in receivers_of(settings)}
    if receiver not in known:
        raise ConfigurationError(f"no such receiver: `{receiver}`{hint(receiver, known)}")
    now = SystemClock().now().wall_at
    event = OutboxEvent(id=new_event_id(), topic=Topic.MESSAGES_TEST, at=now)
    message = Message(id=new_message_id(), receiver=receiver, event=event)
    with progress(f"sending a message to {receiver}"):
        attempt = Post(known[receiver], link_to=link_to_of(settings), purposes=False).attempt(message, at=now)
    if attempt.problem:
        raise PDPError(f"the receiver `{receiver}` did not take it: {attempt.problem}")
    if as_json:
        print_json({"receiver": receiver, "id": message.id})
    else:
        click.echo(f"the receiver `{receiver}` took it: `{message.id}`")


@contextmanager
def _queue(settings: Settings) -> Iterator[MessageQueue | None]:
    """Open the queue of a deployment; None before its first message."""
    if settings.sessions.store == "memory":
        raise ConfigurationError(
            f"`sessions.store` is `{settings.sessions.store}`: messages, too, are only in the server's memory"
        )
    if settings.sessions.store == "sqlite" and not settings.messages_file.exists():
        yield None
        return
    with closing(queue_of(settings)) as queue:
        yield queue


def _print_letters(letters: tuple[Letter, ...], *, as_json: bool) -> None:
    if as_json:
        print_json([_plain_letter(one) for one in letters])
        return
    columns = ("message", "receiver", "event", "about", "since", "attempts", "problem")
    print_table(columns, [tuple(map(str, _plain_letter(one).values())) for one in letters])


def _plain_letter(letter: Letter) -> dict[str, object]:
    event = letter.message.event
    first = event.ids[:1]
    return {
        "message": letter.message.id,
        "receiver": letter.message.receiver,
        "event": event.topic.value,
        "about": "".join(first) + (f" and {event.count - len(first)} more" if event.count > 1 else ""),
        "since_time": _time(letter.created_at),
        "attempts": letter.attempts,
        "problem": letter.problem,
    }


def _row(one: Standing) -> tuple[str, ...]:
    counts = (one.waiting, one.dead, one.sent, one.failed)
    return (one.receiver, *map(str, counts), _time(one.sent_at), one.problem)


def _plain(one: Standing) -> dict[str, object]:
    return {
        "receiver": one.receiver,
        "waiting": one.waiting,
        "dead": one.dead,
        "oldest_time": _time(one.oldest_at),
        "sent": one.sent,
        "sent_time": _time(one.sent_at),
        "failed": one.failed,
        "problem": one.problem,
    }


def _time(at: float) -> str:
    return utc_text(at) if at else ""
