"""What one turn of a transport's own thread answers, and what it leaves to the threads of the lanes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from pdp.clock import SystemClock
from pdp.errors import UnavailableError
from pdp.foundation.rightofway import RightOfWay
from pdp.model import Caller, Role
from pdp.observer import Event
from pdp.server.rpcs import RPCS
from pdp.serving.atonce import AtOnce
from pdp.serving.begun import BegunCalls
from pdp.serving.boundary import Boundary
from pdp.serving.idle import IdleWatch
from pdp.serving.lanes import BoundedPool, Room
from pdp.serving.origin import Origin
from pdp.serving.route import Route
from pdp.serving.rpc import Lane
from pdp.serving.transport import Context
from pdp.testing.waiting import wait_until
from pdp.v1.authorization_pb2 import AuthorizeRequest, AuthorizeResponse
from tests.machinery.servers.running import PATIENCE

CALLER = Caller(id="pep", kind="token", roles=frozenset({Role.PEP}))


class Call:
    """A call whose message came with it, and how it was answered."""

    metadata = ()
    here = in_turns = True
    cancelled = False

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.then: Callable[[], None] = lambda: None

    def auth_context(self) -> dict[str, Sequence[bytes]]:
        """Prove nothing."""
        return {}

    def at_hand(self) -> bytes:
        """Give the message."""
        return AuthorizeRequest(request_id="r").SerializeToString()

    def answer(self, _: bytes) -> None:
        """Be answered by the turn."""
        self.answers.append("turn")
        self.then()

    def serve(self, behavior: Callable[[bytes, Context], Any], wire: bytes) -> None:  # noqa: ARG002 - as transports have it
        """Be answered by a thread."""
        self.answers.append("thread")


class Taking:
    """A boundary whose calls take as much of the processor as a test says."""

    def __init__(self, opened: ExitStack) -> None:
        self.now, self.used, self.takes, self.waits = 0.0, 0.0, 0.0, 0.0
        self.takes_later, self.made, self.fails = 0.0, list[str | None](), False
        # How many were begun together each time, and which of all fails then.
        self.begun, self.fails_at_once = list[int](), 0
        rpc = RPCS["/pdp.v1.AuthorizationService/Authorize"]
        at_once = AtOnce(begin=self.begin, go_on=self.go_on, finish=lambda begun: [b""] * len(begun))
        self.route = Route(rpc=rpc, handle=lambda *_: AuthorizeResponse(), upload_bytes=0, at_once=at_once)
        self.way = RightOfWay(PATIENCE)
        self.lanes = {
            lane: BoundedPool(lane.value, Room(threads=1, bound=32, share=32), way=self.way)
            for lane in (Lane.CALLS, Lane.WATCHES)
        }
        for pool in self.lanes.values():
            opened.callback(pool.shutdown)
        clock, self.noted = SystemClock(), list[Event]()
        self.boundary = Boundary(
            {"/pdp.v1.AuthorizationService/Authorize": self.route},
            self.lanes,
            authenticator=SimpleNamespace(
                needs_peer=lambda _: False, authenticate=lambda *_: CALLER, present=lambda caller, _: caller
            ),
            observer=SimpleNamespace(event=self.noted.append),
            clock=clock,
            begun=BegunCalls(clock, limit=60.0, unknown=8),
            idle=IdleWatch(clock, limit=60.0),
            way=self.way,
        )

    def begin(self, asked: Iterable[tuple[AuthorizeRequest, Origin]]) -> Iterator[str]:
        """Begin calls, each of which takes its time, and waits for other threads."""
        self.begun.append(0)
        for request, _ in asked:
            self.begun[-1] += 1
            self.used += self.takes
            self.now += self.takes + self.waits
            if self.fails_at_once == sum(self.begun):
                raise UnavailableError("not now")
            yield request.request_id

    def go_on(self, begun: Sequence[str]) -> Sequence[str | None]:
        """Go on with calls, which take their time; make of them what a test says."""
        self.used += self.takes_later * len(begun)
        self.now += self.takes_later * len(begun)
        if self.fails:
            raise UnavailableError("not now")
        return self.made or begun

    def turn(self, *calls: Call) -> list[str]:
        """Take calls in one turn; return who has answered each, once all are."""
        for call in calls:
            self.boundary.enter(self.route, call)  # type: ignore[arg-type]
        self.boundary.turn_over()
        self.boundary.turn_left()
        self.lanes[Lane.CALLS].shutdown()
        return [answer for call in calls for answer in call.answers]


@pytest.fixture
def taking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Taking]:
    """Yield a boundary, whose thread takes no time but what its calls take."""
    with ExitStack() as opened:
        one = Taking(opened)
        time = SimpleNamespace(monotonic=lambda: one.now, thread_time=lambda: one.used)
        monkeypatch.setattr("pdp.serving.turns.time", time)
        yield one


def test_calls_of_a_long_turn_get_threads(taking: Taking) -> None:
    """Those that are quick in number can take long together: the calls of others do not wait for all of them."""
    taking.takes = 0.015

    assert taking.turn(*[Call() for _ in range(4)]) == ["turn", "turn", "thread", "thread"]


def test_a_turn_is_not_long_by_what_its_thread_waits_for(taking: Taking) -> None:
    """While other threads have the interpreter, time passes that is no reason to give them more work."""
    taking.takes, taking.waits = 0.015, 1.0

    assert taking.turn(*[Call() for _ in range(4)]) == ["turn", "turn", "thread", "thread"]


def test_each_turn_has_its_own_time(taking: Taking) -> None:
    """Calls that come one after another are all answered at once, whatever they take together."""
    taking.takes = 0.05
    calls = [Call() for _ in range(4)]
    for call in calls:
        taking.boundary.enter(taking.route, call)  # type: ignore[arg-type]
        taking.boundary.turn_over()

    assert [call.answers for call in calls] == [["turn"]] * 4


def test_what_calls_take_when_they_go_on_counts_for_the_turn(taking: Taking) -> None:
    """So many go on together, and then the turn is long for those that come after them."""
    taking.takes_later = 0.002

    assert taking.turn(*[Call() for _ in range(18)]) == ["turn"] * 16 + ["thread"] * 2


def test_no_call_is_begun_before_those_that_are_begun_with_it_have_come(taking: Taking) -> None:
    """They are decided on one snapshot, and what was acknowledged before a call came must be in its own."""
    calls = [Call() for _ in range(18)]
    began = list[list[int]]()
    for call in calls:
        taking.boundary.enter(taking.route, call)  # type: ignore[arg-type]
        began.append([*taking.begun])
    taking.boundary.turn_over()

    assert [[]] * 15 + [[16]] * 3 == began
    assert [16, 2] == taking.begun


def test_a_call_that_another_one_lets_come_is_answered_in_the_same_turn(taking: Taking) -> None:
    """Until the next turn, it would wait for whatever comes then."""
    first, second = Call(), Call()
    first.then = lambda: taking.boundary.enter(taking.route, second)  # type: ignore[arg-type]
    taking.boundary.enter(taking.route, first)  # type: ignore[arg-type]
    taking.boundary.turn_over()

    assert [["turn"], ["turn"]] == [first.answers, second.answers]


def test_a_call_that_cannot_begin_leaves_those_that_come_with_it(taking: Taking) -> None:
    """A thread refuses it, and the turn answers the others."""
    taking.fails_at_once = 2

    assert taking.turn(Call(), Call(), Call()) == ["turn", "thread", "turn"]


def test_a_call_that_has_to_wait_after_all_gets_a_thread(taking: Taking) -> None:
    """Those that went on with it are answered by the turn."""
    taking.made = ["r", None, "r"]

    assert taking.turn(Call(), Call(), Call()) == ["turn", "thread", "turn"]


def test_calls_that_cannot_go_on_get_threads(taking: Taking) -> None:
    """These do again what has failed, and refuse what must be refused."""
    taking.fails = True

    assert taking.turn(Call(), Call()) == ["thread", "thread"]


def test_calls_get_threads_when_the_answers_of_a_turn_have_left(taking: Taking) -> None:
    """Threads share the interpreter with the loop: what they compute meanwhile would hold up these answers."""
    taking.takes = 0.021
    at_once, later = Call(), Call()
    for call in (at_once, later):
        taking.boundary.enter(taking.route, call)  # type: ignore[arg-type]
    taking.boundary.turn_over()
    wait_until(lambda: len(taking.way._waiting) == 1)
    answered = [*at_once.answers, *later.answers]
    taking.boundary.turn_left()
    wait_until(lambda: bool(later.answers))

    assert answered == ["turn"]
    assert later.answers == ["thread"]


def test_calls_wait_for_no_turn_that_answers_nothing(taking: Taking) -> None:
    """Where all calls get threads, these begin as soon as all have come."""
    taking.fails_at_once, call = 1, Call()
    taking.boundary.enter(taking.route, call)  # type: ignore[arg-type]
    taking.boundary.turn_over()
    wait_until(lambda: bool(call.answers))

    assert call.answers == ["thread"]
