"""What the server tells callers of themselves."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pdp.model import AT_EACH_CALL, Bounds, Caller, Role, TraceParent
from pdp.server.callers import CallerHandlers
from pdp.serving.origin import Origin
from pdp.v1 import caller_pb2 as callers

PERSON = Caller(
    id="ann",
    kind="jwt",
    roles=frozenset({Role.AUDITOR, Role.APPROVER}),
    tenant="acme",
    authenticated_at=1_700_000_000.5,
    user_groups=("idp/finance", "idp/operators"),
)
PROGRAM = Caller(
    id="gateway",
    kind="spiffe",
    roles=frozenset({Role.PEP}),
    bounds=Bounds(tenants=frozenset({"default", "acme"}), users=frozenset({"bob", "alice"}), sees_results=False),
)
TRIAL = Caller(id="approver", kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)


@pytest.mark.parametrize(
    ("caller", "told"),
    [
        (
            PERSON,
            callers.Caller(
                caller_id="ann",
                roles=["approver", "auditor"],
                tenants=["acme"],
                credential="jwt",
                user_groups=["idp/finance", "idp/operators"],
                authenticate_time=Timestamp(seconds=1_700_000_000, nanos=500_000_000),
            ),
        ),
        (
            PROGRAM,
            callers.Caller(
                caller_id="gateway",
                roles=["pep"],
                tenants=["acme", "default"],
                users=["alice", "bob"],
                credential="spiffe",
                sees_no_results=True,
            ),
        ),
        (
            TRIAL,
            callers.Caller(
                caller_id="approver", roles=["approver"], tenants=["default"], credential="token", always_present=True
            ),
        ),
    ],
    ids=["person", "program", "trial"],
)
def test_a_caller_is_told_what_it_is_taken_for(caller: Caller, told: callers.Caller) -> None:
    """The answer holds id, roles, tenants and presence of the caller that asks, and nothing that proves it."""
    origin = Origin(caller=caller, parent=TraceParent())

    assert told == CallerHandlers().get_caller(callers.GetCallerRequest(), origin).caller
