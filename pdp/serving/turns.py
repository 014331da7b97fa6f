"""The turns of a transport's own thread: what calls begin in one is finished together, before its answers leave."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar

from pdp.foundation.rightofway import RightOfWay
from pdp.model import Caller
from pdp.serving.atonce import AtOnce
from pdp.serving.decoding import read
from pdp.serving.lanes import BoundedPool
from pdp.serving.origin import Origin, trace_parent
from pdp.serving.refusing import attempt
from pdp.serving.route import Route
from pdp.serving.status import Refusal
from pdp.serving.transport import Incoming

# How much of the processor one turn may take on the transport's own thread before the rest of its calls get threads.
_LONGEST_SECONDS = 0.02
# How many calls go on together: with 4, deciding takes 0.84 of the time, with 16 it takes 0.77. What they take counts
# for the turn only then.
_TOGETHER = 16
_GO_ON, _FINISH = attrgetter("at_once.go_on"), attrgetter("at_once.finish")


class Arrived(Protocol):
    """A call that was admitted and counted in its lane, and whose message has arrived."""

    route: Route
    lane: BoundedPool
    caller: Caller
    owner: str
    incoming: Incoming
    wire: bytes


C = TypeVar("C", bound=Arrived)
# Calls of one RPC, and what was made of each.
Together = tuple[list[C], list[Any]]


class HeldUp:
    """Since when a call holds up the transport's own thread, as the monotonic clock says; infinity while none does."""

    __slots__ = ("since",)

    def __init__(self) -> None:
        self.since = math.inf


class Turns(Generic[C]):
    """Answers calls on the transport's own thread, those of one turn together; `queue` hands a call to its lane.

    From the first of them until `left`, the turn has the right of `way`.
    """

    def __init__(self, queue: Callable[[C], None], held_up: HeldUp, way: RightOfWay) -> None:
        self._queue = queue
        self._held_up = held_up
        self._way = way
        # What was begun in this turn, and what of that went on, by RPC.
        self._begun: dict[str, Together[C]] = {}
        self._gone_on: dict[str, Together[C]] = {}
        self._began, self._used_before = math.inf, 0.0

    def begins(self, call: C) -> bool:
        """Begin the answer to a call; say whether that was possible without waiting."""
        at_once, rpc = call.route.at_once, call.route.rpc
        if at_once is None or not call.incoming.in_turns or self._is_long(now := time.monotonic()):
            return False
        self._held_up.since = now
        begun = attempt(rpc, call.incoming.metadata, _begin, at_once, call)
        self._held_up.since = math.inf
        # One of our threads does again what has failed, and refuses the call.
        if begun is None or isinstance(begun, Refusal):
            return False
        self._way.take()
        calls, all_begun = self._begun.setdefault(rpc.method, ([], []))
        calls.append(call)
        all_begun.append(begun)
        if len(calls) >= _TOGETHER:
            self._go_on(rpc.method)
        return True

    def over(self) -> None:
        """Answer what was begun in this turn."""
        for method in tuple(self._begun):
            self._go_on(method)
        turn, self._gone_on = self._gone_on, {}
        self._began = math.inf
        for calls, made in turn.values():
            # The disk can hold up the write of the record.
            self._held_up.since = time.monotonic()
            self._finish(calls, made)
            self._held_up.since = math.inf

    def left(self) -> None:
        """End a turn whose answers have left."""
        self._way.release()

    def _go_on(self, method: str) -> None:
        """Go on with what was begun of the calls of an RPC."""
        calls, begun = self._begun.pop(method)
        self._held_up.since = time.monotonic()
        made = _done_together(calls, begun, _GO_ON)
        self._held_up.since = math.inf
        if made is None:
            made = [None] * len(calls)
        going, gone_on = self._gone_on.get(method, ([], []))
        for call, one in zip(calls, made, strict=True):
            if one is None:
                self._queue(call)
            else:
                going.append(call)
                gone_on.append(one)
        if going:
            self._gone_on[method] = going, gone_on

    def _is_long(self, now: float) -> bool:
        """Say whether this turn has taken so long that the calls of other callers would wait for the rest of it.

        What a question to the policies takes also depends on the arguments, which agents choose.
        """
        if self._began == math.inf:
            self._began, self._used_before = now, time.thread_time()
        # No thread uses more than has passed, and what it used costs a call of the system to ask.
        if now - self._began <= _LONGEST_SECONDS:
            return False
        # Of this thread alone: while others have the interpreter, waiting for it is no reason to give them more work.
        return time.thread_time() - self._used_before > _LONGEST_SECONDS

    def _finish(self, calls: Sequence[C], made: Sequence[Any]) -> None:
        answers = _done_together(calls, made, _FINISH)
        if answers is None:
            for call in calls:
                self._queue(call)
            return
        # Before any is sent: an answer that cannot be must not leave those after it counted.
        for call in calls:
            call.lane.leave(call.owner)
        for call, answer in zip(calls, answers, strict=True):
            call.incoming.answer(answer)


def _done_together(
    calls: Sequence[Arrived], begun: Sequence[Any], step: Callable[[Route], Any]
) -> Sequence[Any] | None:
    """Do a step for calls of one RPC; None when it has failed: one of our threads does it again, as in `begins`."""
    first = calls[0]
    made = attempt(first.route.rpc, first.incoming.metadata, step(first.route), begun)
    return None if isinstance(made, Refusal) else made


def _begin(at_once: AtOnce, call: Arrived) -> Any | None:  # noqa: ANN401 - what is begun is the RPC's
    origin = Origin(caller=call.caller, parent=trace_parent(call.incoming.metadata))
    return next(at_once.begin((read(call.route.rpc.request, call.wire),), origin), None)
