"""What a change has waited for, as the client gives it to its caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from pdp.client import freezes, operations
from pdp.client.fencing import Fence, OnFence, fence_of, fence_text
from pdp.client.operations import Operation
from pdp.v1.fence_pb2 import FENCED_BY_CONFIRMED, FENCED_BY_WAITED
from pdp.v1.policy_pb2 import ActivateBundleResponse
from pdp.v1.session_pb2 import EndSessionResponse, RevokeSessionsResponse

APPROVED: dict[str, Any] = {"request_digest": "", "grants": (), "tools": (), "duration": None, "terms": None}
REVOKED: dict[str, Any] = {"session_id": "ses_1", "user": "", "agent": "", "tenant": "", "of_tenant": ""}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            lambda told: operations.approve_session("ses_1", id_token="", on_fence=told, **APPROVED), id="approve"
        ),
        pytest.param(lambda told: operations.end_session("pdps_1", on_fence=told), id="end"),
        pytest.param(lambda told: operations.revoke_sessions(reason="x", on_fence=told, **REVOKED), id="revoke"),
        pytest.param(
            lambda told: operations.narrow_session("ses_1", tools=(), expires_at=None, labels=(), on_fence=told),
            id="narrow",
        ),
        pytest.param(
            lambda told: freezes.set_freeze(tenant="a", all_tenants=False, reason="x", on_fence=told), id="freeze"
        ),
    ],
)
def test_who_makes_a_change_hears_of_its_fence(change: Callable[[OnFence], Operation[Any, Any]]) -> None:
    """And of its revision; the result is the same as without."""
    found: list[Fence] = []
    telling, silent = change(found.append), change(None)
    reply = telling.method.reply(
        fenced_by=FENCED_BY_WAITED, fence_duration=Duration(seconds=1, nanos=13_000_000), revision="r1"
    )
    results = [one.read(reply) for one in (telling, silent)]

    assert results[0] == results[1]
    assert [Fence(by="waited", seconds=1.013, revision="r1")] == found


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (EndSessionResponse(), ""),
        (
            RevokeSessionsResponse(fenced_by=FENCED_BY_CONFIRMED, fence_duration=Duration(nanos=12_345_678)),
            "every server confirmed it after 0.012 s",
        ),
        (
            ActivateBundleResponse(fenced_by=FENCED_BY_WAITED, fence_duration=Duration(seconds=5, nanos=51_000_000)),
            "a server did not confirm it; after 5.05 s none can answer from before it any more",
        ),
    ],
)
def test_a_fence_in_words(reply: Any, text: str) -> None:
    """Nothing is said where no server answers from memory of its own."""
    assert text == fence_text(fence_of(reply))
