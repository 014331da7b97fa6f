"""The tables of the broker's store, and what their rows stand for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any, Final

from pdp.broker.words import App, ClientAuth, Connection, Consenting, Exchange, Kek, LoginSource, Mode, TokenSource

# That of the schema below.
VERSION: Final = 1
# INVARIANT: a key that a secret names cannot be deleted, and a secret cannot name one that is deleted.
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (
  only INTEGER PRIMARY KEY CHECK (only = 1), schema_version INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO meta VALUES (1, 1);

CREATE TABLE IF NOT EXISTS connections (
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  compartment TEXT NOT NULL,
  kind TEXT NOT NULL,
  owner TEXT NOT NULL,
  upstream TEXT NOT NULL,
  scopes_json TEXT NOT NULL,
  modes_json TEXT NOT NULL,
  header TEXT NOT NULL,
  scheme TEXT NOT NULL,
  created_at REAL NOT NULL,
  UNIQUE (tenant, compartment, owner, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS sources (
  connection_id TEXT PRIMARY KEY REFERENCES connections (id) ON DELETE CASCADE,
  endpoint TEXT NOT NULL,
  client_id TEXT NOT NULL,
  auth TEXT NOT NULL,
  resource TEXT NOT NULL,
  private INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS consenting (
  connection_id TEXT PRIMARY KEY REFERENCES sources (connection_id) ON DELETE CASCADE,
  issuer TEXT NOT NULL,
  "authorization" TEXT NOT NULL,
  account TEXT NOT NULL,
  grace_seconds REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS profiles (
  connection_id TEXT PRIMARY KEY REFERENCES sources (connection_id) ON DELETE CASCADE,
  revocation TEXT NOT NULL,
  introspection TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS exchanges (
  connection_id TEXT PRIMARY KEY REFERENCES sources (connection_id) ON DELETE CASCADE,
  for_audience TEXT NOT NULL,
  for_resource TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS assertions (
  connection_id TEXT PRIMARY KEY REFERENCES sources (connection_id) ON DELETE CASCADE,
  signed_for TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS apps (
  connection_id TEXT PRIMARY KEY REFERENCES sources (connection_id) ON DELETE CASCADE,
  repositories_json TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS outliving (
  connection_id TEXT PRIMARY KEY REFERENCES sources (connection_id) ON DELETE CASCADE,
  outlives INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS logins (
  connection_id TEXT PRIMARY KEY REFERENCES connections (id) ON DELETE CASCADE,
  database TEXT NOT NULL,
  role TEXT NOT NULL,
  seconds INTEGER NOT NULL,
  sessions INTEGER NOT NULL,
  tls_roots TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS keks (
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  compartment TEXT NOT NULL,
  generation INTEGER NOT NULL,
  created_at REAL NOT NULL,
  UNIQUE (tenant, compartment, generation)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS secrets (
  connection_id TEXT PRIMARY KEY REFERENCES connections (id) ON DELETE CASCADE,
  version INTEGER NOT NULL,
  kek_id TEXT NOT NULL REFERENCES keks (id),
  wrapped_key BLOB NOT NULL,
  sealed BLOB NOT NULL,
  stored_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS secrets_by_kek ON secrets (kek_id);

CREATE TABLE IF NOT EXISTS checkouts (
  id TEXT PRIMARY KEY,
  connection_id TEXT NOT NULL REFERENCES connections (id),
  kind TEXT NOT NULL,
  token_id TEXT NOT NULL,
  decision_id TEXT NOT NULL,
  session_id TEXT NOT NULL,
  user TEXT NOT NULL,
  agent TEXT NOT NULL,
  action TEXT NOT NULL,
  scopes_json TEXT NOT NULL,
  begun_at REAL NOT NULL,
  ends_at REAL NOT NULL,
  latest_at REAL NOT NULL,
  state TEXT NOT NULL,
  next_at REAL NOT NULL,
  tries INTEGER NOT NULL,
  problem TEXT NOT NULL,
  kek_id TEXT REFERENCES keks (id),
  wrapped_key BLOB,
  sealed BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS checkouts_by_next ON checkouts (next_at);
CREATE INDEX IF NOT EXISTS checkouts_by_connection ON checkouts (connection_id);
CREATE INDEX IF NOT EXISTS checkouts_by_user ON checkouts (user);

CREATE TABLE IF NOT EXISTS checkout_boots (
  checkout_id TEXT PRIMARY KEY REFERENCES checkouts (id) ON DELETE CASCADE,
  boot_id TEXT NOT NULL,
  boot_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS checkout_sessions (
  session_id TEXT NOT NULL,
  checkout_id TEXT NOT NULL REFERENCES checkouts (id) ON DELETE CASCADE,
  PRIMARY KEY (session_id, checkout_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS checkout_sessions_by_checkout ON checkout_sessions (checkout_id);

CREATE TABLE IF NOT EXISTS looks (
  connection_id TEXT PRIMARY KEY REFERENCES connections (id) ON DELETE CASCADE,
  at REAL NOT NULL,
  orphans INTEGER NOT NULL,
  problem TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""
CONNECTION: Final = """
SELECT id, tenant, compartment, kind, owner, upstream, scopes_json, modes_json, header, scheme, created_at,
  coalesce(version, 0), endpoint, client_id, auth, resource, private,
  issuer, "authorization", account, grace_seconds, revocation, introspection, for_audience, for_resource,
  signed_for, repositories_json, outlives, database, role, seconds, sessions, tls_roots
FROM connections LEFT JOIN secrets ON secrets.connection_id = id LEFT JOIN sources ON sources.connection_id = id
  LEFT JOIN consenting ON consenting.connection_id = id LEFT JOIN profiles ON profiles.connection_id = id
  LEFT JOIN exchanges ON exchanges.connection_id = id LEFT JOIN assertions ON assertions.connection_id = id
  LEFT JOIN apps ON apps.connection_id = id LEFT JOIN outliving ON outliving.connection_id = id
  LEFT JOIN logins ON logins.connection_id = id
"""
# How many columns of it are at the end, about logins; how many of a source are about people.
_OF_LOGINS, _OF_PEOPLE = 5, 4


def connection_of(*row: Any) -> Connection:  # noqa: ANN401 - what the engine returns
    """Return the connection of a row that `CONNECTION` selects."""
    id_, tenant, compartment, kind, owner, upstream, scopes, modes, header, scheme, created_at, version, *rest = row
    return Connection(
        id=id_,
        tenant=tenant,
        compartment=compartment,
        kind=kind,
        owner=owner,
        upstream=upstream,
        scopes=tuple(json.loads(scopes)),
        modes=tuple(map(Mode, json.loads(modes))),
        header=header,
        scheme=scheme,
        source=_source(*rest[:-_OF_LOGINS]),
        logins=_logins(*rest[-_OF_LOGINS:]),
        version=version,
        created_at=created_at,
    )


def rows_of(one: Connection) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Yield the other rows of a connection, each with its table: of its source, and of its logins."""
    if source := one.source:
        row = (source.endpoint, source.client_id, source.auth.value, source.resource, source.private)
        yield "sources", (one.id, *row)
        if source.consenting is not None:
            yield "consenting", (one.id, *astuple(source.consenting))
        if source.revocation or source.introspection:
            yield "profiles", (one.id, source.revocation, source.introspection)
        if source.exchange is not None:
            yield "exchanges", (one.id, *astuple(source.exchange))
        if source.audience:
            yield "assertions", (one.id, source.audience)
        if source.app is not None:
            yield "apps", (one.id, json.dumps(source.app.repositories))
        if source.outlives:
            yield "outliving", (one.id, source.outlives)
    if one.logins is not None:
        yield "logins", (one.id, *astuple(one.logins))


def _source(
    endpoint: str | None,
    client_id: str,
    auth: str,
    resource: str,
    private: int,
    *rest: Any,  # noqa: ANN401 - as above
) -> TokenSource | None:
    if endpoint is None:
        return None
    revocation, introspection, for_audience, for_resource, signed_for, repositories, outlives = rest[_OF_PEOPLE:]
    return TokenSource(
        endpoint=endpoint,
        client_id=client_id,
        auth=ClientAuth(auth),
        audience=signed_for or "",
        resource=resource,
        private=bool(private),
        consenting=_consenting(*rest[:_OF_PEOPLE]),
        exchange=None if for_audience is None else Exchange(audience=for_audience, resource=for_resource),
        app=None if repositories is None else App(repositories=tuple(json.loads(repositories))),
        outlives=bool(outlives),
        revocation=revocation or "",
        introspection=introspection or "",
    )


def _logins(database: str | None, role: str, seconds: int, sessions: int, tls_roots: str) -> LoginSource | None:
    if database is None:
        return None
    return LoginSource(database=database, role=role, seconds=seconds, sessions=sessions, tls_roots=tls_roots)


def _consenting(issuer: str | None, authorization: str, account: str, grace_seconds: float) -> Consenting | None:
    if issuer is None:
        return None
    return Consenting(issuer=issuer, authorization=authorization, account=account, grace_seconds=grace_seconds)


def row_of(kek: Kek) -> tuple[str | int | float, ...]:
    """Return the row of a key."""
    return kek.id, kek.tenant, kek.compartment, kek.generation, kek.created_at


def kek_of(*row: Any) -> Kek:  # noqa: ANN401 - what the engine returns
    """Return the key of a row."""
    id_, tenant, compartment, generation, created_at = row
    return Kek(id=id_, tenant=tenant, compartment=compartment, generation=generation, created_at=created_at)
