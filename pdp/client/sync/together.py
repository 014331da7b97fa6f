# Generated from pdp/client/aio/together.py by `make client`; never edited.

"""Ask about the calls of many threads together: what waits while another question is under way goes as one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from pdp.client import threads
from pdp.client.batching import batch_answers, batch_message, may_be_due_to_batch
from pdp.client.errors import deadline_exceeded
from pdp.client.gathering import SOON_SECONDS, Batch, Gathering, Pairs, Question
from pdp.v1.authorization_pb2 import AuthorizeRequest

# The answer to a question that must be asked alone: its batch was refused as a whole.
_ALONE: Final = object()


class Together:
    """Asks about calls for all threads of one client.

    `authorize` and `batch_authorize` are the RPCs. When `off`, each call goes alone, as it does to a server that does
    not say that it takes batches of independent calls. Until the first answer tells, a few calls go alone.
    """

    def __init__(
        self,
        authorize: Callable[..., Any],
        batch_authorize: Callable[..., Any],
        *,
        clock: Callable[[], float],
        off: bool,
    ) -> None:
        self._authorize = authorize
        self._batch_authorize = batch_authorize
        self._clock = clock
        self._off = off
        # Guards the one that follows, and what it returns.
        self._lock = threads.Mutex()
        self._gathering = Gathering()

    def ask(self, request: AuthorizeRequest, credentials: Pairs, trace: Pairs, deadline: float) -> Any:  # noqa: ANN401 - what holds the decision
        """Return the answer about one call, which has a `decision`. Raise what gRPC raises."""
        if self._off or not self._gathering.is_open(self._clock()):
            return self._alone(request, credentials + trace, deadline)
        question = Question(request, credentials=credentials, trace=trace, deadline=deadline, signal=threads.Signal())
        try:
            return self._gathered(question)
        except BaseException:
            # A caller that is cancelled, or too late, leaves the others of its batch alone.
            self._leave(question)
            raise

    def _gathered(self, question: Question) -> Any:  # noqa: ANN401 - what holds the decision
        with self._lock:
            self._gathering.enter(question)
        # Those that ask at the same time go together from the start.
        threads.turn()
        with self._lock:
            due = self._gathering.due(question, self._clock())
        own = next((batch for batch in due if batch.questions == (question,)), None)
        self._send(batch for batch in due if batch is not own)
        if own is not None:
            return self._in_person(own)
        question.signal.wait(min(SOON_SECONDS, question.deadline - self._clock()))
        if question.answer is None:
            with self._lock:
                due = self._gathering.due(question, self._clock(), overdue=True)
            self._send(due)
            question.signal.wait(question.deadline - self._clock())
        return self._answered(question)

    def _answered(self, question: Question) -> Any:  # noqa: ANN401 - what holds the decision
        answer = question.answer
        if answer is None:
            raise deadline_exceeded()
        if answer is _ALONE:
            return self._alone(question.request, question.metadata, question.deadline)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _in_person(self, batch: Batch) -> Any:  # noqa: ANN401 - what holds the decision
        """Ask about the only call of a batch as if there were no others: its caller waits for the RPC itself."""
        (question,), answered = batch.questions, False
        try:
            answer = self._alone(question.request, question.metadata, question.deadline)
            answered = True
        finally:
            self._go_on_after(batch, answered=answered)
        return answer

    def _alone(self, request: AuthorizeRequest, metadata: Pairs, deadline: float) -> Any:  # noqa: ANN401 - what holds the decision
        answer = self._authorize(request, timeout=deadline - self._clock(), metadata=metadata)
        self._gathering.learn(answer.batch_size)
        return answer

    def _send(self, batches: Iterable[Batch]) -> None:
        """Begin to ask about batches, without waiting."""
        for batch in batches:
            done = partial(self._done, batch)
            try:
                batch.call = self._begun(batch, done)
            except Exception as error:  # noqa: BLE001 - handed to each caller, which is denied
                done(None, error)

    def _begun(self, batch: Batch, done: Callable[[Any, BaseException | None], None]) -> threads.Begun:
        first, timeout = batch.questions[0], batch.ends_at - self._clock()
        if len(batch.questions) == 1:
            return threads.Begun(self._authorize, first.request, done, timeout=timeout, metadata=first.metadata)
        message = batch_message(batch.questions)
        return threads.Begun(self._batch_authorize, message, done, timeout=timeout, metadata=first.credentials)

    def _done(self, batch: Batch, reply: Any, error: BaseException | None) -> None:  # noqa: ANN401 - gRPC has no types
        """Hand each caller its answer, or the error; then send what has waited."""
        for question, answer in zip(batch.questions, self._answers(batch, reply, error), strict=True):
            question.answer = answer
            question.signal.set()
        # Who is answered may ask again at once, and then goes together with what has waited.
        threads.after_others(partial(self._go_on_after, batch, answered=error is None))

    def _answers(self, batch: Batch, reply: Any, error: BaseException | None) -> tuple[Any, ...]:  # noqa: ANN401 - gRPC has no types
        count = len(batch.questions)
        if error is not None and count > 1 and may_be_due_to_batch(error):
            self._gathering.keep_apart(self._clock())
            return (_ALONE,) * count
        if error is not None:
            return (error,) * count
        if count == 1:
            self._gathering.learn(reply.batch_size)
            return (reply,)
        if not reply.answers:
            self._gathering.learn(0)
        return batch_answers(batch.questions, reply)

    def _go_on_after(self, batch: Batch, *, answered: bool) -> None:
        with self._lock:
            due = self._gathering.over(batch, self._clock(), answered=answered)
        self._send(due)

    def _leave(self, question: Question) -> None:
        with self._lock:
            unwanted = self._gathering.leave(question)
        if unwanted is not None and unwanted.call is not None:
            unwanted.call.cancel()
