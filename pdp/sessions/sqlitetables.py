"""The tables of a session history in SQLite, and how those of earlier programs become as they are now.

PostgreSQL has the same tables, with the same columns: see `postgrestables.py`.
"""

from __future__ import annotations

from typing import Final

import apsw


def prepare_history(connection: apsw.Connection) -> None:
    """Create the tables of a history where they are missing, and bring older ones up to date."""
    for table, column, upgrade in _UPGRADES:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        if columns and column not in columns:
            connection.execute(upgrade)
    connection.execute(_HISTORY + _COUNTS + _VALUES + _KEYS + _ACCESS + _WRITES + OUTBOX_SCHEMA)


_HISTORY: Final = """
CREATE TABLE IF NOT EXISTS history (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  version INTEGER NOT NULL,
  key BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS reports (
  decision_id TEXT PRIMARY KEY,
  digest BLOB NOT NULL,
  reported_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS reports_by_age ON reports (reported_at);
CREATE TABLE IF NOT EXISTS budgets (
  session_id TEXT NOT NULL,
  budget TEXT NOT NULL,
  used INTEGER NOT NULL,
  window INTEGER NOT NULL,
  ends_at REAL NOT NULL,
  PRIMARY KEY (session_id, budget)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS budgets_by_end ON budgets (ends_at);
CREATE TABLE IF NOT EXISTS receipts (
  retry_digest BLOB PRIMARY KEY,
  charged_at REAL NOT NULL,
  tries INTEGER NOT NULL,
  boot_at REAL NOT NULL,
  boot_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS receipts_by_age ON receipts (charged_at);
"""
_COUNTS: Final = """
CREATE TABLE IF NOT EXISTS counting (only INTEGER PRIMARY KEY CHECK (only = 1), at REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS counts (
  session_id TEXT NOT NULL,
  name TEXT NOT NULL,
  made INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  ends_at REAL NOT NULL,
  PRIMARY KEY (session_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS counts_by_end ON counts (ends_at);
"""
_VALUES: Final = """
CREATE TABLE IF NOT EXISTS trees (
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  kept INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS held_values (
  tree INTEGER NOT NULL,
  digest BLOB NOT NULL,
  class INTEGER NOT NULL,
  number INTEGER NOT NULL,
  PRIMARY KEY (tree, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS held_values_by_age ON held_values (tree, class = 2, number);
"""
_KEYS: Final = """
CREATE TABLE IF NOT EXISTS call_token_keys (
  id TEXT PRIMARY KEY,
  content BLOB NOT NULL,
  published_at REAL NOT NULL,
  ends_at REAL NOT NULL,
  withdrawn INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""
_ACCESS: Final = """
CREATE TABLE IF NOT EXISTS access (
  id TEXT PRIMARY KEY,
  revision INTEGER NOT NULL,
  state TEXT NOT NULL,
  tenant TEXT NOT NULL,
  user TEXT NOT NULL,
  asked_by TEXT NOT NULL,
  session_id TEXT NOT NULL,
  asked_at REAL NOT NULL,
  wall_at REAL NOT NULL,
  boot_at REAL NOT NULL,
  boot_id TEXT NOT NULL,
  ends_at REAL NOT NULL,
  content TEXT NOT NULL,
  key BLOB,
  sealed BLOB,
  tree_id TEXT NOT NULL,
  expiry_noted INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS access_by_session ON access (session_id, state);
CREATE INDEX IF NOT EXISTS access_by_tree ON access (tree_id, state);
DROP INDEX IF EXISTS access_by_caller;
CREATE INDEX IF NOT EXISTS access_of_caller ON access (asked_by, state, wall_at);
CREATE INDEX IF NOT EXISTS access_by_state ON access (state, wall_at);
CREATE INDEX IF NOT EXISTS access_by_age ON access (asked_at, id);
CREATE INDEX IF NOT EXISTS access_by_revision ON access (revision);
CREATE INDEX IF NOT EXISTS access_by_end ON access (ends_at);
CREATE INDEX IF NOT EXISTS access_unexpired ON access (wall_at)
WHERE expiry_noted = 0 AND state IN ('open', 'approved');
CREATE INDEX IF NOT EXISTS access_sealed ON access (wall_at) WHERE key IS NOT NULL;
CREATE TABLE IF NOT EXISTS access_revision (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  revision INTEGER NOT NULL,
  missed_events INTEGER NOT NULL
) STRICT;
INSERT INTO access_revision VALUES (1, 0, 0) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS access_uses (
  retry_digest BLOB PRIMARY KEY,
  request_id TEXT NOT NULL,
  used_at REAL NOT NULL,
  tries INTEGER NOT NULL,
  decision_id TEXT NOT NULL,
  boot_at REAL NOT NULL,
  boot_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS access_uses_by_age ON access_uses (used_at);
"""
_WRITES: Final = """
CREATE TABLE IF NOT EXISTS writes (
  position INTEGER PRIMARY KEY,
  key BLOB NOT NULL UNIQUE,
  digest BLOB NOT NULL,
  ids TEXT NOT NULL,
  at REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS writes_by_age ON writes (at);
"""
OUTBOX_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS outbox (
  position INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  content TEXT NOT NULL
) STRICT;
"""
_ADD_TREES: Final = """
ALTER TABLE access ADD COLUMN tree_id TEXT NOT NULL DEFAULT '';
UPDATE access SET tree_id = coalesce(content ->> '$.ancestor_ids[#-1]', session_id) WHERE json_valid(content);
"""
_ADD_MISSED: Final = "ALTER TABLE access_revision ADD COLUMN missed_events INTEGER NOT NULL DEFAULT 0"
# For files of earlier programs: a table, what it may lack, and how it comes to have it.
_UPGRADES: Final = (
    # It is created anew: its rows are good for a minute.
    ("receipts", "boot_id", "DROP TABLE receipts"),
    ("access", "tree_id", _ADD_TREES),
    # Of requests that are stored already, no expiry is told.
    ("access", "expiry_noted", "ALTER TABLE access ADD COLUMN expiry_noted INTEGER NOT NULL DEFAULT 1"),
    ("access_revision", "missed_events", _ADD_MISSED),
    # The same.
    ("access_uses", "boot_id", "DROP TABLE access_uses"),
)
