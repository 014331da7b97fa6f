"""Requests that were sent on, until the gateway asks about their results."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from pdp.client.aio.admitted import AsyncAdmittedCall
from pdp.doors.mcp.messages import Message
from pdp.doors.observing import NO_RESULT, UNOBSERVED, CallUnderWay
from pdp.observer import CallOutcome

_LOG = logging.getLogger(__name__)

# A report must come within 15 minutes.
RESULT_SECONDS: Final = 600.0
_MOST_OPEN: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request that was sent on. `call` is what is left to do about its result, None for nothing.

    `request` says no more of it than an answer in place of the result needs. `under_way` is told what becomes of a
    call.
    """

    method: str
    services: tuple[str, ...]
    handle: str = field(repr=False)
    request: Message = field(repr=False)
    call: AsyncAdmittedCall | None = field(default=None, repr=False)
    under_way: CallUnderWay = field(default=UNOBSERVED, repr=False)


class Exchanges:
    """Keeps requests by names that nobody guesses. The gateway never asks about the result of one that has failed.

    So a call whose result has not been shown for `lasting` seconds is reported as failed. So is, beyond a bound, the
    oldest one of the session that has most: a flood takes no other session's place. Make it where the event loop runs.
    """

    def __init__(self, lasting: float = RESULT_SECONDS) -> None:
        self._lasting = lasting
        self._open: dict[str, tuple[Exchange, asyncio.TimerHandle]] = {}
        # The names of each session's, by its handle, the oldest first.
        self._names: dict[str, dict[str, None]] = {}
        self._reports: set[asyncio.Task[object]] = set()

    def put(self, exchange: Exchange) -> str:
        """Keep a request, and return its name."""
        name = secrets.token_urlsafe(16)
        timer = asyncio.get_running_loop().call_later(self._lasting, self._lost, name)
        self._open[name] = exchange, timer
        self._names.setdefault(exchange.handle, {})[name] = None
        if len(self._open) > _MOST_OPEN:
            most = max(self._names, key=lambda handle: len(self._names[handle]))
            self._lost(next(iter(self._names[most])))
        return name

    def take(self, name: str) -> Exchange | None:
        """Return the request of a name once; None if there is none."""
        if name not in self._open:
            return None
        exchange, timer = self._open.pop(name)
        timer.cancel()
        of_session = self._names[exchange.handle]
        del of_session[name]
        if not of_session:
            del self._names[exchange.handle]
        return exchange

    async def close(self) -> None:
        """Report all calls that are open as failed."""
        for name in tuple(self._open):
            self._lost(name)
        if self._reports:
            await asyncio.wait(self._reports)

    def _lost(self, name: str) -> None:
        exchange = self.take(name)
        if exchange is None:
            return
        exchange.under_way.over(CallOutcome.ALLOW, NO_RESULT)
        if exchange.call is not None:
            _LOG.warning(
                "a call is reported as failed, since its result was not shown: it ended in an error, or the gateway "
                "does not ask about results"
            )
            self.report(exchange.call.failed())

    def report(self, reporting: Coroutine[Any, Any, object]) -> None:
        """Make a report that nobody waits for."""
        task = asyncio.ensure_future(reporting)
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)
