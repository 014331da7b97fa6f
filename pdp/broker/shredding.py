"""End a tenant: first what it was granted elsewhere, and then all that is kept of it here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pdp.broker.checkouts.sweeping import Sweeper
from pdp.broker.checkouts.words import Checkout
from pdp.broker.oauth.severing import Ended, Severing
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.store.rows import Gone
from pdp.broker.vault import Vault
from pdp.broker.words import CheckedOutError


@dataclass(frozen=True, slots=True, kw_only=True)
class Shredded:
    """What was destroyed, what became of people's tokens by connection, and which tokens may be good still."""

    gone: Gone
    ended: Mapping[str, Ended]
    left: tuple[Checkout, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shredding:
    """Ends tenants. Safe for several processes."""

    vault: Vault
    checkouts: CheckoutStore
    sweeper: Sweeper
    severing: Severing

    def shred(self, tenant: str, *, by: str) -> Shredded:
        """Disconnect the people of a tenant, end what is out, and destroy its keys and all that is stored of it.

        A provider that cannot be told stops nothing: its tokens are given up. A login that could not be dropped does,
        because without the secret nobody could: raise `CheckedOutError` before anything is destroyed. If it fails
        half-way, call it again.
        """
        rows = self.vault.connections(tenant=tenant)
        out = self._out({one.id for one in rows})
        ended = self.severing.end_all([one for one in rows if one.is_consented], by=by)
        self.sweeper.end([one.id for one in out])
        left = self._out({one.id for one in rows})
        if logins := [one for one in left if one.is_login]:
            raise CheckedOutError(f"{len(logins)} logins of `{tenant}` could not be ended: see `checkout list`")
        for one in left:
            self.sweeper.forget(one, by=by)
        return Shredded(gone=self.vault.shred(tenant, by=by), ended=ended, left=left)

    def _out(self, connection_ids: set[str]) -> tuple[Checkout, ...]:
        return tuple(one for one in self.checkouts.all() if one.connection_id in connection_ids)
