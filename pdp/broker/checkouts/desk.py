"""Hand out a credential for one call that was allowed, sealed to the key of the tool server, once.

The order is the promise: the call token is verified, offline and live, and used up; the checkout is on the disk; only
then is the server asked how long the session lives, so its end cannot be missed; the credential is made; that it leaves
is on the disk; and then it leaves. Whatever stops on the way, what was made is found, and ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pdp.broker.admitting import About, Admission, Admitted, Presented
from pdp.broker.checkouts.holding import Holder
from pdp.broker.checkouts.issuing import Issued, Issuer, login_seconds
from pdp.broker.checkouts.words import Checkout, new_checkout_id
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.words import DatabaseRefusedError, TokenRefusedError
from pdp.calltokens.claims import CallClaims
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.clock import utc_text
from pdp.errors import ConflictError, PermissionDeniedError
from pdp.observer import EventKind

# INVARIANT: longer than a database may take to make a role, so that what it has not made by then it never makes.
GRACE_SECONDS: Final = 60.0
# After these nothing was made, or nobody will ever have it.
_NOTHING: Final = (CallTokenRefusedError, DatabaseRefusedError, PermissionDeniedError, TokenRefusedError)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOut:
    """A credential as it leaves: sealed to the key of its tool server. It ends at `ends_at`, in unix seconds."""

    id: str
    sealed: bytes = field(repr=False)
    ends_at: float


class CheckoutDesk:
    """Hands out credentials. Safe for threads.

    `session_end` returns until when the session of a call token lives, in unix seconds, and raises
    `CallTokenRefusedError` for one that has ended. `wake` has what is due ended soon.
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
    ) -> None:
        self._admission, self._store, self._issuer, self._keeper = admission, store, issuer, keeper
        self._session_end, self._wake = session_end, wake

    def check_out(self, asked: Presented, *, verified: Callable[[CallClaims], object] = id) -> HandedOut:
        """Return the credential for a call. Raise `CallTokenRefusedError` and `PDPError`; then none leaves."""
        with self._admission.admitted(asked, verified) as admitted:
            recipient = admitted.rules.recipient
            if not recipient:
                raise PermissionDeniedError(
                    "the rules name no key to which a credential could be sealed: see `checkout`"
                )
            connection = admitted.connection
            about = admitted.about.with_facts(connection=connection, version=connection.version, mode=asked.mode)
            one = self._begun(admitted, about)
            credential = self._issued(one, admitted, asked.token).credential
        self._admission.tell(
            EventKind.CREDENTIAL_CHECKED_OUT,
            about,
            checkout=one.id,
            scopes=" ".join(one.scopes),
            ends=utc_text(credential.ends_at),
        )
        sealed = credential.sealed(recipient, admitted.claims.id)
        return HandedOut(id=one.id, sealed=sealed, ends_at=credential.ends_at)

    def _begun(self, admitted: Admitted, about: About) -> Checkout:
        claims, now = admitted.claims, self._admission.wall()
        one = Checkout(
            id=new_checkout_id(),
            connection_id=admitted.connection.id,
            kind=self._issuer.require_kind(admitted.connection, claims.scopes),
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
        self._admission.note_use(EventKind.CALL_TOKEN_USED, about)
        self._store.begin(one)
        return one

    def _issued(self, one: Checkout, admitted: Admitted, token: str) -> Issued:
        connection, now = admitted.connection, self._admission.wall()
        try:
            until = min(self._session_end(token), now + login_seconds(connection.logins))
            issued = self._issuer.issue(one, connection, now=now, until=until)
        except _NOTHING:
            self._store.finish(one.id)
            raise
        kept = self._keeper.seal_for(connection, one.id, issued.keep) if issued.keep else None
        try:
            self._store.hand_out(one.id, ends_at=issued.credential.ends_at, kept=kept)
        except ConflictError as error:
            self._wake()
            raise CallTokenRefusedError(Reason.REVOKED, str(error)) from None
        return issued
