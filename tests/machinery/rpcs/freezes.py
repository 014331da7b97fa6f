"""RPCs about freezes. They are about tenants and no session, so the suites only ask what a freeze would stop."""

from __future__ import annotations

from collections.abc import Mapping

from pdp.v1.freeze_pb2 import (
    Freeze,
    LiftFreezeRequest,
    LiftFreezeResponse,
    ListFreezesRequest,
    ListFreezesResponse,
    SetFreezeRequest,
    SetFreezeResponse,
)
from tests.machinery.rpcs.asking import BIDI, LONG_ID
from tests.machinery.rpcs.row import ANY, REFUSED, WATCHFUL, Cells, Row, Wrapped
from tests.machinery.rpcs.states import ALL_STATES, ANYHOW

_FREEZE = Freeze(freeze_id="frz_1", tenant="default", reason="acts strangely", set_by="ann")
_NONE = Cells(*["NOT_FOUND"] * 4)

FREEZES: Mapping[str, Row] = {
    "SetFreeze": Row(
        ask=lambda _: SetFreezeRequest(all_tenants=True, validate_only=True),
        # Of their own tenant the others may ask: `tests/decision/cases/frozen.yaml`.
        roles={"operator": ANY, "approver": REFUSED, "admin": REFUSED, "revoker": REFUSED},
        states=ANYHOW,
        wrong=(
            (SetFreezeRequest(reason="x"), "selector"),
            (SetFreezeRequest(reason="x", tenant=""), "tenant"),
            (SetFreezeRequest(reason="x", tenant=LONG_ID), "tenant"),
            (SetFreezeRequest(reason="x", all_tenants=False), "all_tenants"),
            (SetFreezeRequest(all_tenants=True), "reason"),
            (SetFreezeRequest(all_tenants=True, reason=BIDI), "reason"),
            (SetFreezeRequest(all_tenants=True, reason="a\nb", validate_only=True), "reason"),
            (SetFreezeRequest(all_tenants=True, reason="x", request_id="a b"), "request_id"),
        ),
        wrapped=Wrapped(
            lambda client: client.set_freeze(tenant="default", reason="acts strangely"),
            SetFreezeRequest(tenant="default", reason="acts strangely"),
            SetFreezeResponse(freeze=_FREEZE),
            _FREEZE,
        ),
        without_bundle="OK",
    ),
    "LiftFreeze": Row(
        ask=lambda _: LiftFreezeRequest(freeze_id="frz_unknown"),
        roles=dict.fromkeys(("operator", "approver", "admin"), _NONE),
        states=dict.fromkeys(ALL_STATES, "NOT_FOUND"),
        wrong=(
            (LiftFreezeRequest(), "freeze_id"),
            (LiftFreezeRequest(freeze_id="frz 1"), "freeze_id"),
            (LiftFreezeRequest(freeze_id="frz_1", request_id="a b"), "request_id"),
        ),
        wrapped=Wrapped(
            lambda client: client.lift_freeze("frz_1"),
            LiftFreezeRequest(freeze_id="frz_1"),
            LiftFreezeResponse(freeze=_FREEZE),
            LiftFreezeResponse(freeze=_FREEZE),
        ),
        status="NOT_FOUND",
        without_bundle="NOT_FOUND",
    ),
    "ListFreezes": Row(
        ask=lambda _: ListFreezesRequest(),
        roles=dict.fromkeys((*WATCHFUL, "operator"), ANY),
        states=ANYHOW,
        wrapped=Wrapped(
            lambda client: client.list_freezes(),
            ListFreezesRequest(),
            ListFreezesResponse(freezes=[_FREEZE]),
            (_FREEZE,),
        ),
        without_bundle="OK",
    ),
}
