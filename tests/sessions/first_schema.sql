-- A store as the first schema had it, with one active bundle.
CREATE TABLE meta (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  schema_version INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  forgotten_revision INTEGER NOT NULL,
  high_water_at REAL NOT NULL,
  bundle_version TEXT NOT NULL,
  bundle_activated_at REAL NOT NULL,
  bundle_activated_by TEXT NOT NULL
) STRICT;

CREATE TABLE sessions (
  id TEXT NOT NULL UNIQUE,
  handle_digest BLOB NOT NULL UNIQUE,
  state TEXT NOT NULL,
  tenant TEXT NOT NULL,
  user TEXT NOT NULL,
  agent TEXT NOT NULL,
  opened_by TEXT NOT NULL,
  requested_at REAL NOT NULL,
  epoch INTEGER NOT NULL,
  parent_id TEXT NOT NULL,
  depth INTEGER NOT NULL,
  session_json TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_by_age ON sessions (requested_at, id);
CREATE INDEX sessions_by_user ON sessions (user, requested_at, id);
CREATE INDEX sessions_by_agent ON sessions (agent, requested_at, id);
CREATE INDEX sessions_by_state ON sessions (state, requested_at, id);
CREATE INDEX sessions_by_parent ON sessions (parent_id);

CREATE TABLE scopes (id TEXT PRIMARY KEY, tools_json TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE changes (
  position INTEGER PRIMARY KEY,
  revision INTEGER NOT NULL,
  kind TEXT NOT NULL,
  id TEXT NOT NULL
) STRICT;

CREATE TABLE bundles (
  version TEXT PRIMARY KEY,
  content BLOB NOT NULL,
  activated_at REAL NOT NULL,
  activated_by TEXT NOT NULL,
  revision INTEGER NOT NULL
) STRICT;

INSERT INTO meta VALUES (1, 1, 1, 0, 2000.0, 'v1', 2000.0, 'admin');
INSERT INTO bundles (version, content, activated_at, activated_by, revision) VALUES ('v1', CAST('one' AS BLOB), 2000.0, 'admin', 1);
