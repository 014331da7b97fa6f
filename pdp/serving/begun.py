"""Calls that have begun and whose message has not come: each caller is asked for a few messages at a time.

Clients begin many calls at once and send their messages after all of these. Only a call that is asked can take the
memory of a whole message: of the others a peer sends 64 KiB at most. A caller that sends no messages must not take what
other callers need.
"""

from __future__ import annotations

import threading
from typing import Protocol

from pdp.clock import Clock
from pdp.errors import OverloadedError, PDPError
from pdp.serving.lanes import BoundedPool
from pdp.serving.status import MessageLateError

# How many calls of a caller are asked at a time in a lane. As many wait as are in its share of the lane: their messages
# can lie unread in a socket. No share of a lane that ends authority is larger: there no call waits to be asked.
ASKED = 32
# A caller of whom more calls than this wait loses its oldest to a call for which the lane has no room.
_MANY = 64
# A call that was asked so long ago ends for one that waits to be asked. One that has waited as long for that ends, too.
_PATIENCE_SECONDS = 1.0

# A lane and its caller; empty without credentials.
Group = tuple[BoundedPool, str] | tuple[()]


class BegunCall(Protocol):
    """A call that has begun. `waits` says that it was counted here as one that waits."""

    waits: bool

    @property
    def group(self) -> Group:
        """Return with which others it is counted."""
        ...

    def ask(self) -> bool:
        """Ask for the message; say whether it has come at once. A call that waits is taken out before it goes on."""
        ...

    def follow(self) -> None:
        """See that it is taken out when its caller leaves. A call that is asked hears of that anyway."""
        ...

    def give_up(self, error: PDPError) -> None:
        """End with an error, without waiting."""
        ...


class _Calls:
    """The calls of a group, in order: those that are asked, with when they began and were asked, and the others."""

    __slots__ = ("asked", "asking", "unasked")

    def __init__(self) -> None:
        self.asked: dict[BegunCall, tuple[float, float]] = {}
        self.unasked: dict[BegunCall, float] = {}
        # Whether one of them is being asked: it can come at once, and must not ask the next one by recursion.
        self.asking = False

    def __len__(self) -> int:
        return len(self.asked) + len(self.unasked)

    def oldest(self) -> BegunCall:
        return next(iter(self.unasked or self.asked))


class BegunCalls:
    """Calls that wait for their message, up to `limit` seconds of the boot clock. Safe for threads.

    All callers without credentials are one group: `unknown` of their calls are asked, and one more ends the oldest.
    INVARIANT: each call is taken out once, and only the code that took it out goes on with it.
    """

    def __init__(self, clock: Clock, *, limit: float, unknown: int) -> None:
        self._clock = clock
        self._limit, self._unknown = limit, unknown
        # Guards the groups.
        self._lock = threading.Lock()
        self._groups: dict[Group, _Calls] = {}

    def __len__(self) -> int:
        """Return how many calls wait."""
        with self._lock:
            return sum(map(len, self._groups.values()))

    def enter(self, lane: BoundedPool, owner: str) -> None:
        """Count a call in its lane, in the place of one that waits if need be. Raise `OverloadedError` without room."""
        try:
            lane.enter(owner)
        except OverloadedError:
            if not self._makes_room(lane, owner):
                raise
            lane.enter(owner)

    def begin(self, call: BegunCall) -> None:
        """Ask for the message of a call, now or in its turn. On the transport's own thread alone."""
        if not self._has_turn(call.group):
            self._put_off(call)
        elif not call.ask():
            call.waits = True
            now = self._clock.now().boot_at
            with self._lock:
                self._groups.setdefault(call.group, _Calls()).asked[call] = now, now

    def take(self, call: BegunCall) -> bool:
        """Take a call out, and ask the next one; False when it was already taken out."""
        calls = self._remove(call)
        if calls is not None and calls.unasked:
            self._ask(calls)
        return calls is not None

    def sweep(self) -> None:
        """End the calls that have waited too long; call this about once a second."""
        now = self._clock.now().boot_at
        since, tired = now - self._limit, now - _PATIENCE_SECONDS
        with self._lock:
            groups = [*self._groups.values()]
            late = [call for calls in groups for call, began_at in calls.unasked.items() if began_at <= since]
            late += [call for calls in groups for call, (began_at, _) in calls.asked.items() if began_at <= since]
        for call in late:
            self._end(call, MessageLateError("the message did not arrive in time (limit `message_seconds`)"))
        for calls in groups:
            if calls.unasked:
                self._pass_turns(calls, tired)

    def _pass_turns(self, calls: _Calls, tired: float) -> None:
        """Ask others in place of calls that were asked before `tired`, and end those that wait since then."""
        with self._lock:
            slow = [call for call, (_, asked_at) in calls.asked.items() if asked_at <= tired]
        for call in slow:
            self._end(call, _too_many(ASKED))
        self._ask(calls)
        with self._lock:
            left = [call for call, began_at in calls.unasked.items() if began_at <= tired]
        for call in left:
            self._end(call, _too_many(ASKED))

    def _has_turn(self, group: Group) -> bool:
        """Say whether one more call of a group can be asked.

        If need be, the one that was asked first ends for it: after a while, and without credentials at once.
        """
        most = ASKED if group else self._unknown
        with self._lock:
            calls = self._groups.get(group)
            if calls is None or len(calls.asked) < most:
                return True
            first, (_, asked_at) = next(iter(calls.asked.items()))
        if group and asked_at > self._clock.now().boot_at - _PATIENCE_SECONDS:
            return False
        # Without credentials none waits for a turn. If another thread has just taken the first out, there is room, too.
        return self._end(first, _too_many(most)) or not group

    def _put_off(self, call: BegunCall) -> None:
        call.waits = True
        with self._lock:
            self._groups.setdefault(call.group, _Calls()).unasked[call] = self._clock.now().boot_at
        call.follow()

    def _ask(self, calls: _Calls) -> None:
        """Ask calls in their turn, as many as may be asked."""
        with self._lock:
            if calls.asking:
                return
            calls.asking = True
        while (call := self._next(calls)) is not None:
            call.ask()

    def _next(self, calls: _Calls) -> BegunCall | None:
        with self._lock:
            call = next(iter(calls.unasked), None) if len(calls.asked) < ASKED else None
            if call is None:
                calls.asking = False
            else:
                calls.asked[call] = calls.unasked.pop(call), self._clock.now().boot_at
        return call

    def _makes_room(self, lane: BoundedPool, owner: str) -> bool:
        """End a call of the caller itself, or, if it has less than its share, of the one of whom most wait."""
        with self._lock:
            most = self._groups.get((lane, owner), _Calls())
            if len(most) <= _MANY and lane.has_share(owner):
                most = max((calls for group, calls in self._groups.items() if lane in group), key=len, default=most)
            oldest = most.oldest() if len(most) > _MANY else None
        return oldest is not None and self._end(oldest, _too_many(_MANY))

    def _remove(self, call: BegunCall) -> _Calls | None:
        group = call.group
        with self._lock:
            calls = self._groups.get(group)
            if calls is None or (calls.asked.pop(call, None) is None and calls.unasked.pop(call, None) is None):
                return None
            if not calls:
                del self._groups[group]
            return calls

    def _end(self, call: BegunCall, error: PDPError) -> bool:
        ended = self._remove(call) is not None
        if ended:
            call.give_up(error)
        return ended


def _too_many(most: int) -> OverloadedError:
    return OverloadedError(f"more than {most} calls wait for their message; try again")
