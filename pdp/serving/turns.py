"""The turns of a transport's own thread: what calls begin in one is finished together, before its answers leave."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar

from pdp.foundation.rightofway import RightOfWay
from pdp.model import Caller
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
_BEGIN, _GO_ON, _FINISH = map(attrgetter, ("at_once.begin", "at_once.go_on", "at_once.finish"))


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
        # What has come in this turn, and what of that went on, by RPC.
        self._come: dict[str, list[C]] = {}
        self._gone_on: dict[str, Together[C]] = {}
        self._began, self._used_before = math.inf, 0.0

    def takes(self, call: C) -> bool:
        """Take a call that may be answered without waiting, for the end of the turn; say whether it is taken."""
        if call.route.at_once is None or not call.incoming.in_turns:
            return False
        calls = self._come.setdefault(call.route.rpc.method, [])
        calls.append(call)
        if len(calls) >= _TOGETHER:
            self._go_on(call.route.rpc.method)
        return True

    def over(self) -> None:
        """Answer what has come in this turn."""
        # A call that is answered can let another one come, which waited to be asked for its message.
        while self._come or self._gone_on:
            for method in tuple(self._come):
                self._go_on(method)
            turn, self._gone_on = self._gone_on, {}
            for calls, made in turn.values():
                # The disk can hold up the write of the record.
                self._held_up.since = time.monotonic()
                self._finish(calls, made)
                self._held_up.since = math.inf
        self._began = math.inf

    def left(self) -> None:
        """End a turn whose answers have left."""
        self._way.release()

    def _go_on(self, method: str) -> None:
        """Begin the calls of an RPC that have come, and go on with them."""
        self._held_up.since = time.monotonic()
        calls, begun = self._begun(self._come.pop(method))
        made = _done_together(calls, begun, _GO_ON) if calls else ()
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

    def _begun(self, calls: Sequence[C]) -> Together[C]:
        """Begin the answers to calls of one RPC, and hand those to their lane that have to wait."""
        route, metadata = calls[0].route, calls[0].incoming.metadata
        going, all_begun = list[C](), list[Any]()
        while calls:
            begun = list[Any]()
            # What was begun before one that fails stays.
            attempt(route.rpc, metadata, _take_all, _BEGIN(route), self._asked(calls), begun)
            if begun:
                self._way.take()
            all_begun += begun
            going += calls[: len(begun)]
            # One of our threads does again what has failed, and refuses the call.
            for call in calls[len(begun) : len(begun) + 1]:
                self._queue(call)
            calls = calls[len(begun) + 1 :]
        return going, all_begun

    def _asked(self, calls: Sequence[C]) -> Iterator[tuple[Any, Origin]]:
        """Yield the messages of calls with their origins, until the turn is long."""
        for call in calls:
            if self._is_long(time.monotonic()):
                return
            origin = Origin(caller=call.caller, parent=trace_parent(call.incoming.metadata))
            yield read(call.route.rpc.request, call.wire), origin

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


def _take_all(begin: Callable[[Iterator[Any]], Iterator[Any]], asked: Iterator[Any], begun: list[Any]) -> None:
    begun.extend(begin(asked))


def _done_together(
    calls: Sequence[Arrived], begun: Sequence[Any], step: Callable[[Route], Any]
) -> Sequence[Any] | None:
    """Do a step for calls of one RPC; None when it has failed: one of our threads does it again, as in `_begun`."""
    first = calls[0]
    made = attempt(first.route.rpc, first.incoming.metadata, step(first.route), begun)
    return None if isinstance(made, Refusal) else made
