"""Makes a loaded bundle the active one for all workers, and reports it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from pdp.bundles.loading import Loaded, LoadedBundles
from pdp.bundles.packing import pack
from pdp.bundles.peers import Compiled, Peers
from pdp.bundles.replicas import Replicas
from pdp.bundles.unfit import unfit_sessions
from pdp.clock import Clock, no_earlier
from pdp.errors import OverloadedError, UnavailableError
from pdp.model import Session, SessionState
from pdp.observer import Event, EventKind, Observer
from pdp.policy.bundle import Bundle
from pdp.sessions.lifecycle import recapture
from pdp.sessions.store import BundleHistory, SessionLists
from pdp.sessions.unrecorded import Account
from pdp.sessions.values import ActiveBundle, Expected
from pdp.sessions.writes import Write

_LOG = logging.getLogger("pdp")


OnLacking = Callable[[tuple[str, ...]], object] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """Who activates a bundle and why. `chosen` is True when a person chose the version.

    `expected` is what must be so before; None for anything. With a `write` it is remembered. `on_lacking` is called
    with a line for each server that lacks the bundle when it becomes active.
    """

    by: str
    reason: str = ""
    chosen: bool = False
    expected: Expected | None = None
    write: Write | None = None
    on_lacking: OnLacking = None


class BundleSessions(BundleHistory, SessionLists, Protocol):
    """Bundles, and the sessions that they are about."""


class Activations:
    """Activates one bundle at a time, once `peers`, the other workers, and `replicas` had time to load it."""

    def __init__(
        self,
        *,
        history: BundleSessions,
        bundles: LoadedBundles,
        clock: Clock,
        observer: Observer,
        peers: Peers | None,
        replicas: Replicas | None,
    ) -> None:
        self._history = history
        self._bundles = bundles
        self._clock = clock
        self._observer = observer
        self._peers = peers
        self._replicas = replicas
        self._changing = threading.Lock()

    def activate(self, loaded: Loaded, how: Activation) -> bool:
        """Make a bundle the active one; return whether it differs from the one before.

        Raise `ConflictError` when a version other than the expected one is active, and `BundleUnavailableError` when it
        was read in a turn that is over.
        """
        bundle, verified = loaded.bundle, loaded.verified
        content = pack(verified.delivery.files, verified.delivery.signature)
        lacking = self._prepared(loaded, content)
        with self._changing:
            before = self._history.active_bundle()
            # INVARIANT: loaded before active, so that this worker always holds the bundle that it activates.
            self._bundles.keep(loaded)
            # A clock that was set back must not date this before a time that is stored.
            now = no_earlier(self._clock.now(), self._history.high_water_at())
            active = ActiveBundle(
                version=bundle.version,
                activated_at=now.wall_at,
                activated_by=how.by,
                reason=how.reason,
                chosen=how.chosen,
                number=verified.number,
                signed_by=verified.signed_by,
                counted=tuple((name, 0.0) for name in sorted(bundle.counted.all)),
            )

            # Many sessions have the same user and agent.
            captured = cache(bundle.directory.capture)

            def recaptured(session: Session) -> Session | None:
                return recapture(session, now, captured(session.user, session.agent), by=how.by)

            unfit = 0 if active.same_as(before) else self.unfit_sessions(bundle)
            account = _account(active, before, unfit, len(lacking))
            with self._history.fencing(account):
                changed = self._history.activate_bundle(
                    active, content, recaptured, captured=captured, expected=how.expected, write=how.write
                )
                if not active.same_as(before):
                    for event in account(changed):
                        self._observer.event(event)
                    if how.on_lacking is not None:
                        how.on_lacking(lacking)
            return before is None or before.version != bundle.version

    def unfit_sessions(self, bundle: Bundle) -> int:
        """Count the active sessions whose terms do not fit a bundle; 0 when they cannot be read now."""
        try:
            return unfit_sessions(bundle, self._history, no_earlier(self._clock.now(), self._history.high_water_at()))
        except (UnavailableError, OverloadedError):
            # What is activated is active, whoever can be counted.
            return 0

    def _prepared(self, loaded: Loaded, content: bytes) -> tuple[str, ...]:
        """Have all others load a bundle that is not active yet; return a line for each server that lacks it then."""
        # Before the activation: until the others have this bundle too, they answer by the previous one. Outside the
        # lock: two workers that activate at the same time would each wait for the other.
        active = self._history.active_bundle()
        if active is not None and active.version == loaded.bundle.version:
            return ()
        # First: the worker that hears other servers then has it already.
        if self._peers is not None:
            self._peers.tell(Compiled(delivery=loaded.verified.delivery, parts=loaded.bundle.parts).written())
        lacking = self._replicas.prepare(content) if self._replicas is not None else ()
        for one in lacking:
            _LOG.warning("a server answers nothing until it has loaded the bundle that is activated now: %s", one)
        return lacking


def _account(active: ActiveBundle, before: ActiveBundle | None, unfit: int, lacking: int) -> Account:
    """Return what says of an activation which bundle it was, and what has come of each session."""

    def account(changed: Sequence[Session]) -> Iterator[Event]:
        facts = _facts(active, before, len(changed), unfit, lacking)
        at, by = active.activated_at, active.activated_by
        yield Event(kind=EventKind.BUNDLE_ACTIVATED, at=at, caller_id=by, facts=facts)
        yield from (_session_event(session, by, at) for session in changed)

    return account


def _facts(
    active: ActiveBundle, before: ActiveBundle | None, sessions_changed: int, unfit: int, lacking: int
) -> Mapping[str, str]:
    facts = {
        "version": active.version,
        "before": before.version if before else "",
        "reason": active.reason,
        "chosen": "true" if active.chosen else "",
        "number": str(active.number or ""),
        "signed_by": active.signed_by,
        "sessions_changed": str(sessions_changed),
        "sessions_unfit": str(unfit or ""),
        "servers_lacking": str(lacking or ""),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _session_event(session: Session, by: str, at: float) -> Event:
    revoked = session.state is SessionState.REVOKED
    kind = EventKind.SESSION_REVOKED if revoked else EventKind.SESSION_RECAPTURED
    facts = {"reason": session.reason} if revoked else {}
    return Event.of_session(kind, session, at=at, caller_id=by, facts=facts)
