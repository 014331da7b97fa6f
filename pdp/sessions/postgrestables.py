"""The tables of stores and histories in PostgreSQL, and how those of earlier programs become as they are now.

They are those of SQLite, with the same columns, and those of servers that share a database (`postgreslease.py`). Texts
compare by their bytes, as in SQLite.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from pdp.errors import StoreUnavailableError
from pdp.sessions.database import require_known_schema
from pdp.sessions.history import KEY_BYTES
from pdp.sessions.moving import META, MOVING, Mark
from pdp.sessions.movingrows import read_mark
from pdp.sessions.postgresconnection import PostgresConnection
from pdp.sessions.postgressteps import BASE_VERSION, FIRST_STEPS, STEPS, STEPS_TABLE, Step, latest, prepare
from pdp.sessions.sql import required

HISTORY_VERSION: Final = 1

# Servers that start together wait for each other here; nothing else rests on this lock.
BEGIN: Final = "BEGIN; SELECT pg_advisory_xact_lock(7091386)"


def prepare_sessions(connection: PostgresConnection, namespace: str, steps: Sequence[Step] = STEPS) -> bool:
    """Create the tables of a session store where they are missing, and take the `steps` that older ones lack.

    Return whether a version is needed that has not begun: programs that know less may not have noticed yet. Raise
    `StoreUnavailableError` when a program must know more than these steps.
    """
    with connection.transaction(BEGIN):
        return write_sessions(connection, namespace, steps)


def prepare_history(connection: PostgresConnection, namespace: str) -> int:
    """Create the tables of a session history where they are missing; return their version."""
    with connection.transaction(BEGIN):
        return write_history(connection, namespace)


def write_sessions(connection: PostgresConnection, namespace: str, steps: Sequence[Step] = STEPS) -> bool:
    """Do as `prepare_sessions` in a transaction of the caller."""
    known, new = latest(steps), missing(connection, namespace, META)
    if new:
        mark = mark_of(connection, namespace)
        if mark is not None:
            raise StoreUnavailableError(mark.refusal(connection.place))
        connection.execute(_SESSIONS)
        connection.execute(FIRST_META, (known,))
    version = int(required(connection.execute("SELECT schema_version FROM meta").get, "meta"))
    require_known_schema(version, known)
    if missing(connection, namespace, "replicas"):
        connection.execute(DEPLOYMENT)
        connection.execute(_REPLICAS)
    if missing(connection, namespace, "source_turn"):
        connection.execute(_BUNDLES_OF_REPLICAS)
    if missing(connection, namespace, "timelines"):
        connection.execute(_TIMELINES)
    if missing(connection, namespace, "steps"):
        present = BASE_VERSION if new else version
        connection.execute(STEPS_TABLE)
        connection.execute(FIRST_STEPS, (present, present))
    return prepare(connection, steps)


def write_history(connection: PostgresConnection, namespace: str) -> int:
    """Do as `prepare_history` in a transaction of the caller."""
    if missing(connection, namespace, "history"):
        connection.execute(_HISTORY)
        connection.execute("INSERT INTO history VALUES (1, ?, ?)", (HISTORY_VERSION, secrets.token_bytes(KEY_BYTES)))
    # Histories of earlier programs have none of these, and such programs go on beside them.
    connection.execute(_WRITES)
    if missing(connection, namespace, "slices"):
        connection.execute(_SLICES)
    return int(required(connection.execute("SELECT version FROM history").get, "history"))


def mark_of(connection: PostgresConnection, namespace: str) -> Mark | None:
    """Return what the store notes of a move; None without a note."""
    found = connection.execute("SELECT CAST(to_regclass(?) AS text)", (f"{namespace}.{MOVING}",)).get
    return None if found is None else read_mark(connection)


def missing(connection: PostgresConnection, namespace: str, table: str) -> bool:
    """Say whether there is no such table; create its namespace if that is missing too."""
    # Who may not create a namespace may use one that is there.
    if connection.execute("SELECT CAST(to_regnamespace(?) AS text)", (namespace,)).get is None:
        connection.execute(f"CREATE SCHEMA {namespace}")
    return connection.execute("SELECT CAST(to_regclass(?) AS text)", (f"{namespace}.{table}",)).get is None


_SESSIONS: Final = """
CREATE TABLE meta (
  "only" BIGINT PRIMARY KEY CHECK ("only" = 1),
  schema_version BIGINT NOT NULL,
  revision BIGINT NOT NULL,
  forgotten_revision BIGINT NOT NULL,
  high_water_at DOUBLE PRECISION NOT NULL,
  bundle_version TEXT COLLATE "C" NOT NULL,
  bundle_activated_at DOUBLE PRECISION NOT NULL,
  bundle_activated_by TEXT COLLATE "C" NOT NULL,
  bundle_reason TEXT COLLATE "C" NOT NULL,
  bundle_chosen BIGINT NOT NULL,
  bundle_number BIGINT NOT NULL,
  bundle_signed_by TEXT COLLATE "C" NOT NULL,
  highest_number BIGINT NOT NULL,
  bundle_counted TEXT COLLATE "C" NOT NULL,
  missed_events BIGINT NOT NULL
);
CREATE TABLE sessions (
  id TEXT COLLATE "C" NOT NULL UNIQUE,
  handle_digest BYTEA NOT NULL UNIQUE,
  state TEXT COLLATE "C" NOT NULL,
  tenant TEXT COLLATE "C" NOT NULL,
  "user" TEXT COLLATE "C" NOT NULL,
  agent TEXT COLLATE "C" NOT NULL,
  opened_by TEXT COLLATE "C" NOT NULL,
  requested_at DOUBLE PRECISION NOT NULL,
  epoch BIGINT NOT NULL,
  parent_id TEXT COLLATE "C" NOT NULL,
  depth BIGINT NOT NULL,
  session_json TEXT COLLATE "C" NOT NULL,
  scope_id TEXT COLLATE "C" NOT NULL,
  ends_at DOUBLE PRECISION NOT NULL,
  expiry_noted BIGINT NOT NULL
);
CREATE INDEX sessions_by_age ON sessions (requested_at, id);
CREATE INDEX sessions_by_state ON sessions (state, requested_at, id);
CREATE INDEX sessions_by_parent ON sessions (parent_id);
CREATE INDEX sessions_by_scope ON sessions (scope_id);
CREATE INDEX sessions_live ON sessions (opened_by, ends_at) WHERE state IN ('requested', 'active');
CREATE INDEX sessions_unexpired ON sessions (ends_at)
WHERE expiry_noted = 0 AND state IN ('requested', 'active');
CREATE INDEX sessions_of_user ON sessions (tenant, "user", requested_at, id);
CREATE INDEX sessions_of_agent ON sessions (tenant, agent, requested_at, id);
CREATE TABLE scopes (
  id TEXT COLLATE "C" PRIMARY KEY,
  tools_json TEXT COLLATE "C" NOT NULL
);
CREATE TABLE changes (
  position BIGINT PRIMARY KEY,
  revision BIGINT NOT NULL,
  kind TEXT COLLATE "C" NOT NULL,
  id TEXT COLLATE "C" NOT NULL
);
CREATE INDEX changes_by_revision ON changes (revision);
CREATE TABLE bundles (
  version TEXT COLLATE "C" PRIMARY KEY,
  content BYTEA NOT NULL,
  activated_at DOUBLE PRECISION NOT NULL,
  activated_by TEXT COLLATE "C" NOT NULL,
  revision BIGINT NOT NULL,
  reason TEXT COLLATE "C" NOT NULL,
  chosen BIGINT NOT NULL,
  number BIGINT NOT NULL,
  signed_by TEXT COLLATE "C" NOT NULL
);
CREATE TABLE past_bundles (
  version TEXT COLLATE "C" PRIMARY KEY,
  revision BIGINT NOT NULL
);
CREATE INDEX past_bundles_by_age ON past_bundles (revision);
CREATE TABLE cuts (
  tenant TEXT COLLATE "C" NOT NULL,
  "user" TEXT COLLATE "C" NOT NULL,
  agent TEXT COLLATE "C" NOT NULL,
  at DOUBLE PRECISION NOT NULL,
  by TEXT COLLATE "C" NOT NULL,
  reason TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (tenant, "user", agent)
);
CREATE TABLE outbox (
  position BIGINT PRIMARY KEY,
  id TEXT COLLATE "C" NOT NULL UNIQUE,
  content TEXT COLLATE "C" NOT NULL
);
CREATE TABLE writes (
  position BIGINT PRIMARY KEY,
  key BYTEA NOT NULL UNIQUE,
  digest BYTEA NOT NULL,
  ids TEXT COLLATE "C" NOT NULL,
  at DOUBLE PRECISION NOT NULL
);
CREATE INDEX writes_by_age ON writes (at);
CREATE TABLE freezes (
  tenant TEXT COLLATE "C" PRIMARY KEY,
  id TEXT COLLATE "C" NOT NULL,
  set_at DOUBLE PRECISION NOT NULL,
  set_by TEXT COLLATE "C" NOT NULL,
  reason TEXT COLLATE "C" NOT NULL,
  confirmed_at DOUBLE PRECISION NOT NULL,
  confirmed_by TEXT COLLATE "C" NOT NULL
);
CREATE TABLE labels (
  session_id TEXT COLLATE "C" PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
  times BIGINT NOT NULL,
  origins TEXT COLLATE "C" NOT NULL
);
"""
FIRST_META: Final = "INSERT INTO meta VALUES (1, ?, 0, 0, 0, '', 0, '', '', 0, 0, '', 0, '[]', 0)"
# Of servers that share a database: SQLite has none of them, and a move leaves them; it writes what is in `labels` into
# the sessions before, and what is in `slices` is used up in `budgets`. `confirmations` is empty after a crash of the
# database, which means that none has confirmed. The trigger keeps the tags of the latest thousand revisions, whichever
# program writes; its function has the search path of this connection.
REPLICA_TABLES: Final = frozenset(
    {
        *("deployment", "tags", "replicas", "confirmations", "labels", "timelines", "standing"),
        *("source_turn", "bundle_servers", "preparing", "prepared", "steps", "closers", "slices", "unrecorded"),
        # Those of the queue of messages, which a move brings to a file: see `messages/`.
        *("messages", "taken", "receivers", "message_turn"),
    }
)
TAGS_KEPT: Final = 1000
# What names the database, in each schema that must be told from that of another one.
DEPLOYMENT: Final = """
CREATE TABLE deployment (
  "only" BIGINT PRIMARY KEY CHECK ("only" = 1),
  id TEXT COLLATE "C" NOT NULL
);
INSERT INTO deployment VALUES (1, CAST(gen_random_uuid() AS text));
"""
_REPLICAS: Final = """
CREATE TABLE tags (
  revision BIGINT PRIMARY KEY,
  tag TEXT COLLATE "C" NOT NULL
);
INSERT INTO tags SELECT revision, CAST(gen_random_uuid() AS text) FROM meta;
CREATE TABLE replicas (
  id TEXT COLLATE "C" PRIMARY KEY,
  renewals BIGINT NOT NULL,
  lease_seconds DOUBLE PRECISION NOT NULL CHECK (lease_seconds > 0)
);
CREATE UNLOGGED TABLE confirmations (
  id TEXT COLLATE "C" PRIMARY KEY,
  revision BIGINT NOT NULL,
  tag TEXT COLLATE "C" NOT NULL
);
CREATE OR REPLACE FUNCTION tag_revision() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO tags VALUES (NEW.revision, CAST(gen_random_uuid() AS text))
  ON CONFLICT (revision) DO UPDATE SET tag = excluded.tag;
  DELETE FROM tags WHERE revision <= NEW.revision - 1000;
  RETURN NULL;
END
$$;
CREATE TRIGGER tag_revision AFTER INSERT OR UPDATE OF revision ON meta
FOR EACH ROW EXECUTE FUNCTION tag_revision();
"""
# See `postgresreplicas.py`. A crash empties those that are not logged: then nothing is asked, and nobody has answered.
_BUNDLES_OF_REPLICAS: Final = """
CREATE TABLE source_turn (
  "only" BIGINT PRIMARY KEY CHECK ("only" = 1),
  holder TEXT COLLATE "C" NOT NULL,
  turn TEXT COLLATE "C" NOT NULL
);
CREATE UNLOGGED TABLE bundle_servers (
  id TEXT COLLATE "C" PRIMARY KEY,
  name TEXT COLLATE "C" NOT NULL,
  beats BIGINT NOT NULL
);
CREATE UNLOGGED TABLE preparing (
  id TEXT COLLATE "C" PRIMARY KEY,
  server TEXT COLLATE "C" NOT NULL,
  content BYTEA NOT NULL,
  begun_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);
CREATE UNLOGGED TABLE prepared (
  asked TEXT COLLATE "C" NOT NULL,
  server TEXT COLLATE "C" NOT NULL,
  problem TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (asked, server)
);
"""
# Up to which timeline it is settled what its server has, and on which one all was revoked that was live: see
# `postgresfailover.py`. A database that has no note of it begins with the present one. The timeline of a server is in
# the name of a segment of its log; the last checkpoint can still say the one before.
_TIMELINES: Final = """
CREATE TABLE timelines (
  "only" BIGINT PRIMARY KEY CHECK ("only" = 1),
  settled TEXT COLLATE "C" NOT NULL,
  swept TEXT COLLATE "C" NOT NULL
);
INSERT INTO timelines SELECT 1, present, present
FROM substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS present;
CREATE VIEW standing AS
SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS timeline, settled, swept,
  current_setting('synchronous_standby_names') AS standbys
FROM timelines;
"""
_WRITES: Final = """
CREATE TABLE IF NOT EXISTS writes (
  position BIGINT PRIMARY KEY,
  key BYTEA NOT NULL UNIQUE,
  digest BYTEA NOT NULL,
  ids TEXT COLLATE "C" NOT NULL,
  at DOUBLE PRECISION NOT NULL
);
CREATE INDEX IF NOT EXISTS writes_by_age ON writes (at);
"""
# See `sqlslices.py`. `held` is what the slice had left when it was taken, beside what was spent at once.
_SLICES: Final = """
CREATE TABLE slices (
  id TEXT COLLATE "C" PRIMARY KEY,
  session_id TEXT COLLATE "C" NOT NULL,
  budget TEXT COLLATE "C" NOT NULL,
  "window" BIGINT NOT NULL,
  held BIGINT NOT NULL,
  ends_at DOUBLE PRECISION NOT NULL
);
CREATE INDEX slices_of_session ON slices (session_id, budget);
CREATE INDEX slices_by_end ON slices (ends_at);
"""
_HISTORY: Final = """
CREATE TABLE history (
  "only" BIGINT PRIMARY KEY CHECK ("only" = 1),
  version BIGINT NOT NULL,
  key BYTEA NOT NULL
);
CREATE TABLE reports (
  decision_id TEXT COLLATE "C" PRIMARY KEY,
  digest BYTEA NOT NULL,
  reported_at DOUBLE PRECISION NOT NULL
);
CREATE INDEX reports_by_age ON reports (reported_at);
CREATE TABLE budgets (
  session_id TEXT COLLATE "C" NOT NULL,
  budget TEXT COLLATE "C" NOT NULL,
  used BIGINT NOT NULL,
  "window" BIGINT NOT NULL,
  ends_at DOUBLE PRECISION NOT NULL,
  PRIMARY KEY (session_id, budget)
);
CREATE INDEX budgets_by_end ON budgets (ends_at);
CREATE TABLE receipts (
  retry_digest BYTEA PRIMARY KEY,
  charged_at DOUBLE PRECISION NOT NULL,
  tries BIGINT NOT NULL,
  boot_at DOUBLE PRECISION NOT NULL,
  boot_id TEXT COLLATE "C" NOT NULL
);
CREATE INDEX receipts_by_age ON receipts (charged_at);
CREATE TABLE counting (
  "only" BIGINT PRIMARY KEY CHECK ("only" = 1),
  at DOUBLE PRECISION NOT NULL
);
CREATE TABLE counts (
  session_id TEXT COLLATE "C" NOT NULL,
  name TEXT COLLATE "C" NOT NULL,
  made BIGINT NOT NULL,
  failed BIGINT NOT NULL,
  ends_at DOUBLE PRECISION NOT NULL,
  PRIMARY KEY (session_id, name)
);
CREATE INDEX counts_by_end ON counts (ends_at);
CREATE TABLE trees (
  number BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  id TEXT COLLATE "C" NOT NULL UNIQUE,
  kept BIGINT NOT NULL
);
CREATE TABLE held_values (
  tree BIGINT NOT NULL,
  digest BYTEA NOT NULL,
  class BIGINT NOT NULL,
  number BIGINT NOT NULL,
  PRIMARY KEY (tree, digest)
);
CREATE INDEX held_values_by_age ON held_values (tree, (class = 2), number);
CREATE TABLE call_token_keys (
  id TEXT COLLATE "C" PRIMARY KEY,
  content BYTEA NOT NULL,
  published_at DOUBLE PRECISION NOT NULL,
  ends_at DOUBLE PRECISION NOT NULL,
  withdrawn BIGINT NOT NULL
);
CREATE TABLE access (
  id TEXT COLLATE "C" PRIMARY KEY,
  revision BIGINT NOT NULL,
  state TEXT COLLATE "C" NOT NULL,
  tenant TEXT COLLATE "C" NOT NULL,
  "user" TEXT COLLATE "C" NOT NULL,
  asked_by TEXT COLLATE "C" NOT NULL,
  session_id TEXT COLLATE "C" NOT NULL,
  asked_at DOUBLE PRECISION NOT NULL,
  wall_at DOUBLE PRECISION NOT NULL,
  boot_at DOUBLE PRECISION NOT NULL,
  boot_id TEXT COLLATE "C" NOT NULL,
  ends_at DOUBLE PRECISION NOT NULL,
  content TEXT COLLATE "C" NOT NULL,
  key BYTEA,
  sealed BYTEA,
  tree_id TEXT COLLATE "C" NOT NULL,
  expiry_noted BIGINT NOT NULL
);
CREATE INDEX access_by_session ON access (session_id, state);
CREATE INDEX access_by_tree ON access (tree_id, state);
CREATE INDEX access_of_caller ON access (asked_by, state, wall_at);
CREATE INDEX access_by_state ON access (state, wall_at);
CREATE INDEX access_by_age ON access (asked_at, id);
CREATE INDEX access_by_revision ON access (revision);
CREATE INDEX access_by_end ON access (ends_at);
CREATE INDEX access_unexpired ON access (wall_at) WHERE expiry_noted = 0 AND state IN ('open', 'approved');
CREATE INDEX access_sealed ON access (wall_at) WHERE key IS NOT NULL;
CREATE TABLE access_revision (
  "only" BIGINT PRIMARY KEY CHECK ("only" = 1),
  revision BIGINT NOT NULL,
  missed_events BIGINT NOT NULL
);
CREATE TABLE access_uses (
  retry_digest BYTEA PRIMARY KEY,
  request_id TEXT COLLATE "C" NOT NULL,
  used_at DOUBLE PRECISION NOT NULL,
  tries BIGINT NOT NULL,
  decision_id TEXT COLLATE "C" NOT NULL,
  boot_at DOUBLE PRECISION NOT NULL,
  boot_id TEXT COLLATE "C" NOT NULL
);
CREATE INDEX access_uses_by_age ON access_uses (used_at);
CREATE TABLE outbox (
  position BIGINT PRIMARY KEY,
  id TEXT COLLATE "C" NOT NULL UNIQUE,
  content TEXT COLLATE "C" NOT NULL
);
INSERT INTO access_revision VALUES (1, 0, 0);
"""
