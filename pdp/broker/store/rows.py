"""The store of the broker: connections, their sealed secrets, and the keys under which these are sealed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import apsw

from pdp.broker.sealing.envelope import Sealed
from pdp.broker.store.tables import CONNECTION, SCHEMA, VERSION, connection_of, kek_of, row_of, rows_of
from pdp.broker.words import (
    OTHERS_USED,
    CheckedOutError,
    Connection,
    ConnectionExistsError,
    Kek,
    KeyInUseError,
    UnknownConnectionError,
    UnknownKeyError,
)
from pdp.errors import ConflictError, StoreUnavailableError
from pdp.foundation.database import Database

_PUT: Final = """
INSERT INTO secrets VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET version = excluded.version,
  kek_id = excluded.kek_id, wrapped_key = excluded.wrapped_key, sealed = excluded.sealed, stored_at = excluded.stored_at
WHERE excluded.version > version
"""
_FORMER: Final = "SELECT id FROM connections WHERE tenant = ? AND compartment = ? AND owner = ? AND kind = ?"
_INSERT: Final = {
    "sources": "INSERT INTO sources VALUES (?, ?, ?, ?, ?, ?)",
    "consenting": "INSERT INTO consenting VALUES (?, ?, ?, ?, ?)",
    "profiles": "INSERT INTO profiles VALUES (?, ?, ?)",
    "apps": "INSERT INTO apps VALUES (?, ?)",
    "outliving": "INSERT INTO outliving VALUES (?, ?)",
    "assertions": "INSERT INTO assertions VALUES (?, ?)",
    "exchanges": "INSERT INTO exchanges VALUES (?, ?, ?)",
    "logins": "INSERT INTO logins VALUES (?, ?, ?, ?, ?, ?)",
}
_OUT: Final = {
    "connection": "SELECT count(*) FROM checkouts WHERE connection_id = ?",
    "tenant": "SELECT count(*) FROM checkouts JOIN connections ON connections.id = connection_id WHERE tenant = ?",
}
_REWRAP: Final = """
UPDATE secrets SET kek_id = ?, wrapped_key = ? WHERE connection_id = ? AND version = ? AND kek_id = ?
"""
_REWRAP_KEPT: Final = "UPDATE checkouts SET kek_id = ?, wrapped_key = ? WHERE id = ? AND kek_id = ?"


class Stored(NamedTuple):
    """The sealed secret of a connection, as the store has it."""

    version: int
    sealed: Sealed
    stored_at: float


class Kept(NamedTuple):
    """A sealed credential that is out, as the store keeps it to end it."""

    checkout_id: str
    connection_id: str
    sealed: Sealed


class Gone(NamedTuple):
    """What was deleted with a tenant, by id."""

    connection_ids: tuple[str, ...]
    kek_ids: tuple[str, ...]


class BrokerStore:
    """The file of one broker. Safe for threads and for several processes.

    Methods raise `StoreUnavailableError` when the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, SCHEMA, name="broker's store", danger=OTHERS_USED)
        with self._database.reading() as connection:
            version = connection.execute("SELECT schema_version FROM meta").get
        if version != VERSION:
            self.close()
            raise StoreUnavailableError(f"the broker's store has schema `{version}`: upgrade the program")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def add(self, one: Connection) -> None:
        """Add a connection. Raise `ConnectionExistsError` for a second one of its id, or of its owner and kind."""
        with self._database.writing() as connection:
            _insert(connection, one)

    def replace(self, one: Connection) -> str:
        """Add a connection in the place of another one of its owner and kind. Return the id of that, or empty.

        Raise `CheckedOutError` while credentials of that are out.
        """
        key = (one.tenant, one.compartment, one.owner, one.kind)
        with self._database.writing() as connection:
            if former := connection.execute(_FORMER, key).get:
                _require_nothing_out(connection, "connection", former)
                connection.execute("DELETE FROM connections WHERE id = ?", (former,))
            _insert(connection, one)
        return former or ""

    def remove(self, connection_id: str) -> None:
        """Delete a connection and its secret. Raise `UnknownConnectionError`, and `CheckedOutError`."""
        with self._database.writing() as connection:
            _require_nothing_out(connection, "connection", connection_id)
            connection.execute("DELETE FROM connections WHERE id = ?", (connection_id,))
            if not connection.changes():
                raise _unknown(connection_id)

    def connection(self, connection_id: str) -> Connection:
        """Return a connection. Raise `UnknownConnectionError`."""
        with self._database.reading() as connection:
            row = connection.execute(f"{CONNECTION} WHERE id = ?", (connection_id,)).fetchone()
        if row is None:
            raise _unknown(connection_id)
        return connection_of(*row)

    def connections(self, *, tenant: str | None = None) -> tuple[Connection, ...]:
        """Return all connections, or those of a tenant, by id."""
        where = "WHERE ?1 IS NULL OR tenant = ?1 ORDER BY id"
        with self._database.reading() as connection:
            return tuple(connection_of(*row) for row in connection.execute(f"{CONNECTION} {where}", (tenant,)))

    def of_kind(self, tenant: str, compartment: str, kind: str, user: str) -> Connection | None:
        """Return a user's own connection of a kind, or else that of the tenant; None without either."""
        where = "WHERE tenant = ? AND compartment = ? AND kind = ? AND owner IN (?, '') ORDER BY owner DESC LIMIT 1"
        with self._database.reading() as connection:
            row = connection.execute(f"{CONNECTION} {where}", (tenant, compartment, kind, user)).fetchone()
        return connection_of(*row) if row else None

    def put(self, connection_id: str, stored: Stored) -> None:
        """Keep the sealed secret of a connection in the place of the former one.

        Raise `ConflictError` when another process has put the same version, or removed the connection or the key.
        """
        sealed = stored.sealed
        row = (connection_id, stored.version, sealed.kek_id, sealed.wrapped_key, sealed.text, stored.stored_at)
        with self._database.writing() as connection:
            try:
                connection.execute(_PUT, row)
            except apsw.ConstraintError:
                raise ConflictError(f"the connection `{connection_id}`, or its key, was just removed") from None
            if not connection.changes():
                raise ConflictError(f"another secret of `{connection_id}` was just stored")

    def stored(self, connection_id: str) -> Stored | None:
        """Return the sealed secret of a connection; None before the first."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT version, kek_id, wrapped_key, sealed, stored_at FROM secrets WHERE connection_id = ?",
                (connection_id,),
            ).fetchone()
        if row is None:
            return None
        version, kek_id, wrapped_key, text, stored_at = row
        return Stored(version, Sealed(kek_id=kek_id, wrapped_key=wrapped_key, text=text), stored_at)

    def rewrap(self, connection_id: str, former: Stored, sealed: Sealed) -> bool:
        """Replace the wrapped key of a secret. Say whether it was still the one that was read."""
        row = (sealed.kek_id, sealed.wrapped_key, connection_id, former.version, former.sealed.kek_id)
        with self._database.writing() as connection:
            connection.execute(_REWRAP, row)
            return bool(connection.changes())

    def rewrap_kept(self, former: Kept, sealed: Sealed) -> bool:
        """Replace the wrapped key of a credential that is out. Say whether it was still the one that was read."""
        row = (sealed.kek_id, sealed.wrapped_key, former.checkout_id, former.sealed.kek_id)
        with self._database.writing() as connection:
            connection.execute(_REWRAP_KEPT, row)
            return bool(connection.changes())

    def add_kek(self, kek: Kek) -> bool:
        """Add a key. Say whether it is the first one of its generation."""
        with self._database.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO keks VALUES (?, ?, ?, ?, ?)", row_of(kek))
            return bool(connection.changes())

    def latest_kek(self, tenant: str, compartment: str) -> Kek | None:
        """Return the key under which new secrets are sealed; None before the first."""
        found = [one for one in self.keks(tenant=tenant) if one.compartment == compartment]
        return found[-1] if found else None

    def keks(self, *, tenant: str | None = None) -> tuple[Kek, ...]:
        """Return all keys, or those of a tenant, by compartment and generation."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT id, tenant, compartment, generation, created_at FROM keks WHERE ?1 IS NULL OR tenant = ?1 "
                "ORDER BY tenant, compartment, generation",
                (tenant,),
            )
            return tuple(kek_of(*row) for row in rows)

    def sealed_under(self, kek_id: str) -> tuple[str, ...]:
        """Return the ids of the connections whose secrets are sealed under a key."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT connection_id FROM secrets WHERE kek_id = ? ORDER BY 1", (kek_id,))
            return tuple(str(one) for (one,) in rows)

    def kept_under(self, kek_id: str) -> tuple[Kept, ...]:
        """Return the credentials that are out and sealed under a key."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT id, connection_id, wrapped_key, sealed FROM checkouts WHERE kek_id = ? ORDER BY 1", (kek_id,)
            )
            return tuple(
                Kept(id_, connection_id, Sealed(kek_id=kek_id, wrapped_key=wrapped_key, text=text))
                for id_, connection_id, wrapped_key, text in rows
            )

    def retire(self, kek_id: str, destroy: Callable[[str], None]) -> Kek:
        """Destroy a key and forget it. Raise `KeyInUseError` while anything is sealed under it, and `UnknownKeyError`.

        `destroy` is called when nothing can be sealed under it any more, and the key is forgotten when it returns.
        """
        found = [one for one in self.keks() if one.id == kek_id]
        if not found:
            raise UnknownKeyError(f"there is no key `{kek_id}`")
        with self._database.writing() as connection:
            try:
                connection.execute("DELETE FROM keks WHERE id = ?", (kek_id,))
            except apsw.ConstraintError:
                raise KeyInUseError(f"secrets are sealed under `{kek_id}`: `pdp-broker keys rotate` first") from None
            destroy(kek_id)
        return found[0]

    def shred(self, tenant: str, destroy: Callable[[str], None]) -> Gone:
        """Destroy all keys of a tenant, and delete all that is stored of it. If it fails, call it again.

        Raise `CheckedOutError` before anything is destroyed: without the secrets, no login could be ended.
        """
        with self._database.writing() as connection:
            _require_nothing_out(connection, "tenant", tenant)
            gone = Gone(
                tuple(one.id for one in self.connections(tenant=tenant)),
                tuple(one.id for one in self.keks(tenant=tenant)),
            )
            for kek_id in gone.kek_ids:
                destroy(kek_id)
            connection.execute("DELETE FROM connections WHERE tenant = ?", (tenant,))
            connection.execute("DELETE FROM keks WHERE tenant = ?", (tenant,))
        return gone

    def forget_deleted(self) -> None:
        """Remove what was deleted from the file's log, too. Raise while another process is reading it."""
        self._database.forget_deleted()


def _require_nothing_out(connection: apsw.Connection, of: str, value: str) -> None:
    """Raise `CheckedOutError` while credentials are out, of the connection or tenant with an id."""
    out = connection.execute(_OUT[of], (value,)).get
    if out:
        raise CheckedOutError(f"credentials are still out, {out} of them: see `pdp-broker checkout list`")


def _unknown(connection_id: str) -> UnknownConnectionError:
    return UnknownConnectionError(f"no such connection: `{connection_id}`")


def _insert(connection: apsw.Connection, one: Connection) -> None:
    row = (one.id, one.tenant, one.compartment, one.kind, one.owner, one.upstream)
    rest = (json.dumps(one.scopes), json.dumps(one.modes), one.header, one.scheme, one.created_at)
    try:
        connection.execute("INSERT INTO connections VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, *rest))
    except apsw.ConstraintError:
        raise ConnectionExistsError(
            f"there is a connection `{one.id}`, or another one of kind `{one.kind}` for the same owner"
        ) from None
    for table, values in rows_of(one):
        connection.execute(_INSERT[table], values)
