"""The calls about freezes as values, like `operations`: for those who stop all calls of a tenant."""

from __future__ import annotations

from pdp.client.errors import InvalidRequestError
from pdp.client.fencing import OnFence, told
from pdp.client.operations import Method, Operation, Reply, new_request_id
from pdp.v1 import freeze_pb2


def set_freeze(
    *, tenant: str, all_tenants: bool, reason: str, on_fence: OnFence = None
) -> Operation[freeze_pb2.SetFreezeResponse, freeze_pb2.Freeze]:
    """Freeze a tenant or all."""
    return Operation(
        method=_method("SetFreeze", freeze_pb2.SetFreezeResponse),
        request=_request(tenant, reason=reason, all_tenants=all_tenants),
        read=lambda reply: told(reply, on_fence).freeze,
    )


def preview_freeze(*, tenant: str, all_tenants: bool) -> Operation[freeze_pb2.SetFreezeResponse, int]:
    """Count what a freeze would stop."""
    return Operation(
        method=_method("SetFreeze", freeze_pb2.SetFreezeResponse),
        request=_request(tenant, all_tenants=all_tenants, validate_only=True),
        read=lambda reply: int(reply.session_count),
    )


def lift_freeze(freeze_id: str) -> Operation[freeze_pb2.LiftFreezeResponse, freeze_pb2.LiftFreezeResponse]:
    """Confirm that a freeze is to be lifted, or lift it."""
    return Operation(
        method=_method("LiftFreeze", freeze_pb2.LiftFreezeResponse),
        request=freeze_pb2.LiftFreezeRequest(freeze_id=freeze_id, request_id=new_request_id()),
        read=lambda reply: reply,
    )


def list_freezes() -> Operation[freeze_pb2.ListFreezesResponse, tuple[freeze_pb2.Freeze, ...]]:
    """Show what freezes the caller's tenant."""
    return Operation(
        method=_method("ListFreezes", freeze_pb2.ListFreezesResponse),
        request=freeze_pb2.ListFreezesRequest(),
        read=lambda reply: tuple(reply.freezes),
    )


def _request(
    tenant: str, *, all_tenants: bool, reason: str = "", validate_only: bool = False
) -> freeze_pb2.SetFreezeRequest:
    if bool(tenant) == all_tenants:
        raise InvalidRequestError("exactly one of `tenant` and `all_tenants` is required")
    request = freeze_pb2.SetFreezeRequest(
        reason=reason, validate_only=validate_only, request_id="" if validate_only else new_request_id()
    )
    if all_tenants:
        request.all_tenants = True
    else:
        request.tenant = tenant
    return request


def _method(name: str, reply: type[Reply]) -> Method[Reply]:
    return Method(path=f"/pdp.v1.FreezeService/{name}", reply=reply)
