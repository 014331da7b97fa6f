"""Hand out a credential for one call that was allowed, sealed to the key of the tool server, once.

The order is the promise: the call token is verified, offline and live, and used up; the use is recorded; the credential
is made, so that it ends with its session; and then it leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pdp.broker.admitting import Admission, Presented
from pdp.broker.checkouts.making import Maker
from pdp.calltokens.claims import CallClaims
from pdp.clock import utc_text
from pdp.errors import PermissionDeniedError
from pdp.observer import EventKind


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOut:
    """A credential as it leaves: sealed to the key of its tool server. It ends at `ends_at`, in unix seconds."""

    id: str
    sealed: bytes = field(repr=False)
    ends_at: float


class CheckoutDesk:
    """Hands out credentials. Safe for threads."""

    def __init__(self, admission: Admission, maker: Maker) -> None:
        self._admission, self._maker = admission, maker

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
            one = self._maker.drafted(admitted, asked.mode)
            self._admission.note_use(EventKind.CALL_TOKEN_USED, about)
            credential = self._maker.made(one, admitted, asked.token).credential
        self._admission.tell(
            EventKind.CREDENTIAL_CHECKED_OUT,
            about,
            checkout=one.id,
            scopes=" ".join(one.scopes),
            ends=utc_text(credential.ends_at),
        )
        sealed = credential.sealed(recipient, admitted.claims.id)
        return HandedOut(id=one.id, sealed=sealed, ends_at=credential.ends_at)
