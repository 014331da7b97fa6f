"""A request of a client over pipes that has no answer yet."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pdp.doors import refusals
from pdp.doors.mcp import answers, ending
from pdp.doors.mcp.gate import AllowedCall
from pdp.doors.mcp.messages import Message


@dataclass(eq=False)
class OpenRequest:
    """The request, and how far it is.

    `asking` is set while the PDP is asked about it, and `late` if its session was found over meanwhile; `sending` until
    the server takes it, and `acknowledged` once a subscription has begun.
    """

    request: Message
    asking: asyncio.Task[None] | None = None
    late: bool = False
    sending: asyncio.Task[None] | None = None
    allowed: AllowedCall | None = None
    acknowledged: bool = False

    def without_answer(self, why: str) -> str:
        """Return what the client gets in place of an answer, when its session does not let it have one any more."""
        if self.allowed is None:
            return ending.in_place_of(self.request)
        answer = self.allowed.call.answer
        return answers.refusal(self.request, refusals.stopped(answer, why), answers.decision_of(answer))
