"""What becomes of a request over HTTP that no session of the PDP stands behind."""

from __future__ import annotations

from pdp.doors import refusals
from pdp.doors.mcp import answers, methods
from pdp.doors.mcp import headers as http
from pdp.doors.mcp.messages import Message
from pdp.doors.mcp.replies import Reply
from pdp.doors.observing import CallUnderWay, refuse
from pdp.doors.traces import placed
from pdp.observer import CallOutcome, DoorObserver, Refusal
from pdp.serving.web import FORBIDDEN, UNAVAILABLE, RefusedRequestError

_OK = 200


def refused(missing: str) -> RefusedRequestError:
    """Return the error for a request to which no message is an answer. `missing` says why there is no session."""
    if missing == refusals.AWAY:
        return RefusedRequestError(UNAVAILABLE, missing)
    return RefusedRequestError(FORBIDDEN, missing, why=Refusal.SESSION)


async def answer(
    message: Message, missing: str, reply: Reply, headers: http.Headers, *, server: str, observer: DoorObserver | None
) -> None:
    """Say why there is no session: where clients show it, which is in an answer. Raise as `refused` where none can be.

    A call of a tool is one for the observer, too.
    """
    if not message.method or message.id is None:
        raise refused(missing)
    away, status = missing == refusals.AWAY, _OK
    if message.method == methods.CALL:
        call = CallUnderWay(
            observer,
            message.method,
            placed=placed(message.meta, headers),
            server=server,
            request_id=str(message.id),
            transport="tcp",
        )
        call.over(CallOutcome.UNDECIDED if away else CallOutcome.DENY)
    else:
        status = UNAVAILABLE if away else _OK
        refuse(observer, Refusal.UNDECIDED if away else Refusal.SESSION)
    await reply.message(answers.refusal(message, missing), status=status)
