"""RPCs about the caller itself."""

from __future__ import annotations

from collections.abc import Mapping

from pdp.v1.caller_pb2 import Caller, GetCallerRequest, GetCallerResponse
from tests.machinery.rpcs.row import ANY, EVERYONE, Row, Wrapped
from tests.machinery.rpcs.states import ANYHOW

_CALLER = Caller(caller_id="ann", roles=["approver"], tenants=["default"], credential="jwt")

CALLERS: Mapping[str, Row] = {
    "GetCaller": Row(
        ask=lambda _: GetCallerRequest(),
        roles=dict.fromkeys(EVERYONE, ANY),
        states=ANYHOW,
        wrapped=Wrapped(
            lambda client: client.get_caller(),
            GetCallerRequest(),
            GetCallerResponse(caller=_CALLER),
            _CALLER,
        ),
        without_store="OK",
        without_bundle="OK",
    ),
}
