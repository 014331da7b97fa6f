"""What a change has waited for until every server answers by it, as the reply to the change says it.

`on_fence` is called with that, for each change that was made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from pdp.client.enumwords import word_of
from pdp.v1 import freeze_pb2, policy_pb2, session_pb2
from pdp.v1.fence_pb2 import FENCED_BY_UNSPECIFIED, FencedBy

_NANOSECONDS = 1_000_000_000

Changed: TypeAlias = (
    session_pb2.ApproveSessionResponse
    | session_pb2.EndSessionResponse
    | session_pb2.NarrowSessionResponse
    | session_pb2.RevokeSessionsResponse
    | freeze_pb2.SetFreezeResponse
    | freeze_pb2.LiftFreezeResponse
    | policy_pb2.ActivateBundleResponse
    | policy_pb2.ReloadBundleResponse
)
Reply = TypeVar("Reply", bound=Changed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """Why no server answers from before a change, and how many seconds it has waited for that.

    `by` is `confirmed` when each has said that it knows it, and `waited` when one has not and what it could answer from
    before is over. Both are empty where no server answers from memory of its own. `revision` can be given to a question
    as `min_revision`; empty when the store did not say it.
    """

    by: str = ""
    seconds: float = 0.0
    revision: str = ""


OnFence = Callable[[Fence], object] | None


def fence_of(reply: Changed) -> Fence:
    """Return what the reply to a change says of its fence."""
    by = "" if reply.fenced_by == FENCED_BY_UNSPECIFIED else word_of(FencedBy, reply.fenced_by)
    return Fence(by=by, seconds=reply.fence_duration.ToNanoseconds() / _NANOSECONDS, revision=reply.revision)


def told(reply: Reply, on_fence: OnFence) -> Reply:
    """Tell what a reply says of its fence, and return it."""
    if on_fence is not None:
        on_fence(fence_of(reply))
    return reply


def fence_text(fence: Fence) -> str:
    """Return what a change has waited for as a sentence; empty for nothing."""
    after = f"after {fence.seconds:.2g} s" if fence.seconds < 1 else f"after {fence.seconds:.3g} s"
    match fence.by:
        case "":
            return ""
        case "confirmed":
            return f"every server confirmed it {after}"
        case _:
            return f"a server did not confirm it; {after} none can answer from before it any more"
