"""Access tokens that are made for one session each and stay in the broker: for connections that exchange theirs.

One token serves all calls of its session that have the same scopes. It is kept in memory, and sealed in the store to be
ended: with its session, or at its own end, as what is handed out.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from pdp.broker.admitting import Admission, Admitted
from pdp.broker.checkouts.making import Maker
from pdp.broker.oauth.answers import Granted
from pdp.broker.oauth.tokendesk import TokenDesk
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.words import Mode, Secret
from pdp.clock import Clock, utc_text
from pdp.observer import EventKind

# How many may be kept before the first look for those that are over.
_FEW: Final = 64


class _Whose(NamedTuple):
    session_id: str
    connection_id: str
    scopes: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class _Held:
    """The token of a session, and the checkout that it is; empty before the first."""

    desk: TokenDesk
    checkout_id: str = ""


class SessionTokens:
    """Makes and keeps the tokens of sessions. Safe for threads."""

    def __init__(self, admission: Admission, maker: Maker, store: CheckoutStore, clock: Clock) -> None:
        self._admission, self._maker, self._store, self._clock = admission, maker, store, clock
        self._held: dict[_Whose, _Held] = {}
        self._most = _FEW
        self._holding = threading.Lock()

    def open(self, admitted: Admitted, token: str, mode: Mode) -> Secret:
        """Return the token of the session of a call token, with the scopes of the call, and make it where it is none.

        Raise `CallTokenRefusedError` and `PDPError`.
        """
        connection = admitted.connection
        held = self._of(_Whose(admitted.claims.session_id, connection.id, admitted.claims.scopes))
        return held.desk.token(connection, partial(self._made, held, admitted, token, mode))

    def _of(self, whose: _Whose) -> _Held:
        with self._holding:
            held = self._held.get(whose)
            # INVARIANT: what is to be ended, by whoever wants it, is not used from then on.
            if held is None or (held.checkout_id and not self._store.is_out(held.checkout_id)):
                self._forget()
                held = self._held[whose] = _Held(desk=TokenDesk(self._clock))
            return held

    def _forget(self) -> None:
        """Drop what is over whenever as many came as stayed the last time: a new one then costs two looks, not all."""
        if len(self._held) >= self._most:
            self._held = {whose: held for whose, held in self._held.items() if self._is_wanted(held)}
            self._most = max(_FEW, 2 * len(self._held))

    def _is_wanted(self, held: _Held) -> bool:
        # Without a checkout, the token is being made, or could not be made a moment ago.
        return self._store.is_out(held.checkout_id) if held.checkout_id else held.desk.is_waited_for()

    def _made(self, held: _Held, admitted: Admitted, token: str, mode: Mode) -> Granted:
        connection, now = admitted.connection, self._admission.wall()
        one = self._maker.drafted(admitted, mode)
        made = self._maker.made(one, admitted, token).credential
        held.checkout_id = one.id
        self._admission.tell(
            EventKind.CONNECTION_REFRESHED,
            admitted.about,
            **connection.facts,
            version=str(connection.version),
            provider=connection.source.host if connection.source else "",
            checkout=one.id,
            scopes=" ".join(one.scopes),
            ends=utc_text(made.ends_at),
        )
        return Granted(secret=Secret(made.secret.encode()), seconds=made.ends_at - now)
