"""Which calls wait, and which go to the server together: pure, and shared by both clients.

A call goes at once while no other is under way. What waits meanwhile goes together as soon as an answer comes. To a
server that is far away several messages are under way, each with an equal part of the calls.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from pdp.v1.authorization_pb2 import AuthorizeRequest

# What one batch holds at most. A server must take messages of this size.
MOST_CALLS, MOST_BYTES = 100, 64 * 1024
# How many batches of calls with the same credentials are under way at most.
MOST_UNDER_WAY = 4
# A call waits so long for the answer to another one, in seconds, and not at all while answers take longer: then its own
# way to the server costs more than asking together saves.
SOON_SECONDS = 0.002
# What a call of a batch takes a server, in seconds: what is left of the time of an answer is the way.
_DECIDING_SECONDS = 0.00015
# By how much the time of the quickest answer grows with each later one: that a server was near once is forgotten after
# a hundred answers.
_FORGETTING = 1.05
# The same for the shortest way: a server that is busy is as near as before, and is found far away after 400 answers.
_FORGETTING_WAY = 1.005
# No way counts as shorter, in seconds, or its time could not grow again.
_SHORTEST_WAY = SOON_SECONDS / 10
# How long calls go alone after something has refused a batch as a whole.
_APART_SECONDS = 60.0

Pairs = tuple[tuple[str, str], ...]


class Question:
    """A call that is asked about. `answer` is None until there is one; `signal` tells whoever waits for it."""

    __slots__ = ("answer", "batch", "credentials", "deadline", "request", "signal", "size", "trace")

    def __init__(
        self,
        request: AuthorizeRequest,
        *,
        credentials: Pairs,
        trace: Pairs,
        deadline: float,
        signal: Any,  # noqa: ANN401 - of tasks or of threads
    ) -> None:
        self.request = request
        self.credentials, self.trace = credentials, trace
        self.deadline = deadline
        self.signal = signal
        self.size = request.ByteSize() + sum(len(value) for _, value in trace)
        self.batch: Batch | None = None
        self.answer: Any = None

    @property
    def metadata(self) -> Pairs:
        """Return the metadata of the call when it goes alone."""
        return self.credentials + self.trace


class Batch:
    """Questions that go to the server in one RPC, of which there can be only one; `call` can cancel it."""

    __slots__ = ("began_at", "call", "ends_at", "left", "over", "questions")

    def __init__(self, questions: tuple[Question, ...], now: float) -> None:
        self.questions = questions
        self.began_at, self.ends_at = now, max(question.deadline for question in questions)
        self.left = len(questions)
        self.over = False
        self.call: Any = None


class Gathering:
    """The questions of one client: those that wait, and those under way. Hold a lock while using it.

    Only questions with the same credentials go together. Times are seconds of the client's clock.
    """

    def __init__(self) -> None:
        # None until the first answer says it: a client that begins with many calls at once must not flood the server.
        self._batch_size: int | None = None
        self._apart_until = -math.inf
        self._quickest = self._shortest_way = math.inf
        self._queues: dict[Pairs, _Queue] = {}

    def is_open(self, now: float) -> bool:
        """Say whether calls can wait for each other: not if the server takes no batches of independent calls."""
        return self._batch_size is None or self._most_calls(now) > 1

    def learn(self, batch_size: int) -> None:
        """Take note of how many independent calls the server takes in one batch; 0 for none."""
        self._batch_size = batch_size

    def keep_apart(self, now: float) -> None:
        """Let calls go alone for a while."""
        self._apart_until = now + _APART_SECONDS

    def enter(self, question: Question) -> None:
        """Let a question wait."""
        self._queues.setdefault(question.credentials, _Queue()).waiting.append(question)

    def due(self, question: Question, now: float, *, overdue: bool = False) -> tuple[Batch, ...]:
        """Return what goes now of all that waits with the credentials of a question; nothing if that is under way.

        When the question is `overdue`, none of it waits for an answer.
        """
        return () if question.batch is not None else self._taken(question.credentials, now, overdue=overdue)

    def over(self, batch: Batch, now: float, *, answered: bool) -> tuple[Batch, ...]:
        """Take note that a batch is no longer under way, and return what goes now."""
        batch.over = True
        if answered:
            took = now - batch.began_at
            self._quickest = min(took, self._quickest * _FORGETTING)
            way = took - len(batch.questions) * _DECIDING_SECONDS
            self._shortest_way = min(max(way, _SHORTEST_WAY), self._shortest_way * _FORGETTING_WAY)
        credentials = batch.questions[0].credentials
        queue = self._queues.get(credentials)
        if queue is not None and batch in queue.under_way:
            queue.under_way.remove(batch)
        return self._taken(credentials, now)

    def leave(self, question: Question) -> Batch | None:
        """Take out a question for which no caller waits; return its batch if none waits for any part of that."""
        batch, queue = question.batch, self._queues.get(question.credentials)
        if batch is None:
            if queue is not None and question in queue.waiting:
                queue.waiting.remove(question)
                self._forget_if_empty(question.credentials)
            return None
        batch.left -= 1
        return batch if not batch.left and not batch.over else None

    @property
    def _is_far(self) -> bool:
        """Say whether the way to the server takes long, whatever the server does there."""
        return SOON_SECONDS < self._shortest_way < math.inf

    def _most_calls(self, now: float) -> int:
        return min(self._batch_size or 1, MOST_CALLS) if now >= self._apart_until else 1

    def _taken(self, credentials: Pairs, now: float, *, overdue: bool = False) -> tuple[Batch, ...]:
        queue = self._queues.get(credentials)
        if queue is None:
            return ()
        # A batch whose answer never came, such as one of a thread that was ended, is over by its deadline.
        queue.under_way = [batch for batch in queue.under_way if batch.ends_at > now]
        taken: list[Batch] = []
        waits_for_answer = not overdue and self._quickest <= SOON_SECONDS
        while queue.waiting and (len(queue.under_way) < MOST_UNDER_WAY or not self.is_open(now)):
            most_calls = self._most_calls(now)
            if self._is_far:
                most_calls = min(most_calls, queue.share)
            count, full = queue.next_batch(most_calls)
            if waits_for_answer and not full and queue.under_way:
                break
            # For what is late, no caller waits any more.
            questions = tuple(one for one in (queue.waiting.popleft() for _ in range(count)) if one.deadline > now)
            if questions:
                batch = Batch(questions, now)
                for one in questions:
                    one.batch = batch
                queue.under_way.append(batch)
                taken.append(batch)
        self._forget_if_empty(credentials)
        return tuple(taken)

    def _forget_if_empty(self, credentials: Pairs) -> None:
        queue = self._queues[credentials]
        if not (queue.waiting or queue.under_way):
            del self._queues[credentials]


class _Queue:
    """The questions with the same credentials."""

    __slots__ = ("under_way", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Question] = deque()
        self.under_way: list[Batch] = []

    @property
    def share(self) -> int:
        """Return how many questions each batch has if all that are open are under way at once, in equal parts."""
        return math.ceil((len(self.waiting) + sum(batch.left for batch in self.under_way)) / MOST_UNDER_WAY)

    def next_batch(self, most_calls: int) -> tuple[int, bool]:
        """Return how many questions the next batch takes, and whether it is full. One too large goes alone."""
        count = size = 0
        for question in self.waiting:
            size += question.size
            if count == most_calls or (count and size > MOST_BYTES):
                return count, True
            count += 1
        return count, count == most_calls
