"""Replace a secret that leaked, as far as the broker can by itself, and end what was handed out by its connection.

A person has to do the rest: keys and the secrets of clients are made by their issuers alone.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum

from pdp.broker.checkouts.issuing import joined_passwords, present_password, server_of
from pdp.broker.checkouts.sweeping import Sweeper
from pdp.broker.checkouts.words import Checkout, Outcome
from pdp.broker.oauth.severing import Severing
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.vault import Vault
from pdp.broker.words import Connection, DatabaseUnavailableError, Secret, SecretVersion

_PASSWORD_BYTES = 32


class Replacement(StrEnum):
    """What became of a secret."""

    REPLACED = "replaced"  # another one is in its place, which nobody has seen
    DISCONNECTED = "disconnected"  # the tokens of a person, and the provider says that they count no longer
    EXPIRES = "expires"  # the same, and the provider does not say so
    FAILED = "failed"  # they are not used any more, and the provider could not be told
    FORMER = "former"  # it is not the present one: only where it was issued can it be ended
    BY_HAND = "by_hand"  # only its issuer can make another one


_OF_PEOPLE = {
    Outcome.REVOKED: Replacement.DISCONNECTED,
    Outcome.EXPIRES_AT: Replacement.EXPIRES,
    Outcome.FAILED: Replacement.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """What was done. `version` is the present one, 0 without; `ended` counts credentials, and `left` are good still.

    `expires_at` is when an access token of a person ends by itself, 0.0 where nobody knows.
    """

    replacement: Replacement
    version: int
    ended: int
    left: tuple[Checkout, ...]
    expires_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacing:
    """Replaces secrets. Safe for threads and for several processes."""

    vault: Vault
    checkouts: CheckoutStore
    sweeper: Sweeper
    severing: Severing

    def replace(self, connection_id: str, version: int = 0, *, by: str) -> Replaced:
        """Replace the secret of a connection; `version` is the one that leaked, 0 the present one.

        Raise `UnknownConnectionError`, and `PDPError` when it cannot be done now: then call it again.
        """
        connection = self.vault.connection(connection_id)
        # First, because it needs the present secret.
        out = [one.id for one in self.checkouts.all() if one.connection_id == connection_id]
        self.sweeper.end(out)
        left = tuple(one for one in self.checkouts.all() if one.id in out)
        ended = len(out) - len(left)
        if connection.is_consented:
            severed = self.severing.end(connection_id, by=by)
            replacement, expires_at = _OF_PEOPLE[severed.outcome], severed.expires_at
            return Replaced(replacement=replacement, version=0, ended=ended, left=left, expires_at=expires_at)
        if version not in (0, connection.version):
            replacement, present = Replacement.FORMER, connection.version
        elif connection.logins is None:
            replacement, present = Replacement.BY_HAND, connection.version
        else:
            replacement, present = Replacement.REPLACED, renew_password(self.vault, connection, by=by).version
        return Replaced(replacement=replacement, version=present, ended=ended, left=left)


def renew_password(vault: Vault, connection: Connection, *, by: str) -> SecretVersion:
    """Give the broker's role in a database another password, store it, and return what is known of it.

    Whoever is in by the former one is put out. Both are stored before the database is asked, and are tried in turn
    until it is certain which one counts: whatever fails on the way, the broker gets in. Raise `PDPError` when it is not
    done: then call it again.
    """
    former = present_password(connection, vault.open(connection))
    if not server_of(connection, former).lets_in():
        raise DatabaseUnavailableError("the database does not answer, or does not let the broker in: see its log")
    fresh = Secret(secrets.token_urlsafe(_PASSWORD_BYTES).encode())
    # INVARIANT: the one that counts is among those that are stored, whatever fails from here on.
    vault.put(connection.id, joined_passwords(fresh, former), by=by)
    now = server_of(connection, fresh)
    try:
        server_of(connection, former).take_password(fresh)
    except DatabaseUnavailableError:
        # Only its answer may have been lost.
        if not now.lets_in():
            raise
    now.end_others()
    return vault.put(connection.id, fresh.reveal(), by=by)
