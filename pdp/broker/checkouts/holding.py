"""What checkouts need of the vault."""

from __future__ import annotations

from typing import Protocol

from pdp.broker.sealing.envelope import Sealed
from pdp.broker.words import Connection, Secret


class Holder(Protocol):
    """Holds connections and their secrets, and seals what is kept of credentials: the vault. Safe for threads."""

    def of_kind(self, tenant: str, compartment: str, kind: str, user: str) -> Connection:
        """Return the user's connection of a kind, or else the tenant's. Raise `UnknownConnectionError`."""
        ...

    def connection(
        self, connection_id: str, *, tenant: str | None = None, compartment: str | None = None
    ) -> Connection:
        """Return a connection by its id. Raise `UnknownConnectionError`."""
        ...

    def client(self, tenant: str, compartment: str, kind: str) -> Connection:
        """Return that of a tenant with which people connect. Raise `UnknownConnectionError`."""
        ...

    def connections(self) -> tuple[Connection, ...]:
        """Return all connections."""
        ...

    def open(self, connection: Connection) -> Secret:
        """Open the present secret of a connection, never what was got with it. Raise `PDPError`."""
        ...

    def seal_for(self, connection: Connection, checkout_id: str, credential: Secret) -> Sealed:
        """Seal a credential that is handed out, so that it can be ended later."""
        ...

    def open_for(self, connection: Connection, checkout_id: str, kept: Sealed) -> Secret:
        """Return a credential that was handed out, to end it. Raise `PDPError`."""
        ...
