"""Carry signals out: revoke whom they name, within the bounds of their sender, and hold the rest for a person."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from pdp.client import InvalidRequestError, NotFoundError, PermissionDeniedError
from pdp.errors import NotFoundError as NothingKnownError
from pdp.errors import PDPError, reason_of
from pdp.observer import Event, EventKind
from pdp.record.secretuses import trail_of
from pdp.signals.settings import Sender
from pdp.signals.store import SignalStore
from pdp.signals.words import Signal, State, Target, What
from pdp.v1.session_pb2 import RevokeSessionsResponse

_LOG = logging.getLogger("pdp.signals")

_AT_ONCE: Final = 100
# The ids of the server's users and sessions.
_ID: Final = re.compile(r"[A-Za-z0-9._:@/-]{1,128}")
# What is noted of one signal; the record has every session.
_MOST_OUTCOMES: Final = 200
_KINDS: Final[Mapping[State, EventKind]] = {
    State.APPLIED: EventKind.SIGNAL_APPLIED,
    State.HELD: EventKind.SIGNAL_HELD,
    State.PREVIEWED: EventKind.SIGNAL_PREVIEWED,
}


class Revoker(Protocol):
    """What the server does for a caller with the role `revoker`. Methods raise `PDPClientError`."""

    def revoke_sessions(
        self, *, reason: str, session_id: str = "", user: str = "", of_tenant: str = ""
    ) -> tuple[str, ...]:
        """Revoke sessions; return the ids of those that were live."""
        ...

    def preview_revocation(
        self, *, session_id: str = "", user: str = "", of_tenant: str = ""
    ) -> RevokeSessionsResponse:
        """Return how many sessions would be revoked. Nothing is revoked."""
        ...


class Applier:
    """Carries out what waits in a store, one signal after the other. For one thread.

    `senders` are those of the settings, and `broker_record` is the folder with the record of the broker, or None.
    `observe` is told what happens, and never waits; `wall` returns unix seconds.
    """

    def __init__(
        self,
        *,
        store: SignalStore,
        revoker: Revoker,
        senders: Mapping[str, Sender],
        broker_record: Path | None,
        observe: Callable[[Event], None],
        wall: Callable[[], float],
    ) -> None:
        self._store, self._revoker, self._senders = store, revoker, senders
        self._broker_record, self._observe, self._wall = broker_record, observe, wall
        self._away = ""

    @property
    def problem(self) -> str:
        """Return why signals wait; empty when none has to."""
        return self._away

    def run(self) -> None:
        """Carry out what waits. When the server does not answer, the rest waits for the next time. Never raises."""
        problem = ""
        try:
            while waiting := self._store.signals(State.WAITING, limit=_AT_ONCE):
                for signal in waiting:
                    self._carry_out(signal)
        except PDPError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, the thread goes on, and health tells of it
            problem = f"internal error: {type(error).__name__}"
        if problem and problem != self._away:
            _LOG.error("signals wait, since they cannot be carried out: %s", problem)
        self._away = problem

    def _carry_out(self, signal: Signal) -> None:
        sender = self._senders.get(signal.transmitter)
        work = _Work(signal=signal)
        if sender is None:
            work.left += signal.targets
            work.note("its sender is not in the settings any more")
        else:
            for target in self._expanded(signal, work):
                self._act(target, sender, work)
        self._finish(work, preview=sender is not None and sender.preview)

    def _expanded(self, signal: Signal, work: _Work) -> Iterator[Target]:
        """Yield users and sessions: of a connection the sessions that used its secret, the latest first."""
        for target in signal.targets:
            if target.what is not What.CONNECTION:
                yield target
                continue
            try:
                found = self._sessions_of(target.id)
            except (NothingKnownError, OSError) as error:
                text = reason_of(error) if isinstance(error, OSError) else str(error)
                work.note(f"{target.text}: its sessions are not known: {text}")
                work.left.append(target)
                continue
            work.note(f"{target.text}: {len(found)} sessions used its secret; put another one in its place")
            yield from (Target(what=What.SESSION, tenant=target.tenant, id=one) for one in found)

    def _sessions_of(self, connection: str) -> tuple[str, ...]:
        if self._broker_record is None:
            raise NothingKnownError("`broker_record` is not set")
        return trail_of(self._broker_record, connection).sessions[::-1]

    def _act(self, target: Target, sender: Sender, work: _Work) -> None:
        """Revoke one target, or hold it. Raise `PDPClientError` when the server does not answer."""
        selector = {"session_id" if target.what is What.SESSION else "user": target.id, "of_tenant": target.tenant}
        signal = work.signal
        try:
            count = self._revoker.preview_revocation(**selector).session_count
            if sender.preview:
                work.note(f"{target.text}: {count} sessions would be revoked")
                return
            # Who names those who have nothing here ends nothing, and keeps no bound from those who have something.
            if count and not signal.by and self._exceeds(target, count, sender):
                work.left.append(target)
                return
            # Also where there is none now: one may have been opened in between.
            reason = f"signal {signal.id} of {signal.transmitter}: {signal.event}"
            revoked = self._revoker.revoke_sessions(reason=reason, **selector)
        except NotFoundError:
            work.note(f"{target.text}: there is no such session")
            return
        except (PermissionDeniedError, InvalidRequestError) as error:
            work.note(f"{target.text}: refused by the server: {error}")
            # An id that nothing there can have, such as `auth0|5f7c`, is a stranger's. The rest is for a person to see.
            if isinstance(error, PermissionDeniedError) or _ID.fullmatch(target.id):
                work.left.append(target)
            return
        work.note(f"{target.text}: {len(revoked)} sessions revoked")
        work.revoked += revoked
        if revoked and not signal.by:
            self._store.spend(signal.transmitter, target, len(revoked), at=self._wall())

    def _exceeds(self, target: Target, sessions: int, sender: Sender) -> bool:
        targets, spent = self._store.spent(sender.name, at=self._wall())
        users = {one for one in targets | {target.text} if one.startswith(f"{What.USER} ")}
        return len(users) > sender.most_users or spent + sessions > sender.most_sessions

    def _finish(self, work: _Work, *, preview: bool) -> None:
        state = State.PREVIEWED if preview else State.HELD if work.left else State.APPLIED
        done = replace(
            work.signal,
            state=state,
            targets=tuple(work.left),
            outcomes=(*work.signal.outcomes, *work.outcomes)[-_MOST_OUTCOMES:],
            by="" if state is State.HELD else work.signal.by,
        )
        # Whoever dismisses it meanwhile cannot take back what was done, and is not overruled.
        self._store.change(done, before=State.WAITING)
        self._observe(event_of(_KINDS[state], done, at=self._wall(), revoked=tuple(work.revoked)))
        if state is State.HELD:
            _LOG.warning("the signal `%s` of `%s` is held: see `pdp signals list`", done.id, done.transmitter)


@dataclass(slots=True, kw_only=True)
class _Work:
    """What is done about one signal so far."""

    signal: Signal
    left: list[Target] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.outcomes.append(text)


def event_of(kind: EventKind, signal: Signal, *, at: float, revoked: tuple[str, ...] = (), reason: str = "") -> Event:
    """Return the event that something has become of a signal. `revoked` are ids of sessions."""
    about = {"signal_id": signal.id, "transmitter": signal.transmitter, "token_id": signal.token_id}
    lists = {"targets": tuple(one.text for one in signal.targets), "sessions": revoked}
    return Event(
        kind=kind,
        at=at,
        caller_id=signal.by,
        facts={**about, "event": signal.event, "state": signal.state.value, "reason": reason},
        lists={name: values for name, values in lists.items() if values},
    )
