"""Disconnect a person's account: nothing is used from the first moment on, and the provider is told before all is lost.

What became of the tokens is said as far as it is known: see `ending.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pdp.broker.checkouts.words import Outcome
from pdp.broker.oauth.ending import end_token, is_known
from pdp.broker.oauth.pair import TokenPair
from pdp.broker.oauth.people import source_of
from pdp.broker.store.consents import Consents
from pdp.broker.vault import Vault
from pdp.broker.words import (
    Connection,
    ConsentState,
    NoSecretError,
    Secret,
    TokenRefusedError,
    TokensUnavailableError,
    UnknownConnectionError,
)
from pdp.clock import Clock
from pdp.foundation.egress import Roots
from pdp.observer import Event, EventKind

# A refresh that has begun comes to its end first: what it brings must be revoked, too.
_WAIT_SECONDS: Final = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What became of the tokens. `expires_at` is when the access token ends by itself, 0.0 where nobody knows."""

    outcome: Outcome
    expires_at: float = 0.0


class Severing:
    """Ends connections of people. Safe for threads and for several processes.

    `let_go` ends what is out of a connection, by its id, and says whether nothing is left to be tried.
    """

    def __init__(
        self,
        vault: Vault,
        consents: Consents,
        observe: Callable[[Event], None],
        clock: Clock,
        let_go: Callable[[str], bool],
    ) -> None:
        self._vault, self._consents, self._observe, self._clock = vault, consents, observe, clock
        self._let_go, self._roots = let_go, Roots()

    def end(self, connection_id: str, *, by: str) -> Ended:
        """Disconnect, and say what became of the tokens. `by` is who wants it.

        The connection is removed with its tokens, unless they could not be revoked: then they are kept for that alone,
        and it is called again. Raise `UnknownConnectionError` for what is no person's connection, and
        `TokensUnavailableError` while the connection is being refreshed.
        """
        connection = self._vault.connection(connection_id)
        if not connection.is_consented:
            raise UnknownConnectionError(f"no such connection: `{connection_id}`")
        # INVARIANT: on the disk before the provider is asked, so that nothing is used from here on. Where the process
        # died that made it, there is nothing to use.
        with suppress(UnknownConnectionError):
            self._consents.settle(connection_id, ConsentState.ENDING)
        with self._consents.locked(connection_id, wait_seconds=_WAIT_SECONDS) as alone:
            if not alone:
                raise TokensUnavailableError(f"`{connection_id}` is no longer used, and is being refreshed: try again")
            # In this order: they were got with the tokens that are revoked then.
            over = self._let_go(connection_id)
            ended = self._revoked(self._vault.connection(connection_id)) if over else Ended(outcome=Outcome.FAILED)
        if ended.outcome is not Outcome.FAILED:
            self._vault.remove(connection_id, by=by)
        self._tell(connection, by, ended)
        return ended

    def _revoked(self, connection: Connection) -> Ended:
        """Have the provider revoke the tokens, and return what is known of them then."""
        try:
            pair = TokenPair.unpacked(self._vault.open(connection))
        except NoSecretError:
            return Ended(outcome=Outcome.EXPIRES_AT)
        left = Ended(outcome=Outcome.EXPIRES_AT, expires_at=pair.ends.wall_at if pair.ends else 0.0)
        source, secret = source_of(connection), self._secret_of_client(connection)
        if secret is None or not source.revocation:
            return left
        # The access token last: some providers end the whole consent with it.
        tokens = {"refresh_token": pair.refresh, "access_token": pair.access}
        held = {hint: token for hint, token in tokens.items() if token is not None}
        try:
            known = {hint: is_known(source, secret, token, self._roots) for hint, token in held.items()}
            over = {
                hint: end_token(source, secret, token, self._roots, known=known[hint], hint=hint)
                for hint, token in held.items()
            }
        except (TokenRefusedError, TokensUnavailableError):
            return Ended(outcome=Outcome.FAILED)
        if known.get("refresh_token") and not over["refresh_token"]:
            # It has no end that would come.
            return Ended(outcome=Outcome.FAILED)
        return Ended(outcome=Outcome.REVOKED) if all(over.values()) else left

    def _secret_of_client(self, connection: Connection) -> Secret | None:
        """Return the secret of the client; None where that is no longer the one to which the person consented."""
        try:
            client = self._vault.client(connection.tenant, connection.compartment, connection.kind)
            return self._vault.open(client) if client.source == connection.source else None
        except (UnknownConnectionError, NoSecretError):
            return None

    def _tell(self, connection: Connection, by: str, ended: Ended) -> None:
        facts = {"provider": source_of(connection).host, "outcome": ended.outcome.value}
        if ended.expires_at:
            facts["expires_at"] = f"{ended.expires_at:.0f}"
        self._observe(
            Event(
                kind=EventKind.CONNECTION_ENDED,
                at=self._clock.now().wall_at,
                caller_id=by,
                user=connection.owner,
                tenant=connection.tenant,
                facts={**connection.facts, **facts},
            )
        )
