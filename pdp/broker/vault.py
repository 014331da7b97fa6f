"""The vault: stores secrets sealed, and opens one where it belongs and for nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from pdp.broker.providers import KeyProvider, is_key_of, new_kek_id
from pdp.broker.sealing.envelope import CheckoutPlace, Place, Sealed, opened, rewrapped, sealed
from pdp.broker.store.marks import Mark, Marks
from pdp.broker.store.rows import BrokerStore, Gone, Kept, Stored
from pdp.broker.words import (
    MOST_SECRET_BYTES,
    Connection,
    Kek,
    NoSecretError,
    RolledBackError,
    SealBrokenError,
    Secret,
    SecretVersion,
    UnknownConnectionError,
    UnknownKeyError,
)
from pdp.errors import ConflictError, InvalidRequestError
from pdp.observer import Event, EventKind

# What is recorded as a refusal: somebody may have changed the store.
_REFUSALS: Final = {SealBrokenError: "seal_broken", RolledBackError: "rolled_back", UnknownKeyError: "unknown_key"}


class Vault:
    """Connections and their secrets. Safe for threads; several processes may share its files.

    `observe` is told what happens, and never a secret; `wall` returns unix seconds. `by` is who asked for a change.
    """

    def __init__(
        self,
        *,
        store: BrokerStore,
        marks: Marks,
        provider: KeyProvider,
        observe: Callable[[Event], None],
        wall: Callable[[], float],
    ) -> None:
        self._store, self._marks, self._provider = store, marks, provider
        self._observe, self._wall = observe, wall

    def close(self) -> None:
        """Close the files."""
        self._provider.close()
        self._marks.close()
        self._store.close()

    def check(self) -> None:
        """Return when secrets can be opened now; raise what says why not."""
        self._provider.check()
        self._store.connections(tenant="")

    def add(self, connection: Connection, *, by: str) -> Connection:
        """Add a connection without a secret, and return it. Raise `ConnectionExistsError`."""
        added = replace(connection, version=0, created_at=self._wall())
        self._store.add(added)
        self._tell(EventKind.CONNECTION_ADDED, added, by=by, upstream=added.upstream)
        return added

    def replace(self, connection: Connection, *, by: str) -> Connection:
        """Add a person's connection without a secret, in the place of their former one of this kind. Return it."""
        added = replace(connection, version=0, created_at=self._wall())
        former = self._store.replace(added)
        if former:
            self._tell(EventKind.CONNECTION_REMOVED, replace(added, id=former), by=by)
        self._tell(EventKind.CONNECTION_ADDED, added, by=by, upstream=added.upstream)
        return added

    def remove(self, connection_id: str, *, by: str) -> Connection:
        """Delete a connection with its secret, and return it. Raise `UnknownConnectionError`."""
        connection = self._store.connection(connection_id)
        self._store.remove(connection_id)
        self._tell(EventKind.CONNECTION_REMOVED, connection, by=by, version=str(connection.version))
        return connection

    def connection(
        self, connection_id: str, *, tenant: str | None = None, compartment: str | None = None
    ) -> Connection:
        """Return a connection. Raise `UnknownConnectionError`, also for one of another tenant or compartment."""
        found = self._store.connection(connection_id)
        if tenant not in (None, found.tenant) or compartment not in (None, found.compartment):
            raise UnknownConnectionError(f"no such connection: `{connection_id}`")
        return found

    def connections(self, *, tenant: str | None = None) -> tuple[Connection, ...]:
        """Return all connections, or those of a tenant, by id."""
        return self._store.connections(tenant=tenant)

    def of_kind(self, tenant: str, compartment: str, kind: str, user: str) -> Connection:
        """Return a user's own connection of a kind, or else that of the tenant. Raise `UnknownConnectionError`.

        That of the tenant with which people connect is nobody's.
        """
        found = self._store.of_kind(tenant, compartment, kind, user)
        if found is None or found.is_client:
            raise UnknownConnectionError(f"no connection of kind `{kind}`")
        return found

    def client(self, tenant: str, compartment: str, kind: str) -> Connection:
        """Return that of a tenant with which people connect. Raise `UnknownConnectionError`."""
        found = self._store.of_kind(tenant, compartment, kind, "")
        if found is None or not found.is_client:
            raise UnknownConnectionError(f"nobody can connect to `{kind}`")
        return found

    def put(self, connection_id: str, plaintext: bytes, *, by: str) -> SecretVersion:
        """Seal a secret as the next version of a connection's, and forget the former one.

        Raise `InvalidRequestError` for an empty or very long one, and `ConflictError` when another process was faster.
        """
        if not 0 < len(plaintext) <= MOST_SECRET_BYTES:
            raise InvalidRequestError("secret", f"it must have 1 to {MOST_SECRET_BYTES} bytes")
        connection = self._store.connection(connection_id)
        version = 1 + max(connection.version, self._marks.of(connection_id).version)
        kek = self._present_kek(connection.tenant, connection.compartment)
        one = sealed(plaintext, Place(connection=connection, version=version), kek.id, self._provider)
        stored = Stored(version, one, self._wall())
        self._store.put(connection_id, stored)
        self._marks.note(connection_id, Mark(version, one.digest))
        kind = EventKind.SECRET_ROTATED if connection.version else EventKind.SECRET_STORED
        self._tell(kind, connection, by=by, version=str(version), digest=one.digest, kek_id=kek.id)
        return _version_of(connection_id, stored)

    def open(self, connection: Connection) -> Secret:
        """Return the present secret of a connection, for one use.

        Raise `NoSecretError` before the first; `RolledBackError` when the store has an older one than it had before;
        `SealBrokenError` when it was moved or changed; `UnknownKeyError` when its key is destroyed. These three are
        recorded.
        """
        with self._refusing(connection):
            mark = self._marks.of(connection.id)
            stored = _latest(connection, self._store.stored(connection.id), mark)
            try:
                secret = self._opened(connection, stored)
            except UnknownKeyError:
                again = self._store.stored(connection.id)
                if again is None or again.sealed.kek_id == stored.sealed.kek_id:
                    raise
                # It was brought to another key since it was read, and the former key was retired.
                stored = _latest(connection, again, mark)
                secret = self._opened(connection, stored)
        if stored.version > mark.version:
            # The process that stored it died before it noted that. Only now is it known to be ours.
            self._marks.note(connection.id, Mark(stored.version, stored.sealed.digest))
        return secret

    def seal_for(self, connection: Connection, checkout_id: str, credential: Secret) -> Sealed:
        """Seal a credential that is handed out, so that it can be ended later."""
        kek = self._present_kek(connection.tenant, connection.compartment)
        place = CheckoutPlace(connection=connection, checkout_id=checkout_id)
        return sealed(credential.reveal(), place, kek.id, self._provider)

    def open_for(self, connection: Connection, checkout_id: str, kept: Sealed) -> Secret:
        """Return a credential that was handed out, to end it. Raise what `open` raises for what is not ours."""
        with self._refusing(connection):
            return opened(kept, CheckoutPlace(connection=connection, checkout_id=checkout_id), self._provider)

    def version(self, connection_id: str) -> SecretVersion | None:
        """Return what is known of a connection's present secret; None before the first."""
        stored = self._store.stored(connection_id)
        return None if stored is None else _version_of(connection_id, stored)

    def keys(self, *, tenant: str | None = None) -> tuple[tuple[Kek, int], ...]:
        """Return all keys, or those of a tenant, each with how many secrets and credentials are sealed under it."""
        return tuple(
            (kek, len(self._store.sealed_under(kek.id)) + len(self._store.kept_under(kek.id)))
            for kek in self._store.keks(tenant=tenant)
        )

    def rotate_key(self, tenant: str, compartment: str, *, by: str) -> Kek:
        """Make a new key, under which new secrets are sealed from now on. `rewrap` brings the others to it."""
        former = self._store.latest_kek(tenant, compartment)
        if former is None:
            where = f" in the compartment `{compartment}`" if compartment else ""
            raise UnknownKeyError(f"the tenant `{tenant}` has no key{where}")
        kek = self._new_kek(tenant, compartment, former.generation + 1)
        self._tell_of_key(EventKind.KEY_ROTATED, kek, by=by)
        return kek

    def rewrap(self, tenant: str, compartment: str) -> int:
        """Bring what is sealed under former keys to the present one, one by one. Return how much it was.

        That is secrets, and credentials that are out. They can be opened and stored meanwhile.
        """
        present = self._present_kek(tenant, compartment)
        former = [one for one in self._store.keks(tenant=tenant) if one.compartment == compartment and one != present]
        secrets = sum(self._rewrap(one, present) for kek in former for one in self._store.sealed_under(kek.id))
        out = sum(self._rewrap_kept(one, present) for kek in former for one in self._store.kept_under(kek.id))
        return secrets + out

    def retire(self, kek_id: str, *, by: str) -> Kek:
        """Destroy a key that seals nothing any more. Raise `KeyInUseError` while it does, and `UnknownKeyError`."""
        kek = self._store.retire(kek_id, self._provider.destroy)
        self._tell_of_key(EventKind.KEY_RETIRED, kek, by=by)
        return kek

    def shred(self, tenant: str, *, by: str) -> Gone:
        """Destroy all keys of a tenant, and delete its connections and secrets. If it fails, call it again."""
        gone = self._store.shred(tenant, self._provider.destroy)
        lists = {"connections": gone.connection_ids, "keks": gone.kek_ids}
        self._observe(Event(kind=EventKind.TENANT_SHREDDED, at=self._wall(), caller_id=by, tenant=tenant, lists=lists))
        self._store.forget_deleted()
        return gone

    def owned(self, owner: str, *, tenant: str) -> tuple[Connection, ...]:
        """Return the connections of a person, by id."""
        return tuple(one for one in self._store.connections(tenant=tenant) if one.owner == owner)

    def forget(self, owner: str, *, tenant: str, by: str) -> tuple[str, ...]:
        """Delete the connections of a person with their secrets, and return their ids. If it fails, call it again.

        It is recorded without the person.
        """
        ids = tuple(one.id for one in self.owned(owner, tenant=tenant))
        for one in ids:
            self._store.remove(one)
        lists = {"removed": ids}
        self._observe(Event(kind=EventKind.PERSON_FORGOTTEN, at=self._wall(), caller_id=by, tenant=tenant, lists=lists))
        self._store.forget_deleted()
        return ids

    def _present_kek(self, tenant: str, compartment: str) -> Kek:
        kek = self._store.latest_kek(tenant, compartment) or self._new_kek(tenant, compartment, 1)
        if not is_key_of(kek.id, tenant, compartment):
            raise UnknownKeyError(f"the key `{kek.id}` is not one of the tenant `{tenant}`: the store was changed")
        return kek

    def _new_kek(self, tenant: str, compartment: str, generation: int) -> Kek:
        kek = Kek(
            id=new_kek_id(tenant, compartment),
            tenant=tenant,
            compartment=compartment,
            generation=generation,
            created_at=self._wall(),
        )
        self._provider.create(kek.id)
        if self._store.add_kek(kek):
            return kek
        # Another process was faster.
        self._provider.destroy(kek.id)
        found = self._store.latest_kek(tenant, compartment)
        if found is None:
            raise ConflictError(f"the tenant `{tenant}` was just shredded")
        return found

    def _opened(self, connection: Connection, stored: Stored) -> Secret:
        return opened(stored.sealed, Place(connection=connection, version=stored.version), self._provider)

    def _rewrap(self, connection_id: str, kek: Kek) -> bool:
        try:
            connection = self._store.connection(connection_id)
        except UnknownConnectionError:
            return False
        stored = self._store.stored(connection_id)
        if stored is None or stored.sealed.kek_id == kek.id:
            return False
        with self._refusing(connection):
            one = rewrapped(stored.sealed, Place(connection=connection, version=stored.version), kek.id, self._provider)
        return self._store.rewrap(connection_id, stored, one)

    def _rewrap_kept(self, kept: Kept, kek: Kek) -> bool:
        # It stays as long as something of it is out.
        connection = self._store.connection(kept.connection_id)
        with self._refusing(connection):
            place = CheckoutPlace(connection=connection, checkout_id=kept.checkout_id)
            one = rewrapped(kept.sealed, place, kek.id, self._provider)
        return self._store.rewrap_kept(kept, one)

    @contextmanager
    def _refusing(self, connection: Connection) -> Iterator[None]:
        """Record a refusal to open a secret, and say whose it is."""
        try:
            yield
        except tuple(_REFUSALS) as error:
            self._tell(EventKind.SECRET_REFUSED, connection, reason=_REFUSALS[type(error)])
            raise type(error)(f"the secret of `{connection.id}` cannot be opened: {error}") from None

    def _tell(self, kind: EventKind, connection: Connection, *, by: str = "", **facts: str) -> None:
        self._observe(
            Event(
                kind=kind,
                at=self._wall(),
                caller_id=by,
                user=connection.owner,
                tenant=connection.tenant,
                facts={**connection.facts, **facts},
            )
        )

    def _tell_of_key(self, kind: EventKind, kek: Kek, *, by: str) -> None:
        facts = {"kek_id": kek.id, "compartment": kek.compartment, "generation": str(kek.generation)}
        self._observe(Event(kind=kind, at=self._wall(), caller_id=by, tenant=kek.tenant, facts=facts))


def _latest(connection: Connection, stored: Stored | None, mark: Mark) -> Stored:
    """Return the sealed secret of a connection. Raise `RolledBackError` unless it is the latest that there was."""
    if stored is None:
        if mark.version:
            raise RolledBackError(f"the store has none, and had version {mark.version}")
        raise NoSecretError(f"`{connection.id}` has no secret yet; see `pdp-broker secret put`")
    if stored.version < mark.version:
        raise RolledBackError(f"the store has version {stored.version}, and had version {mark.version}")
    if stored.version == mark.version and stored.sealed.digest != mark.digest:
        raise RolledBackError(f"the store has another version {stored.version} than it had")
    return stored


def _version_of(connection_id: str, stored: Stored) -> SecretVersion:
    return SecretVersion(
        connection_id=connection_id,
        version=stored.version,
        kek_id=stored.sealed.kek_id,
        digest=stored.sealed.digest,
        stored_at=stored.stored_at,
    )
