"""The inputs of a decision, read together: the session with its ancestors, the active bundle, and the time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from pdp.clock import Clock, Instant, no_earlier
from pdp.errors import UnavailableError
from pdp.foundation.ids import handle_digest
from pdp.model import Call, Caller, CallRequest, Head, Session
from pdp.policy.bundle import Bundle
from pdp.quickvalues import quickly_made
from pdp.sessions.freezes import Freeze
from pdp.sessions.store import SessionReader
from pdp.sessions.succession import chain_with
from pdp.sessions.values import ActiveBundle, StoreView

_TRIES = 3


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The inputs of one decision: the bundle, the session with its ancestors (nearest first), and the time.

    `chain` is empty without a session that the caller may ask about. `wall_at` is the unchanged wall clock, which
    policies see; `now` never goes back, for deadlines. `activation` is that of the bundle, and `freeze` what stops the
    tenant of the session, both read with the chain; None without a chain.
    """

    bundle: Bundle
    chain: tuple[Session, ...]
    now: Instant
    wall_at: float
    activation: ActiveBundle | None = None
    freeze: Freeze | None = None

    def after(self, other: Snapshot) -> Snapshot:
        """Return the snapshot with the sessions of another one that is later, where it holds them too."""
        return replace(self, chain=chain_with(self.chain, other.chain))

    def moved_to(self, at: float) -> Snapshot:
        """Return the snapshot at another time in unix seconds, later or earlier."""
        # Both clocks move together.
        now = self.now._replace(wall_at=at, boot_at=self.now.boot_at + at - self.wall_at)
        return replace(self, now=now, wall_at=at)


class Snapshots:
    """Takes snapshots. Safe for threads.

    `bundle_for` returns the loaded bundle for an active version that was read from the store, `current` the one that is
    active now. Every method raises `StoreUnavailableError` and `BundleUnavailableError` when it cannot answer. With
    `least`, a snapshot has that change and all before it; `UnknownRevisionError` where the store does not have it.
    """

    def __init__(
        self,
        *,
        sessions: SessionReader,
        bundle_for: Callable[[ActiveBundle | None], Bundle],
        current: Callable[[], Bundle],
        clock: Clock,
    ) -> None:
        self._sessions = sessions
        self._bundle_for = bundle_for
        self._current = current
        self._clock = clock

    def of_handle(self, handle: str, caller: Caller, least: Head | None = None) -> Snapshot:
        """Return the current snapshot of the session with a secret handle."""
        return self._of_view(self._sessions.view(handle_digest(handle), least), self._clock.now(), caller)

    def of_call(self, request: CallRequest, caller: Caller) -> Snapshot:
        """Return the current snapshot for a decision about a call.

        Labels can be missing that other calls have added, where the decision does not depend on them.
        """
        call = request.call
        view = self._sessions.view(handle_digest(call.session_handle), request.least, labels=False)
        bundle = self._bundle_for(view.bundle)
        if _lacks_labels(view, bundle, call):
            return self.of_handle(call.session_handle, caller, request.least)
        return _taken(bundle, view, self._clock.now(), caller)

    def known(self) -> Callable[[CallRequest, Caller], Snapshot | None]:
        """Return a function that does for a call what `of_call` does, or returns None where the store must be asked.

        Calls of one session get one snapshot for each caller. INVARIANT: use it for calls that have come already,
        before any of them changes something, and within a moment: then each has a snapshot that is younger than the
        call.
        """
        # A caller is found by its identity, and kept for that.
        taken: dict[tuple[str, Head | None, int], tuple[StoreView, Snapshot, Caller]] = {}

        def known(request: CallRequest, caller: Caller) -> Snapshot | None:
            key = request.call.session_handle, request.least, id(caller)
            found = taken.get(key)
            if found is None:
                view = self._sessions.known(handle_digest(key[0]), request.least)
                if view is None:
                    return None
                found = taken[key] = view, self._of_view(view, self._clock.now(), caller), caller
            view, snapshot, _ = found
            return None if _lacks_labels(view, snapshot.bundle, request.call) else snapshot

        return known

    def of_calls(self, requests: Iterable[CallRequest], caller: Caller) -> dict[str, Snapshot]:
        """Return a snapshot as in `of_call` for the handle of each call, all with the same time and bundle.

        Each has the changes that the calls insist on.

        Raise `UnavailableError` when the active bundle changes too fast.
        """
        by_handle: dict[str, list[CallRequest]] = {}
        for request in requests:
            by_handle.setdefault(request.call.session_handle, []).append(request)
        known = {request.least for some in by_handle.values() for request in some if request.least}
        by_age = sorted(known, key=lambda head: head.revision)
        least: Sequence[Head | None] = by_age or (None,)
        for _ in range(_TRIES):
            views = {}
            for handle, some in by_handle.items():
                views[handle] = self._view(some, least)
                # What has the latest has those before it: they were found to be of the same history.
                least = least[-1:]
            if len({view.bundle for view in views.values()}) <= 1:
                now = self._clock.now()
                return {handle: self._of_view(view, now, caller) for handle, view in views.items()}
        raise UnavailableError("the active bundle is changing too often; try again")

    def of_session(self, session_id: str, caller: Caller, least: Head | None = None) -> Snapshot:
        """Return the current snapshot of the session with a public id; without a session for an empty id."""
        chain = self._sessions.get(session_id) if session_id else ()
        if chain:
            return self._of_view(self._sessions.view(chain[0].handle_digest, least), self._clock.now(), caller)
        nothing = StoreView(chain=(), bundle=None, high_water_at=self._sessions.high_water_at())
        return _taken(self._current(), nothing, self._clock.now(), caller)

    def _view(self, requests: Sequence[CallRequest], least: Sequence[Head | None]) -> StoreView:
        """Return a view of the session of some calls, without labels unless one of them depends on these."""
        digest = handle_digest(requests[0].call.session_handle)
        view = [self._sessions.view(digest, known, labels=False) for known in least][-1]
        bundle = self._bundle_for(view.bundle)
        lacking = any(_lacks_labels(view, bundle, request.call) for request in requests)
        return self._sessions.view(digest) if lacking else view

    def _of_view(self, view: StoreView, now: Instant, caller: Caller) -> Snapshot:
        return _taken(self._bundle_for(view.bundle), view, now, caller)


def _lacks_labels(view: StoreView, bundle: Bundle, call: Call) -> bool:
    """Say whether a view has no labels, and the decision about a call depends on them."""
    # INVARIANT: a label counts in each decision that begins after it was acknowledged.
    return not view.labelled and bool(view.chain) and bundle.reads_labels(call)


def _taken(bundle: Bundle, view: StoreView, now: Instant, caller: Caller) -> Snapshot:
    # INVARIANT: a session that the caller may not ask about is the same as an unknown one. `Caller.may_ask_about`
    # without its call, which every decision would pay.
    bounds = caller.bounds
    chain = view.chain
    seen = chain and (chain[0].tenant == caller.tenant if bounds is None else bounds.include(chain[0]))
    return Snapshot(
        bundle=bundle,
        chain=chain if seen else (),
        now=no_earlier(now, view.high_water_at),
        wall_at=now.wall_at,
        activation=view.bundle,
        freeze=view.freeze,
    )
