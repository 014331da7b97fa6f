"""Make a credential for one session, so that its end cannot be missed.

The order is the promise: what is to be made is on the disk; only then is the server asked how long the session lives;
the credential is made; what is needed to end it is on the disk; and then it may be used. Whatever stops on the way,
what was made is found, and ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from pdp.broker.admitting import Admission, Admitted
from pdp.broker.checkouts.holding import Holder
from pdp.broker.checkouts.issuing import Issued, Issuer, login_seconds
from pdp.broker.checkouts.words import Bounds, Checkout, UnknownCheckoutError, new_checkout_id
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.words import Connection, DatabaseRefusedError, Mode, Secret, TokenRefusedError, UnknownKeyError
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.errors import ConflictError, PDPError, PermissionDeniedError, StoreUnavailableError

_LOG = logging.getLogger("pdp.broker")

# INVARIANT: longer than a database may take to make a role, so that what it has not made by then it never makes.
GRACE_SECONDS: Final = 60.0
# After these nothing was made, or nobody will ever have it.
_NOTHING: Final = (CallTokenRefusedError, DatabaseRefusedError, PermissionDeniedError, TokenRefusedError)


class Maker:
    """Makes credentials for the sessions of calls that are admitted. Safe for threads.

    `session_end` returns until when the session of a call token lives, in unix seconds, and raises
    `CallTokenRefusedError` for one that has ended. `wake` has what is due ended soon. Of what is out at once there is
    no more than the `bounds`.
    """

    def __init__(
        self,
        admission: Admission,
        store: CheckoutStore,
        issuer: Issuer,
        *,
        keeper: Holder,
        session_end: Callable[[str], float],
        wake: Callable[[], object],
        bounds: Bounds,
    ) -> None:
        self._admission, self._store, self._issuer, self._keeper = admission, store, issuer, keeper
        self._session_end, self._wake, self._bounds = session_end, wake, bounds

    def drafted(self, admitted: Admitted, mode: Mode) -> Checkout:
        """Return what is to be made for a call. Raise `PermissionDeniedError` where nothing can be."""
        claims, now = admitted.claims, self._admission.wall()
        return Checkout(
            id=new_checkout_id(),
            connection_id=admitted.connection.id,
            kind=self._issuer.require_kind(admitted.connection, claims.scopes, mode),
            token_id=claims.id,
            decision_id=claims.decision_id,
            session_ids=(claims.session_id, *claims.ancestor_ids),
            user=claims.user,
            agent=claims.agent,
            action=f"{claims.server}/{claims.tool}",
            scopes=claims.scopes,
            begun_at=now,
            next_at=now + GRACE_SECONDS,
        )

    def made(self, one: Checkout, admitted: Admitted, token: str) -> Issued:
        """Make it for the session of a call token. Raise `CallTokenRefusedError` and `PDPError`; then nobody has it.

        Raise `OverloadedError` when too many are out.
        """
        connection = admitted.connection
        self._store.begin(one, bounds=self._bounds)
        now = self._admission.wall()
        try:
            until = min(self._session_end(token), now + login_seconds(connection.logins))
            issued = self._issuer.issue(one, connection, now=now, until=until, subject=self._subject(connection))
        except _NOTHING:
            self._store.finish(one.id)
            raise
        try:
            self._hand_out(one, connection, issued, until)
        except ConflictError as error:
            self._wake()
            self._take_back(one, connection, issued)
            raise CallTokenRefusedError(Reason.REVOKED, str(error)) from None
        except PDPError:
            self._take_back(one, connection, issued)
            raise
        return issued

    def _take_back(self, one: Checkout, connection: Connection, issued: Issued) -> None:
        """End what nobody will have, unless the store has what ends it. Where that cannot be done, it is logged."""
        with suppress(UnknownCheckoutError, StoreUnavailableError):
            # The name of a login says enough.
            if self._store.get(one.id) and (issued.keep is None or self._store.kept(one.id)):
                return
        try:
            self._issuer.end(one, connection, issued.keep)
        except PDPError as error:
            _LOG.warning("the credential `%s` of `%s` is lost, and cannot be ended: %s", one.id, connection.id, error)

    def _hand_out(self, one: Checkout, connection: Connection, issued: Issued, until: float) -> None:
        """Note that it leaves, with what ends it under the key of the moment, which may be retired meanwhile."""
        for last in (False, True):
            kept = self._keeper.seal_for(connection, one.id, issued.keep) if issued.keep else None
            try:
                self._store.hand_out(one.id, ends_at=issued.credential.ends_at, until=until, kept=kept)
            except UnknownKeyError:
                if last:
                    raise
            else:
                return

    def _subject(self, connection: Connection) -> Secret | None:
        """Return the access token that is exchanged; None for a connection that exchanges none."""
        exchanged = connection.source is not None and connection.source.exchange is not None
        return self._admission.connections.open(connection) if exchanged else None
