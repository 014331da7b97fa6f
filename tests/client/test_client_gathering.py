"""Which calls wait, which go, and which go together."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.client.gathering import MOST_BYTES, MOST_CALLS, MOST_UNDER_WAY, SOON_SECONDS, Batch, Gathering, Question
from pdp.v1.authorization_pb2 import AuthorizeRequest
from pdp.v1.decision_pb2 import Call

ADA = (("authorization", "Bearer ada"),)
BOB = (("authorization", "Bearer bob"),)
SLOW = 2 * SOON_SECONDS


def _question(
    name: str = "", *, size: int = 0, credentials: tuple[tuple[str, str], ...] = ADA, deadline: float = 2.0
) -> Question:
    call = Call(arguments_json=b" " * size)
    request = AuthorizeRequest(call=call, request_id=name)
    return Question(request, credentials=credentials, trace=(), deadline=deadline, signal=None)


class Asked:
    """A gathering at a server that takes batches of a size, None for unknown, and a time that the test moves."""

    def __init__(self, *, batch_size: int | None = 100) -> None:
        self.gathering = Gathering()
        if batch_size is not None:
            self.gathering.learn(batch_size)
        self.now = 0.0

    def ask(self, *questions: Question) -> tuple[Batch, ...]:
        """Let questions wait one after the other, and return what went."""
        return tuple(batch for question in questions for batch in self._entered(question))

    def ask_at_once(self, names: str, *, deadline: float = 2.0) -> tuple[Batch, ...]:
        """Let questions wait together, and return what went."""
        questions = [_question(name, deadline=deadline) for name in names]
        for question in questions:
            self.gathering.enter(question)
        return self.gathering.due(questions[0], self.now)

    def overdue(self, question: Question) -> tuple[Batch, ...]:
        """Return what goes because a question has waited long enough."""
        return self.gathering.due(question, self.now, overdue=True)

    def answered(self, batch: Batch, *, after: float = 0.0) -> tuple[Batch, ...]:
        """Let an answer come, and return what goes then."""
        self.now += after
        return self.gathering.over(batch, self.now, answered=True)

    def _entered(self, question: Question) -> tuple[Batch, ...]:
        self.gathering.enter(question)
        return self.gathering.due(question, self.now)


@pytest.fixture
def near() -> Asked:
    """Return a gathering at a server that answers soon."""
    asked = Asked()
    (first,) = asked.ask(_question())
    asked.answered(first, after=SOON_SECONDS / 20)
    return asked


@pytest.fixture
def far() -> Asked:
    """Return a gathering at a server that does not answer soon."""
    asked = Asked()
    (first,) = asked.ask(_question())
    asked.answered(first, after=SLOW)
    return asked


def _names(batches: Iterable[Batch]) -> list[list[str]]:
    return [[question.request.request_id for question in batch.questions] for batch in batches]


@pytest.mark.parametrize(("batch_size", "takes"), [(0, False), (1, False), (2, True)])
def test_only_a_server_that_says_so_gets_batches(batch_size: int, *, takes: bool) -> None:
    """A server that does not know independent calls, or takes one, is asked about each alone."""
    assert takes is Asked(batch_size=batch_size).gathering.is_open(0.0)


@pytest.mark.parametrize(("batch_size", "then"), [(100, [["e", "f"]]), (0, [["e"], ["f"], ["g"]])])
def test_a_server_that_is_not_known_yet_gets_few_calls(batch_size: int, then: list[list[str]]) -> None:
    """Each alone; its first answer says how all that wait go."""
    asked = Asked(batch_size=None)

    gone = asked.ask(*map(_question, "abcdefg"))
    asked.gathering.learn(batch_size)

    assert [["a"], ["b"], ["c"], ["d"]] == _names(gone)
    assert then == _names(asked.answered(gone[2], after=SLOW))


def test_what_waits_goes_with_the_next_answer(near: Asked) -> None:
    """The first call goes at once; those that come while it is under way go together when it is answered."""
    (first,) = near.ask(_question("a"))
    meanwhile = near.ask(_question("b"), _question("c"))
    then = near.answered(first)

    assert ([["a"]], [], [["b", "c"]]) == (_names([first]), _names(meanwhile), _names(then))
    assert [] == _names(near.answered(then[0]))


def test_a_batch_is_cut_at_its_number_of_calls(near: Asked) -> None:
    """A full batch does not wait for an answer; the rest does."""
    near.ask(_question())

    gone = near.ask(*[_question(str(number)) for number in range(MOST_CALLS + 1)])

    assert [[str(number) for number in range(MOST_CALLS)]] == _names(gone)


def test_the_limit_of_the_server_counts(near: Asked) -> None:
    """A server that takes fewer calls gets smaller batches."""
    near.gathering.learn(2)
    near.ask(_question())

    assert [["a", "b"]] == _names(near.ask(_question("a"), _question("b"), _question("c")))


def test_a_batch_is_cut_at_its_bytes(near: Asked) -> None:
    """What would make a batch too large waits for the next one, and a call that is too large goes alone."""
    near.ask(_question())
    half, whole = MOST_BYTES // 2 - 100, MOST_BYTES + 1

    gone = near.ask(_question("a", size=half), _question("b", size=half), _question("c", size=half))
    alone = near.ask(_question("d", size=whole), _question("e"))

    assert [["a", "b"]] == _names(gone)
    assert [["c"], ["d"]] == _names(alone)


def test_few_batches_are_under_way(near: Asked) -> None:
    """Beyond the bound full batches wait too."""
    (first,) = near.ask(_question())

    gone = near.ask(*[_question() for _ in range(MOST_CALLS * MOST_UNDER_WAY)])

    assert MOST_UNDER_WAY - 1 == len(gone)
    assert [MOST_CALLS] == [len(batch.questions) for batch in near.answered(first)]


def test_far_away_calls_do_not_wait_for_one_answer(far: Asked) -> None:
    """Where answers take long, several batches are under way, up to the bound."""
    gone = far.ask(*[_question(name) for name in "abcdef"])

    assert [["a"], ["b"], ["c"], ["d"]] == _names(gone)
    assert [["e", "f"]] == _names(far.answered(gone[1], after=SLOW))


@pytest.mark.parametrize(
    ("names", "parts"),
    [("abcd", [["a"], ["b"], ["c"], ["d"]]), ("abcdef", [["a", "b"], ["c", "d"], ["e", "f"]])],
)
def test_far_away_what_waits_goes_in_parts(far: Asked, names: str, parts: list[list[str]]) -> None:
    """Otherwise all callers would wait for each other, and then for the way, again and again."""
    assert parts == _names(far.ask_at_once(names))


def test_a_server_that_is_busy_is_not_far_away(near: Asked) -> None:
    """An answer about many calls takes long, and so do all for a while: one message costs the server least."""
    busy, many = Asked(), "x" * 60
    (batch,) = busy.ask_at_once(many)
    busy.answered(batch, after=len(many) * 0.00015)
    for _ in range(100):
        (batch,) = near.ask(_question(deadline=1e9))
        near.answered(batch, after=SLOW)

    assert [["a", "b", "c", "d"]] == _names(busy.ask_at_once("abcd"))
    assert [["a", "b", "c", "d"]] == _names(near.ask_at_once("abcd", deadline=1e9))


def test_a_server_that_was_quicker_than_expected_can_be_far_away(near: Asked) -> None:
    """It has answered many calls in less time than they are taken to need; then another one takes its place."""
    (batch,) = near.ask_at_once("x" * 60)
    near.answered(batch, after=60 * 0.00005)
    for _ in range(500):
        (batch,) = near.ask(_question(deadline=1e9))
        near.answered(batch, after=SLOW)

    assert [["a"], ["b"], ["c"], ["d"]] == _names(near.ask_at_once("abcd", deadline=1e9))


def test_a_way_that_was_quick_once_is_forgotten(near: Asked) -> None:
    """What counts is how long answers take lately."""
    for _ in range(100):
        (batch,) = near.ask(_question(deadline=1e9))
        near.answered(batch, after=SLOW)

    assert [["a"], ["b"]] == _names(near.ask(*[_question(name, deadline=1e9) for name in "ab"]))


def test_a_call_does_not_wait_long_for_a_slow_one(near: Asked) -> None:
    """When the answer does not come soon, what waits goes all the same."""
    waiting = _question("b")
    near.ask(_question("a"), waiting, _question("c"))
    near.now += SOON_SECONDS

    assert [["b", "c"]] == _names(near.overdue(waiting))
    assert [] == _names(near.overdue(waiting))


def test_other_credentials_are_another_batch(near: Asked) -> None:
    """Calls with different credentials neither go together nor wait for each other."""
    (ada,) = near.ask(_question("a"))
    gone = near.ask(*[_question(name, credentials=BOB if name in "bd" else ADA) for name in "bcde"])

    assert [["b"]] == _names(gone)
    assert [["c", "e"]] == _names(near.answered(ada))
    assert [["d"]] == _names(near.answered(gone[0]))


def test_a_call_that_is_too_late_does_not_go(near: Asked) -> None:
    """No caller hears its answer any more."""
    (first,) = near.ask(_question())
    near.ask(_question("late", deadline=1.0), _question("b"))

    assert [["b"]] == _names(near.answered(first, after=1.0))


def test_a_batch_has_the_time_of_its_latest_call(near: Asked) -> None:
    """One caller with little time left takes none from the others."""
    (first,) = near.ask(_question())
    near.ask(_question(deadline=1.0), _question(deadline=3.0), _question(deadline=2.0))

    assert [3.0] == [batch.ends_at for batch in near.answered(first)]


def test_a_batch_without_an_end_is_over_by_its_deadline(near: Asked) -> None:
    """What was lost, such as with the thread that asked, holds up no later call."""
    near.ask(_question(deadline=1.0))
    waiting = _question("b")
    near.ask(waiting)
    near.now = 1.0

    assert [["b"], ["c"]] == _names([*near.gathering.due(waiting, 1.0), *near.ask(_question("c", credentials=BOB))])


def test_a_call_that_is_given_up_while_it_waits_does_not_go(near: Asked) -> None:
    """It is taken out, and the others go."""
    (first,) = near.ask(_question())
    given_up = _question("b")
    near.ask(given_up, _question("c"))

    assert near.gathering.leave(given_up) is None
    assert [["c"]] == _names(near.answered(first))


def test_a_batch_that_all_have_given_up_is_unwanted(near: Asked) -> None:
    """Only the last caller that leaves ends it, and none does when it is answered."""
    (first,) = near.ask(_question())
    near.ask(b := _question("b"), c := _question("c"))
    (batch,) = near.answered(first)

    assert [None, batch] == [near.gathering.leave(b), near.gathering.leave(c)]

    near.answered(batch)
    assert near.gathering.leave(c) is None


def test_after_a_refused_batch_calls_go_alone_for_a_while(near: Asked) -> None:
    """What waits goes alone too; later it is tried again."""
    (first,) = near.ask(_question())
    near.ask(_question("b", deadline=99.0), _question("c", deadline=99.0))
    near.gathering.keep_apart(near.now)

    assert [["b"], ["c"]] == _names(near.answered(first))
    assert [False, False, True] == [near.gathering.is_open(near.now + later) for later in (0.0, 59.9, 60.0)]


@given(
    st.lists(
        st.tuples(st.sampled_from(["ask", "late", "answer", "fail", "leave", "wait"]), st.integers(0, 7)), max_size=60
    ),
    st.integers(2, 4),
)
def test_whatever_happens_each_call_goes_once(events: list[tuple[str, int]], batch_size: int) -> None:
    """No call goes twice or in a batch that is too large, few are under way, and in the end nothing is left."""
    asked, entered, under_way, gone = Asked(batch_size=batch_size), list[Question](), list[Batch](), list[Batch]()

    def take(batches: tuple[Batch, ...]) -> None:
        under_way.extend(batches)
        gone.extend(batches)

    for kind, which in events:
        asked.now += 0.001 * which
        if kind in ("ask", "late"):
            deadline = asked.now + (1e6 if kind == "ask" else 0.002)
            entered.append(_question(credentials=(ADA, BOB)[which % 2], deadline=deadline))
            take(asked.ask(entered[-1]))
        elif kind in ("answer", "fail") and under_way:
            batch = under_way.pop(which % len(under_way))
            take(asked.gathering.over(batch, asked.now, answered=kind == "answer"))
        elif kind == "leave" and entered:
            asked.gathering.leave(entered.pop(which % len(entered)))
        elif kind == "wait" and entered:
            take(asked.overdue(entered[which % len(entered)]))
        for credentials in (ADA, BOB):
            open_ones = [one for one in under_way if one.questions[0].credentials == credentials]
            assert sum(one.ends_at > asked.now for one in open_ones) <= MOST_UNDER_WAY
    while under_way:
        take(asked.gathering.over(under_way.pop(), asked.now, answered=True))

    went = [question for batch in gone for question in batch.questions]
    assert len(went) == len(set(map(id, went)))
    assert max([0, *[len(batch.questions) for batch in gone]]) <= batch_size
    assert all(len({question.credentials for question in batch.questions}) == 1 for batch in gone)
    assert all(question.batch is not None or question.deadline <= asked.now for question in entered)
    assert not asked.gathering._queues
