"""The tables of the broker's store, and what their rows stand for."""

from __future__ import annotations

import json
from dataclasses import astuple
from typing import Any, Final

from pdp.broker.words import ClientAuth, Connection, Consenting, Kek, Mode, TokenSource

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
  revocation TEXT NOT NULL,
  introspection TEXT NOT NULL,
  account TEXT NOT NULL,
  grace_seconds REAL NOT NULL
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
"""
CONNECTION: Final = """
SELECT id, tenant, compartment, kind, owner, upstream, scopes_json, modes_json, header, scheme, created_at,
  coalesce(version, 0), endpoint, client_id, auth, resource, private,
  issuer, "authorization", revocation, introspection, account, grace_seconds
FROM connections LEFT JOIN secrets ON secrets.connection_id = id LEFT JOIN sources ON sources.connection_id = id
  LEFT JOIN consenting ON consenting.connection_id = id
"""


def connection_of(*row: Any) -> Connection:  # noqa: ANN401 - what the engine returns
    """Return the connection of a row that `CONNECTION` selects."""
    id_, tenant, compartment, kind, owner, upstream, scopes, modes, header, scheme, created_at, version, *source = row
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
        source=_source(*source),
        version=version,
        created_at=created_at,
    )


def rows_of(connection_id: str, source: TokenSource) -> tuple[tuple[object, ...], tuple[object, ...] | None]:
    """Return the rows of a connection's source: that of its token endpoint, and that of where people consent."""
    consenting = None if source.consenting is None else (connection_id, *astuple(source.consenting))
    row = (source.endpoint, source.client_id, source.auth.value, source.resource, source.private)
    return (connection_id, *row), consenting


def _source(
    endpoint: str | None,
    client_id: str,
    auth: str,
    resource: str,
    private: int,
    *consenting: Any,  # noqa: ANN401 - as above
) -> TokenSource | None:
    if endpoint is None:
        return None
    return TokenSource(
        endpoint=endpoint,
        client_id=client_id,
        auth=ClientAuth(auth),
        resource=resource,
        private=bool(private),
        consenting=_consenting(*consenting),
    )


def _consenting(
    issuer: str | None, authorization: str, revocation: str, introspection: str, account: str, grace_seconds: float
) -> Consenting | None:
    if issuer is None:
        return None
    return Consenting(
        issuer=issuer,
        authorization=authorization,
        revocation=revocation,
        introspection=introspection,
        account=account,
        grace_seconds=grace_seconds,
    )


def row_of(kek: Kek) -> tuple[str | int | float, ...]:
    """Return the row of a key."""
    return kek.id, kek.tenant, kek.compartment, kek.generation, kek.created_at


def kek_of(*row: Any) -> Kek:  # noqa: ANN401 - what the engine returns
    """Return the key of a row."""
    id_, tenant, compartment, generation, created_at = row
    return Kek(id=id_, tenant=tenant, compartment=compartment, generation=generation, created_at=created_at)
