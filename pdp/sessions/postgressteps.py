"""The steps that bring the tables of a store in PostgreSQL from one version to the next, beside earlier servers.

Three numbers say how far a database is:

- `steps.there`: up to which step the tables are prepared. A program prepares what it knows when it starts.
- `meta.schema_version`: what a program must know. One that knows less is refused when it starts, and while it runs
  with the next revision, which each renewal of a lease shows.
- `steps.begun`: up to which step servers use what the steps bring. It follows `schema_version` when no server that
  knows less can answer any more, from memory either.

An additive step leaves `schema_version` as it is, so earlier servers go on. When all servers that are there know it,
one of them has it begin (`postgresbeginning.py`). That decides only who is refused: a server that was overlooked gives
no wrong answer. Any other step begins at once, and earlier servers no longer answer.

To add an additive step:

1. Append a `Step` to `STEPS`, and name its number in a constant. A released step is never edited. Its statements must
   also run where they have run before (`IF NOT EXISTS`), and hold no lock for long: they rewrite no table and build no
   index on one that grows.
2. Earlier programs go on reading and writing, and name each column. So nothing that they use is removed, renamed or
   constrained further, and a new column has a default that says what their rows mean.
3. What such programs could violate because they do not know it is used only while `begun(…)` is not below the number;
   ask in the transaction that uses it, because a database can go back to an older state. Until then, write as before.
   One of them that has stopped in the middle of a call can write one more row afterwards: that must stay harmless.
4. Tables of the history are created in `write_history`, where they are missing. It has no version of its own for this:
   a server has prepared both parts before it says what it knows.
5. SQLite has the same tables and columns, by a step of its own, or the table is in `REPLICA_TABLES`: a move leaves it,
   and writes what it holds elsewhere before.
6. If anything waits, say in `brings` what it is: `pdp doctor` tells people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pdp.sessions.sql import Statements, required

# The first schema that PostgreSQL had, and the one that new tables have before any step.
FIRST_VERSION: Final = 10
BASE_VERSION: Final = 12
# From this one on, servers say which one they know.
SAYING_VERSION: Final = 13
# From this one on, servers where changes can be lost say when they have changed anything.
CLOSERS_VERSION: Final = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What brings the tables of sessions from one version to the next.

    Servers that do not know an `additive` one go on beside it. `brings` says what waits until all servers know it;
    empty when nothing does.
    """

    statements: str
    additive: bool = False
    brings: str = ""


STEPS: Final[tuple[Step, ...]] = (
    # Tells a change whose answer was lost from one that was not made.
    Step(
        statements="""
        CREATE TABLE writes (
          position BIGINT PRIMARY KEY,
          key BYTEA NOT NULL UNIQUE,
          digest BYTEA NOT NULL,
          ids TEXT COLLATE "C" NOT NULL,
          at DOUBLE PRECISION NOT NULL
        );
        CREATE INDEX writes_by_age ON writes (at);
        """
    ),
    # Programs that do not know these rows must notice, also those that answer from memory.
    Step(
        statements="""
        CREATE TABLE labels (
          session_id TEXT COLLATE "C" PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
          times BIGINT NOT NULL,
          origins TEXT COLLATE "C" NOT NULL
        );
        """
    ),
    # Each server says what it knows. Earlier ones say nothing.
    Step(
        statements="ALTER TABLE bundle_servers ADD COLUMN IF NOT EXISTS knows BIGINT NOT NULL DEFAULT 12;",
        additive=True,
    ),
    # When each machine has last changed anything, on which timeline it has written again what it had closed, and what
    # its server had before that. A machine that does not write again has the row without an id.
    Step(
        statements="""
        CREATE TABLE IF NOT EXISTS closers (
          id TEXT COLLATE "C" PRIMARY KEY,
          changed_at DOUBLE PRECISION NOT NULL,
          timeline TEXT COLLATE "C" NOT NULL,
          found_revision BIGINT NOT NULL DEFAULT 0
        );
        """,
        additive=True,
        brings="`sessions.after_going_back: reassert`",
    ),
    # What the record of each process is to say of its changes, until it has it on its disk. Earlier programs keep
    # nothing here.
    Step(
        statements="""
        CREATE TABLE IF NOT EXISTS unrecorded (
          id TEXT COLLATE "C" PRIMARY KEY,
          chain TEXT COLLATE "C" NOT NULL,
          events TEXT COLLATE "C" NOT NULL
        );
        """,
        additive=True,
    ),
    # The queue of messages, as `messages/sqlitequeue.py` has it in a file, and in whose turn it is sent. Programs of
    # before go on with a file of their own each, without a turn: what two tell at once comes twice.
    Step(
        statements="""
        CREATE TABLE IF NOT EXISTS messages (
          position BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
          id TEXT COLLATE "C" NOT NULL UNIQUE,
          receiver TEXT COLLATE "C" NOT NULL,
          event TEXT COLLATE "C" NOT NULL,
          dead BIGINT NOT NULL DEFAULT 0,
          created_at DOUBLE PRECISION NOT NULL,
          next_at DOUBLE PRECISION NOT NULL DEFAULT 0,
          attempts BIGINT NOT NULL DEFAULT 0,
          problem TEXT COLLATE "C" NOT NULL DEFAULT ''
        );
        CREATE INDEX IF NOT EXISTS messages_of_receiver ON messages (receiver, dead, position);
        CREATE TABLE IF NOT EXISTS taken (event_id TEXT COLLATE "C" PRIMARY KEY);
        CREATE TABLE IF NOT EXISTS receivers (
          name TEXT COLLATE "C" PRIMARY KEY,
          sent BIGINT NOT NULL DEFAULT 0,
          sent_at DOUBLE PRECISION NOT NULL DEFAULT 0,
          failed BIGINT NOT NULL DEFAULT 0,
          problem TEXT COLLATE "C" NOT NULL DEFAULT ''
        );
        CREATE TABLE IF NOT EXISTS message_turn (
          "only" BIGINT PRIMARY KEY CHECK ("only" = 1),
          turn TEXT COLLATE "C" NOT NULL,
          ends_at TIMESTAMPTZ NOT NULL
        );
        """,
        additive=True,
    ),
)
# It is counted apart from that of SQLite.
POSTGRES_SCHEMA_VERSION: Final = FIRST_VERSION + len(STEPS)

STEPS_TABLE: Final = """
CREATE TABLE steps (
  "only" BIGINT PRIMARY KEY CHECK ("only" = 1),
  there BIGINT NOT NULL,
  begun BIGINT NOT NULL
);
"""
FIRST_STEPS: Final = "INSERT INTO steps VALUES (1, ?, ?)"
# Who waits for a lock holds up those who come after.
_IMPATIENTLY: Final = "SET LOCAL lock_timeout = '1s'"
_RAISE: Final = "UPDATE meta SET schema_version = ?, revision = revision + 1 WHERE schema_version < ?"


def latest(steps: Sequence[Step]) -> int:
    """Return the version of the tables after some steps."""
    return FIRST_VERSION + len(steps)


def needed(steps: Sequence[Step]) -> int:
    """Return what a program must know at least where these steps are prepared."""
    return max((number for number, step in numbered(steps) if not step.additive), default=FIRST_VERSION)


def numbered(steps: Sequence[Step]) -> Sequence[tuple[int, Step]]:
    """Return the steps, each with the version that it brings the tables to."""
    return list(enumerate(steps, FIRST_VERSION + 1))


def prepare(connection: Statements, steps: Sequence[Step]) -> bool:
    """Prepare what is missing, in a transaction of the caller.

    Return whether a version is needed that has not begun: programs that know less may not have noticed yet.
    """
    there = int(required(connection.execute("SELECT there FROM steps").get, "steps"))
    lacking = [step for number, step in numbered(steps) if number > there]
    if lacking:
        connection.execute(_IMPATIENTLY)
        for step in lacking:
            connection.execute(step.statements)
        connection.execute("UPDATE steps SET there = ?", (latest(steps),))
    need(connection, needed(steps))
    return bool(required(connection.execute("SELECT schema_version > begun FROM meta, steps").get, "meta", "steps"))


def need(connection: Statements, version: int) -> None:
    """Have programs that know less than a version refused, by a revision that shows it to them."""
    connection.execute(_RAISE, (version, version))


def begin(connection: Statements, version: int) -> None:
    """Note that what the steps up to a version bring is used: no server that knows less can answer."""
    connection.execute("UPDATE steps SET begun = greatest(begun, ?)", (version,))


def begun(connection: Statements, namespace: str) -> int:
    """Return the step up to which servers use what steps bring; `namespace` is that of the sessions."""
    found = connection.execute(f"SELECT begun FROM {namespace}.steps").get  # noqa: S608 - a name of our own
    return int(required(found, "steps"))
