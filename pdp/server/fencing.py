"""Say in an answer what its change has waited for, and which revision of the store has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from pdp.errors import OverloadedError, UnavailableError
from pdp.model import Head
from pdp.server.revisions import revision_text
from pdp.sessions.fences import Fences
from pdp.sessions.lease import FencedBy
from pdp.v1 import fence_pb2 as fences_pb

# The methods whose answers have the fields `fenced_by`, `fence_duration` and `revision`.
FENCED: Final = frozenset(
    {
        "ActivateBundle",
        "ApproveSession",
        "EndSession",
        "LiftFreeze",
        "NarrowSession",
        "ReloadBundle",
        "RevokeSessions",
        "SetFreeze",
    }
)
_BY: Final[Mapping[FencedBy, fences_pb.FencedBy]] = {
    FencedBy.CONFIRMED: fences_pb.FENCED_BY_CONFIRMED,
    FencedBy.WAITED: fences_pb.FENCED_BY_WAITED,
}
_NANOSECONDS: Final = 1_000_000_000


def fenced(method: str, handle: Callable[..., Any], fences: Fences, head: Callable[[], Head]) -> Callable[..., Any]:
    """Return the handler of a method, which fills these fields if its answer has them.

    `head` returns the latest change of the store.
    """
    if method not in FENCED:
        return handle

    def handled(request: Any, *arguments: Any) -> Any:  # noqa: ANN401 - any message
        # What an earlier request of this thread has left without an answer.
        fences.take()
        answer = handle(request, *arguments)
        fence = fences.take()
        if fence is not None:
            answer.fenced_by = _BY[fence.by]
            answer.fence_duration.FromNanoseconds(round(fence.seconds * _NANOSECONDS))
        if not getattr(request, "validate_only", False):
            # The change stands, even if the store does not answer any more.
            with suppress(UnavailableError, OverloadedError):
                answer.revision = revision_text(head())
        return answer

    return handled
