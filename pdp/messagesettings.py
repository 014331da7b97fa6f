"""Choose from the settings who is told, and the sender that does it."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pdp.clock import Clock
from pdp.messages.forms import LinkTo
from pdp.messages.queue import MessageQueue
from pdp.messages.receivers import Receiver, read_receivers
from pdp.messages.sender import Keeping, OnAttempt, Sender
from pdp.messages.sqlitequeue import SQLiteMessageQueue
from pdp.server.links import Links
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.store import SessionStore

if TYPE_CHECKING:
    from pdp.config.settings import Settings
    from pdp.sessions.postgres import PostgresSessionStore

_LOCK_FILE = "messages.lock"
_SESSION, _ACCESS_REQUEST = "ses_", "acc_"


def receivers_of(settings: Settings) -> tuple[Receiver, ...]:
    """Return the receivers of messages; none without a file. Raise `ConfigurationError`."""
    return read_receivers(Path(settings.messages.receivers_file)) if settings.tells else ()


def link_to_of(settings: Settings) -> LinkTo:
    """Return what gives the link to a session, an access request or a freeze, by its id."""
    links = Links(settings.server.console_url)

    def link_to(found: str) -> str:
        if found.startswith(_ACCESS_REQUEST):
            return links.to_access_request(found)
        return links.to_session(found) if found.startswith(_SESSION) else links.to_freezes()

    return link_to


def queue_of(settings: Settings, beside: PostgresSessionStore | None = None) -> MessageQueue:
    """Open the queue of messages; `beside` is the store of a server.

    Raise `StoreUnavailableError`, or `ConfigurationError`.
    """
    if settings.sessions.store == "postgres":
        from pdp.messages.postgresqueue import PostgresMessageQueue  # noqa: PLC0415 - an extra brings its driver
        from pdp.starting import postgres_of  # noqa: PLC0415 - it needs the receivers

        return PostgresMessageQueue(postgres_of(settings), beside=beside)
    return SQLiteMessageQueue(settings.messages_file)


def sender_of(
    settings: Settings, *, sessions: SessionStore, history: SessionHistory, clock: Clock, on_attempt: OnAttempt
) -> Sender:
    """Return the sender of messages, not started. Raise `ConfigurationError`."""
    chosen = settings.messages

    def open_queue() -> MessageQueue:
        if settings.sessions.store == "memory":
            return SQLiteMessageQueue(Path(":memory:"))
        with ExitStack() as opened:
            queue = opened.enter_context(closing(queue_of(settings, cast("PostgresSessionStore", sessions))))
            if settings.sessions.store == "postgres" and settings.messages_file.exists():
                # Of a program before, or of the store before a move.
                with closing(SQLiteMessageQueue(settings.messages_file)) as file:
                    queue.receive(file)
            opened.pop_all()
        return queue

    return Sender(
        receivers_of(settings),
        sessions=sessions,
        requests=history.access,
        open_queue=open_queue,
        lock_path=Path(settings.data_dir) / _LOCK_FILE,
        keeping=Keeping(seconds=chosen.keep_seconds, messages=chosen.keep_messages),
        clock=clock,
        link_to=link_to_of(settings),
        purposes=chosen.purposes,
        on_attempt=on_attempt,
    )
