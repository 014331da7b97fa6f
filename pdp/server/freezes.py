"""Answers `FreezeService`: stops all calls of tenants, and lifts that again."""

from __future__ import annotations

from pdp.errors import InvalidRequestError
from pdp.limits import Limits
from pdp.registry.freezing import Freezer
from pdp.server.fields import optional_text, require_id, require_text, write_timestamp
from pdp.server.repeats import Repeats
from pdp.serving.origin import Origin
from pdp.sessions.freezes import ALL_TENANTS, LIFT_SECONDS, Freeze
from pdp.v1 import freeze_pb2 as freezes


class FreezeHandlers:
    """One method for each RPC; each takes the message and its origin."""

    def __init__(self, freezer: Freezer, limits: Limits) -> None:
        self._freezer = freezer
        self._repeats = Repeats(freezer.written)
        self._limits = limits

    def set_freeze(self, request: freezes.SetFreezeRequest, origin: Origin) -> freezes.SetFreezeResponse:
        """Freeze a tenant or all, or count what that would stop."""
        tenant, characters = _tenant(request), self._limits.text_characters
        if request.validate_only:
            optional_text("reason", request.reason, characters)
            return freezes.SetFreezeResponse(session_count=self._freezer.stoppable(tenant, caller=origin.caller))
        reason = require_text("reason", request.reason, characters)
        freeze = self._repeats.once(
            request,
            origin,
            lambda write: self._freezer.freeze(tenant, reason=reason, caller=origin.caller, write=write),
            lambda ids: self._freezer.again(ids[0]),
        )
        return freezes.SetFreezeResponse(freeze=_message(freeze))

    def lift_freeze(self, request: freezes.LiftFreezeRequest, origin: Origin) -> freezes.LiftFreezeResponse:
        """Confirm that a freeze is to be lifted, or lift it."""
        freeze_id = require_id("freeze_id", request.freeze_id)
        left = self._repeats.once(
            request,
            origin,
            lambda write: self._freezer.lift(freeze_id, caller=origin.caller, write=write),
            lambda _: self._freezer.left(freeze_id, caller=origin.caller),
        )
        if left is None:
            return freezes.LiftFreezeResponse(lifted=True)
        return freezes.LiftFreezeResponse(freeze=_message(left))

    def list_freezes(self, _: freezes.ListFreezesRequest, origin: Origin) -> freezes.ListFreezesResponse:
        """Show what freezes the caller's tenant."""
        return freezes.ListFreezesResponse(freezes=map(_message, self._freezer.list(caller=origin.caller)))


def _tenant(request: freezes.SetFreezeRequest) -> str:
    match request.WhichOneof("selector"):
        case "tenant":
            return require_id("tenant", request.tenant)
        case "all_tenants":
            if not request.all_tenants:
                raise InvalidRequestError("all_tenants", "must be true where it is set")
            return ALL_TENANTS
    raise InvalidRequestError("selector", "one of `tenant` and `all_tenants` is required")


def _message(freeze: Freeze) -> freezes.Freeze:
    message = freezes.Freeze(
        freeze_id=freeze.id,
        tenant=freeze.tenant,
        all_tenants=freeze.tenant == ALL_TENANTS,
        reason=freeze.reason,
        set_by=freeze.set_by,
        confirmed_by=freeze.confirmed_by,
    )
    write_timestamp(freeze.set_at, message.set_time)
    if freeze.confirmed_by:
        write_timestamp(freeze.confirmed_at, message.confirm_time)
        write_timestamp(freeze.confirmed_at + LIFT_SECONDS, message.confirm_expire_time)
    return message
