"""Have steps of the tables begin, once all servers on a database of PostgreSQL know them.

Servers say what they know while they say that they are there. One that says nothing for a minute no longer counts: it
has ended, or is refused when it is back. To begin too early makes no answer wrong, but has servers refused that could
have gone on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from pdp.errors import PDPError
from pdp.sessions.postgresconnection import PostgresConnection
from pdp.sessions.postgressteps import POSTGRES_SCHEMA_VERSION
from pdp.sessions.sql import required

_LOG = logging.getLogger("pdp")

# A server that is stopped for an upgrade, or crashes meanwhile, is back before.
QUIET_SECONDS: Final = 60.0

SERVERS: Final = "SELECT id, name, beats, knows FROM bundle_servers ORDER BY name, id"


@dataclass(frozen=True, slots=True)
class ServerRow:
    """What a server says of itself: how often it has said that it is there, and which schema it knows."""

    id: str
    name: str
    beats: int
    knows: int


class Beginning:
    """Looks for one server what the others know, and calls `begin` with a version that all know.

    It has looked for `quiet_seconds` of `monotonic` before. Its user calls `look` from one thread. `knows` is the
    version of this program.
    """

    def __init__(
        self,
        begin: Callable[[int], None],
        *,
        knows: int = POSTGRES_SCHEMA_VERSION,
        quiet_seconds: float = QUIET_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._begin = begin
        self._knows = knows
        self._quiet_seconds = quiet_seconds
        self._monotonic = monotonic
        self._since = monotonic()
        # What each server has said last, and when that was seen first.
        self._heard: dict[str, tuple[ServerRow, float]] = {}
        self._waited_for: Collection[str] = ()
        self._problem = ""

    def look(self, connection: PostgresConnection) -> None:
        """Have what all servers know begin, if it has not; never raises."""
        try:
            with connection.answering():
                begun = int(required(connection.execute("SELECT begun FROM steps").get, "steps"))
                if begun >= self._knows:
                    return
                rows = [ServerRow(*row) for row in connection.execute(SERVERS)]
            version = self._known_by_all(rows)
            if version > begun:
                self._begin(version)
                _LOG.warning("all servers know schema `%s` of the session store now: others are refused", version)
        except PDPError as error:
            self._note_problem(str(error))
        else:
            self._note_problem("")

    def _known_by_all(self, rows: Collection[ServerRow]) -> int:
        """Return the version that all servers know, by what was heard until now; 0 when that is not long enough."""
        now, present = self._monotonic(), {row.id for row in rows}
        for row in rows:
            before, at = self._heard.get(row.id, (None, now))
            self._heard[row.id] = row, (at if before == row else now)
        recent = [row for row, at in self._heard.values() if now - at < self._quiet_seconds]
        self._heard = {one: heard for one, heard in self._heard.items() if one in present or heard[0] in recent}
        others = [row for row in recent if row.knows < self._knows]
        self._note_waiting(sorted({row.name for row in others}))
        long_enough = now - self._since >= self._quiet_seconds
        return min((row.knows for row in others), default=self._knows) if long_enough else 0

    def _note_waiting(self, names: Collection[str]) -> None:
        if names and names != self._waited_for:
            named = ", ".join(f"`{name}`" for name in names)
            _LOG.info("schema `%s` of the session store waits for servers that do not know it: %s", self._knows, named)
        self._waited_for = names

    def _note_problem(self, problem: str) -> None:
        if problem and not self._problem:
            _LOG.error("this server cannot have schema `%s` of the session store begin: %s", self._knows, problem)
        self._problem = problem
