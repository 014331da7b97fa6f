"""Check that receivers of messages take them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Final

from pdp.doctor.finding import Deployment, Finding, fine, problem, warning
from pdp.errors import PDPError
from pdp.messages.queue import Standing
from pdp.messagesettings import queue_of

_CHECK: Final = "messages"
# A receiver may be away for this long.
_LATE_SECONDS: Final = 900.0
_MEND_DATABASE: Final = "see that the database answers, and that a server of this version has prepared its tables"


def messages(deployment: Deployment) -> Iterator[Finding]:
    """Report receivers that do not take their messages; the needs of a start cover their file."""
    settings = deployment.settings
    if not settings.tells:
        return
    if not settings.server.console_url:
        remedy = "set `server.console_url`, so that people find what a message is about"
        yield warning(_CHECK, "messages have no link", remedy)
    in_file = settings.sessions.store == "sqlite"
    if settings.sessions.store == "memory" or (in_file and not settings.messages_file.exists()):
        yield fine(_CHECK, "the receivers can be used")
        return
    try:
        with closing(queue_of(settings)) as queue:
            standings = queue.standings()
    except (PDPError, ImportError) as error:
        remedy = f"stop the server, move `{settings.messages_file}` away, and start it" if in_file else _MEND_DATABASE
        yield problem(_CHECK, str(error), remedy)
        return
    found = [one for standing in standings for one in _findings(standing, deployment.clock.now().wall_at)]
    yield from found or [fine(_CHECK, "the receivers take their messages")]


def _findings(one: Standing, now: float) -> Iterator[Finding]:
    if one.waiting and now - one.oldest_at > _LATE_SECONDS:
        found = f"`{one.receiver}` has not taken {one.waiting} messages for {now - one.oldest_at:.0f} seconds"
        said = f": {one.problem}" if one.problem else ""
        yield warning(_CHECK, found + said, f"mend the receiver; `pdp messages test {one.receiver}` tries it")
    if one.dead:
        remedy = f"`pdp messages list --dead` names them; `pdp messages retry {one.receiver}` sends them once more"
        yield warning(_CHECK, f"{one.dead} messages for `{one.receiver}` were given up", remedy)
