"""Freezes tenants and lifts that again: who may, and what the record says of it."""

from __future__ import annotations

from collections.abc import Callable

from pdp.clock import Clock, Instant, no_earlier
from pdp.errors import NotFoundError, PermissionDeniedError, UnavailableError, WrongStateError
from pdp.foundation.ids import new_freeze_id
from pdp.model import Caller, Role
from pdp.observer import Event, EventKind, Observer
from pdp.sessions.freezes import ALL_TENANTS, Freeze, as_of, lift
from pdp.sessions.store import Sessions
from pdp.sessions.values import SessionFilter
from pdp.sessions.writes import Write

# Who may lift the freeze of one tenant, and who may set it.
_LIFTING = frozenset({Role.APPROVER, Role.ADMIN})
_FREEZING = _LIFTING | {Role.REVOKER}


class Freezer:
    """The only way to freeze and to lift while a server runs. Safe for threads.

    While `record_permits` returns False, nothing is lifted. Every method raises `UnavailableError` when it cannot
    answer.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        clock: Clock,
        observer: Observer,
        record_permits: Callable[[], bool] = lambda: True,
    ) -> None:
        self._sessions = sessions
        self._clock = clock
        self._observer = observer
        self._record_permits = record_permits

    def freeze(self, tenant: str, *, reason: str, caller: Caller, write: Write | None = None) -> Freeze:
        """Stop all calls of a tenant, or of `ALL_TENANTS`; it replaces an earlier freeze of the same.

        With a `write`, here and for `lift`, it is remembered, so that it can be asked for again: see `written`. Raise
        `PermissionDeniedError` for another tenant than the caller's, and without the role that it takes.
        """
        _require_may_freeze(tenant, caller)
        now = self._now()
        freeze = Freeze(id=new_freeze_id(), tenant=tenant, set_at=now.wall_at, set_by=caller.id, reason=reason)
        event = freeze_event(EventKind.FREEZE_SET, freeze, at=now.wall_at, caller_id=caller.id)
        with self._sessions.fencing(lambda _: (event,)):
            self._sessions.freeze(freeze, write=write)
            self._observer.event(event)
        return freeze

    def lift(self, freeze_id: str, *, caller: Caller, write: Write | None = None) -> Freeze | None:
        """Confirm that a freeze is to be lifted; the second who does so lifts it. Return what is left of it.

        Neither may be who froze, or a gateway. Raise `NotFoundError` for an unknown freeze and one of another tenant,
        and `PermissionDeniedError` when the caller may not lift it.
        """
        freeze = self._visible(freeze_id, caller)
        _require_may_lift(freeze.tenant, caller)
        if Role.PEP in caller.roles:
            raise PermissionDeniedError("a gateway lifts no freeze")
        if not self._record_permits():
            raise UnavailableError("the record accepts no more entries; tenants can be frozen, but no freeze lifted")
        now = self._now()
        change, events = lift(by=caller.id, at=now.wall_at), list[Event]()

        def lifted(stored: Freeze) -> Freeze | None:
            left = change(stored)
            kind = EventKind.FREEZE_LIFTED if left is None else EventKind.FREEZE_LIFT_CONFIRMED
            events[:] = [freeze_event(kind, left or freeze, at=now.wall_at, caller_id=caller.id)]
            return left

        with self._sessions.fencing(lambda _: events):
            left = self._sessions.change_freeze(freeze_id, lifted, wall_at=now.wall_at, write=write)
            for event in events:
                self._observer.event(event)
        return left

    def written(self, write: Write) -> tuple[str, ...] | None:
        """Return the id of the freeze that the caller has set, confirmed or lifted before; None when that is not known.

        Raise `RequestIdConflictError` when something else was asked for under the same request id.
        """
        return self._sessions.written(write, wall_at=self._now().wall_at)

    def again(self, freeze_id: str) -> Freeze:
        """Return a freeze that was set, as it is now. Raise `WrongStateError` when it is lifted or replaced."""
        now = self._now()
        for freeze in self._sessions.freezes():
            if freeze.id == freeze_id:
                return as_of(freeze, now.wall_at)
        raise WrongStateError("the freeze was set, and has been lifted or replaced since")

    def left(self, freeze_id: str, *, caller: Caller) -> Freeze | None:
        """Return what is left of a freeze of the caller's tenant; None when it is lifted."""
        return next((freeze for freeze in self.list(caller=caller) if freeze.id == freeze_id), None)

    def list(self, *, caller: Caller) -> tuple[Freeze, ...]:
        """Return the freezes that stop the caller's tenant: that of all tenants first."""
        now, seen = self._now(), (ALL_TENANTS, caller.tenant)
        return tuple(as_of(freeze, now.wall_at) for freeze in self._sessions.freezes() if freeze.tenant in seen)

    def stoppable(self, tenant: str, *, caller: Caller) -> int:
        """Return how many live sessions `freeze` would stop, and change nothing. Raise what that raises."""
        _require_may_freeze(tenant, caller)
        count, _ = self._sessions.live_families(SessionFilter(tenant=tenant), wall_at=self._now().wall_at, limit=0)
        return count

    def _visible(self, freeze_id: str, caller: Caller) -> Freeze:
        # INVARIANT: an unknown freeze and a foreign one get the same error.
        for freeze in self.list(caller=caller):
            if freeze.id == freeze_id:
                return freeze
        raise NotFoundError("no such freeze")

    def _now(self) -> Instant:
        return no_earlier(self._clock.now(), self._sessions.high_water_at())


def freeze_event(kind: EventKind, freeze: Freeze, *, at: float, caller_id: str) -> Event:
    """Return the event of a freeze: that it was set, or that a person confirmed or lifted it."""
    facts = {"freeze_id": freeze.id, "reason": freeze.reason, "set_by": freeze.set_by}
    if freeze.tenant == ALL_TENANTS:
        facts["all_tenants"] = "yes"
    if freeze.confirmed_by:
        facts["confirmed_by"] = freeze.confirmed_by
    return Event(kind=kind, at=at, caller_id=caller_id, tenant=freeze.tenant, facts=facts)


def _require_may_freeze(tenant: str, caller: Caller) -> None:
    if tenant == ALL_TENANTS:
        _require_operator(caller)
    elif tenant not in caller.tenants:
        raise PermissionDeniedError("another tenant cannot be frozen")
    elif caller.roles.isdisjoint(_FREEZING):
        raise PermissionDeniedError("only an approver, admin or revoker may freeze a tenant")


def _require_may_lift(tenant: str, caller: Caller) -> None:
    if tenant == ALL_TENANTS:
        _require_operator(caller)
    elif caller.roles.isdisjoint(_LIFTING):
        raise PermissionDeniedError("only an approver or admin may lift the freeze of a tenant")


def _require_operator(caller: Caller) -> None:
    if Role.OPERATOR not in caller.roles:
        raise PermissionDeniedError("only an operator may freeze all tenants, and lift that")
