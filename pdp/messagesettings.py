"""Choose from the settings who is told, and the sender that does it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pdp.clock import Clock
from pdp.messages.forms import LinkTo
from pdp.messages.queue import MessageQueue
from pdp.messages.receivers import Receiver, read_receivers
from pdp.messages.sender import Keeping, OnAttempt, Sender
from pdp.server.links import Links
from pdp.sessions.store import SessionHistory, SessionStore

if TYPE_CHECKING:
    from pdp.config.settings import Settings

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


def sender_of(
    settings: Settings, *, sessions: SessionStore, history: SessionHistory, clock: Clock, on_attempt: OnAttempt
) -> Sender:
    """Return the sender of messages, not started. Raise `ConfigurationError`."""
    chosen, in_memory = settings.messages, settings.sessions.store == "memory"
    return Sender(
        receivers_of(settings),
        sessions=sessions,
        requests=history.access,
        open_queue=lambda: MessageQueue(Path(":memory:") if in_memory else settings.messages_file),
        lock_path=Path(settings.data_dir) / _LOCK_FILE,
        keeping=Keeping(seconds=chosen.keep_seconds, messages=chosen.keep_messages),
        clock=clock,
        link_to=link_to_of(settings),
        purposes=chosen.purposes,
        on_attempt=on_attempt,
    )
