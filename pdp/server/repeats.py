"""Answer a change that is asked for again under the same request id as the first time, without making it twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any, TypeVar

from pdp.errors import ConflictError, NotFoundError, WrongStateError
from pdp.server.fields import optional_id
from pdp.serving.origin import Origin
from pdp.sessions.writes import Write

T = TypeVar("T")


class Repeats:
    """What became of changes that a caller asks for again, as `written` knows it."""

    def __init__(self, written: Callable[[Write], tuple[str, ...] | None]) -> None:
        self._written = written

    def once(
        self,
        request: Any,  # noqa: ANN401 - a message with a `request_id`
        origin: Origin,
        change: Callable[[Write | None], T],
        again: Callable[[tuple[str, ...]], T],
        *,
        idle: Callable[[T], bool] = lambda _: False,
    ) -> T:
        """Make a change, or return what `again` makes of the ids that it has written when it was made before.

        `idle` says of what `change` returns whether it has found nothing to change. Raise what they raise, and
        `RequestIdConflictError` when the request id was used for another change.
        """
        write = write_of(request, origin)
        if write is None:
            return change(None)
        ids = self._written(write)
        if ids is not None:
            return again(ids)
        # An earlier try, whose answer was lost, can come to its end meanwhile.
        try:
            found = change(write)
        except (ConflictError, NotFoundError, WrongStateError):
            ids = self._written(write)
            if ids is None:
                raise
            return again(ids)
        ids = self._written(write) if idle(found) else None
        return found if ids is None else again(ids)


def write_of(request: Any, origin: Origin) -> Write | None:  # noqa: ANN401 - the same
    """Return which change of its caller a request is for; None when it has no request id."""
    request_id = optional_id("request_id", request.request_id)
    if not request_id:
        return None
    asked = type(request)()
    asked.CopyFrom(request)
    asked.ClearField("request_id")
    content = asked.DESCRIPTOR.full_name.encode() + b"\0" + asked.SerializeToString(deterministic=True)
    # An id is one of its caller and tenant: nobody else can use it up, or learn what became of it.
    owned = json.dumps([origin.caller.id, origin.caller.tenant, request_id])
    return Write(key=sha256(owned.encode()).digest(), digest=sha256(content).digest())
