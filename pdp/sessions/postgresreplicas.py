"""What the servers on one database of PostgreSQL ask of each other, in tables beside the sessions.

Each machine has one server here that says from time to time that it is there, and what it knows. It loads what others
are about to activate, may have the turn to follow its source of bundles, and has steps of the tables begin. Silence is
judged by the clock of the one who waits. When it is wrong about that, a server loads a bundle late, or two of them
follow their sources: the store refuses the one that is out of turn.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import uuid4

from pdp.errors import PDPError, one_line
from pdp.foundation.repeating import Repeater
from pdp.sessions.postgresbeginning import Beginning
from pdp.sessions.postgresconnection import PostgresConnection
from pdp.sessions.postgressteps import POSTGRES_SCHEMA_VERSION

_LOG = logging.getLogger("pdp")

_NAME: Final = "session store"
EVERY_SECONDS: Final = 0.5
# Six times as long: then a server is taken for stopped.
_SILENT_SECONDS: Final = 3.0
_PATIENCE_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.02
_MOST_CHARACTERS: Final = 300

_BEAT: Final = """
INSERT INTO bundle_servers (id, name, beats, knows) VALUES (?, ?, 1, ?)
ON CONFLICT (id) DO UPDATE SET beats = bundle_servers.beats + 1
"""
_TURN: Final = """
SELECT holder, turn, beats FROM source_turn LEFT JOIN bundle_servers ON bundle_servers.id = holder
"""
# INVARIANT: each turn has a name of its own, also after a database has lost its latest changes.
_TAKE: Final = """
INSERT INTO source_turn ("only", holder, turn) VALUES (1, ?, CAST(gen_random_uuid() AS text))
ON CONFLICT ("only") DO UPDATE SET holder = excluded.holder, turn = excluded.turn WHERE source_turn.turn = ?
RETURNING turn
"""
_LEAVE: Final = "DELETE FROM bundle_servers WHERE id = ?"
_GIVE_UP: Final = "UPDATE source_turn SET holder = '' WHERE holder = ?"
# What a server has asked that ended before it could take it back.
_TIDY: Final = """
WITH old AS (DELETE FROM preparing WHERE begun_at < clock_timestamp() - interval '1 minute')
DELETE FROM prepared WHERE asked NOT IN (SELECT id FROM preparing)
"""
_ASK: Final = "INSERT INTO preparing (id, server, content) VALUES (?, ?, ?)"
_TAKE_BACK: Final = "WITH gone AS (DELETE FROM preparing WHERE id = ?) DELETE FROM prepared WHERE asked = ?"
_SERVERS: Final = """
SELECT id, name, beats, problem FROM bundle_servers LEFT JOIN prepared ON asked = ? AND server = id
WHERE id != ? ORDER BY name, id
"""
_ASKED: Final = """
SELECT id FROM preparing WHERE server != ? AND id NOT IN (SELECT asked FROM prepared WHERE server = ?)
"""
_CONTENT: Final = "SELECT content FROM preparing WHERE id = ?"
_ANSWER: Final = "INSERT INTO prepared (asked, server, problem) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_REMOVE: Final = "DELETE FROM bundle_servers WHERE id = ? AND beats = ?"


class _Stillness:
    """How long things have stayed as they are, by a clock of one's own."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._seen: dict[str, tuple[object, float]] = {}

    def seconds(self, name: str, value: object) -> float:
        """Return for how many seconds a thing has been seen with this value, and no other."""
        now = self._monotonic()
        before, since = self._seen.get(name, (None, now))
        if before != value:
            since = now
        self._seen[name] = value, since
        return now - since


@dataclass(frozen=True, slots=True)
class _Server:
    """A server, and what it says of a bundle: empty when it has loaded it, None when it has not answered."""

    id: str
    name: str
    beats: int
    problem: str | None


class PostgresReplicas:
    """The `Replicas` of one process, with connections of its own. Safe for threads.

    `conninfo` and `namespace` are those of a `PostgresSessionStore` that was opened before. One process of a machine
    `listens`: it loads what others activate. If it `follows`, it also takes turns. `name` tells people which server it
    is, and `knows` others which schema it knows. With a `beginning`, steps that all know begin. The other times are in
    seconds of `monotonic`: how often it says that it is there, after which silence others are taken for stopped, and
    how long to wait for those that are not.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        namespace: str = "pdp",
        listens: bool = True,
        follows: bool = True,
        name: str = "",
        knows: int = POSTGRES_SCHEMA_VERSION,
        beginning: Beginning | None = None,
        every: float = EVERY_SECONDS,
        silent_seconds: float = _SILENT_SECONDS,
        patience: float = _PATIENCE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = partial(
            PostgresConnection, conninfo, namespace=f"{namespace}_sessions", name=_NAME, busy_seconds=1.0
        )
        self._id = str(uuid4())
        self._name = name or socket.gethostname()
        self._knows = knows
        self._beginning = beginning
        self._listens = listens
        self._follows = follows
        self._every = every
        self._silent_seconds = silent_seconds
        self._patience = patience
        self._monotonic = monotonic
        self._beating, self._loading, self._looking = self._connect(), self._connect(), self._connect()
        self._turns = _Stillness(monotonic)
        self._turn: str | None = None
        self._problem = ""
        self._closing = threading.Event()
        self._running = ExitStack()

    def begin(self, load: Callable[[bytes], None]) -> None:
        """Call `load` with each packed bundle that another server is about to activate, in a separate thread."""
        if self._listens:
            works: dict[str, Callable[[], object]] = {"replicas": self.beat, "prepare": partial(self.load_asked, load)}
            if self._beginning is not None:
                # Apart, because it can wait for leases.
                works["steps"] = partial(self._beginning.look, self._looking)
            for name, work in works.items():
                self._running.enter_context(Repeater(name, work, every=self._every))

    def prepare(self, content: bytes) -> tuple[str, ...]:
        """Have all other servers load a packed bundle; return one line for each that lacks it afterwards."""
        asked = str(uuid4())
        try:
            with closing(self._connect()) as connection, connection.answering():
                connection.execute(_TIDY)
                connection.execute(_ASK, (asked, self._id, content))
                try:
                    return self._answers(connection, asked)
                finally:
                    connection.execute(_TAKE_BACK, (asked, asked))
        except PDPError as error:
            return (f"the other servers could not be asked: {error}",)

    def turn(self) -> str | None:
        """Return the turn in which this server may follow its source now; None while another server has it."""
        return self._turn

    def close(self) -> None:
        """Stop waiting for the others, loading for them, and following."""
        self._closing.set()
        self._running.close()
        with suppress(PDPError), self._beating.answering():
            if self._listens:
                self._beating.execute(_LEAVE, (self._id,))
                self._beating.execute(_GIVE_UP, (self._id,))
        self._turn, self._listens = None, False
        self._beating.close()
        self._loading.close()
        self._looking.close()

    def beat(self) -> None:
        """Say that this server is there, and look whose turn it is; never raises."""
        try:
            with self._beating.answering():
                self._beating.execute(_BEAT, (self._id, self._name, self._knows))
                if self._follows:
                    self._note_turn(self._sought_turn())
        except PDPError as error:
            self._note_problem(str(error))
        else:
            self._note_problem("")

    def load_asked(self, load: Callable[[bytes], None]) -> None:
        """Load what other servers have asked for, and say what came of it; never raises."""
        with suppress(PDPError), self._loading.answering():
            for (asked,) in self._loading.execute(_ASKED, (self._id, self._id)).fetchall():
                content = self._loading.execute(_CONTENT, (asked,)).get
                if content is not None:
                    self._loading.execute(_ANSWER, (asked, self._id, _tried(load, bytes(content))))

    def _answers(self, connection: PostgresConnection, asked: str) -> tuple[str, ...]:
        """Wait for the servers that are there now. One that joins later finds what is asked, or what is active."""
        stillness, ends_at = _Stillness(self._monotonic), self._monotonic() + self._patience
        first = {one.id for one in self._servers(connection, asked)}
        while True:
            lacking = [one for one in self._servers(connection, asked) if one.id in first and one.problem != ""]
            open_ones = [one for one in lacking if one.problem is None]
            still = [one for one in open_ones if stillness.seconds(one.id, one.beats) >= self._silent_seconds]
            over = len(still) == len(open_ones) or self._monotonic() >= ends_at
            if over or self._closing.wait(_PAUSE_SECONDS):
                self._remove(connection, still)
                return tuple(f"`{one.name}`: {one.problem or 'no answer'}" for one in lacking)

    def _servers(self, connection: PostgresConnection, asked: str) -> list[_Server]:
        return [_Server(*row) for row in connection.execute(_SERVERS, (asked, self._id))]

    def _remove(self, connection: PostgresConnection, still: Iterable[_Server]) -> None:
        """Remove servers that were silent; one that is only slow comes back with its next sign."""
        for one in still:
            connection.execute(_REMOVE, (one.id, one.beats))

    def _sought_turn(self) -> str | None:
        holder, turn, beats = self._beating.execute(_TURN).get or ("", "", None)
        if holder == self._id:
            return str(turn)
        silent = self._turns.seconds("turn", (turn, beats)) >= self._silent_seconds
        # None when yet another server was faster.
        return self._beating.execute(_TAKE, (self._id, turn)).get if silent or not holder else None

    def _note_turn(self, turn: str | None) -> None:
        if turn is not None and self._turn is None:
            _LOG.info("this server follows its source of bundles, for all servers on the database")
        elif turn is None and self._turn is not None:
            _LOG.warning("another server follows its source of bundles now")
        self._turn = turn

    def _note_problem(self, problem: str) -> None:
        if problem and not self._problem:
            _LOG.error("this server can neither follow its source of bundles nor load for others: %s", problem)
        elif self._problem and not problem:
            _LOG.warning("this server can follow its source of bundles and load for others again")
        self._problem = problem


def _tried(load: Callable[[bytes], None], content: bytes) -> str:
    """Load a bundle; return why not, or nothing."""
    try:
        load(content)
    except PDPError as error:
        return one_line(str(error))[:_MOST_CHARACTERS] or "not loaded"
    return ""
