"""Answer a message, on a thread of ours: as a whole, or part by part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from pdp.identity.authentication import Metadata
from pdp.model import Caller
from pdp.serving.origin import Origin, trace_parent
from pdp.serving.parts import Parts
from pdp.serving.refusedcredentials import peer_address
from pdp.serving.refusing import Refuser, attempt
from pdp.serving.rpc import RPC
from pdp.serving.status import DeadlinePassedError, Refusal
from pdp.serving.transport import Context

# How many parts go on together at most, as in the turns of a transport.
_TOGETHER = 16


def answer_of(
    handle: Callable[[Any, Origin], Any],
    caller: Caller,
    metadata: Metadata,
    request: Any,  # noqa: ANN401 - the RPC's message, or a part of it
    context: Context,
) -> Any:  # noqa: ANN401 - the RPC's answer, or that to a part
    """Return the handler's answer. Raise `DeadlinePassedError` when the caller waits no longer."""
    _require_time(context)
    return handle(request, Origin(caller=caller, parent=trace_parent(metadata)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PartByPart:
    """Answers each part of a message as if it had come by itself.

    What waits for nothing is begun in turn and finished together. A part that has to wait begins when all before it are
    finished.
    """

    rpc: RPC
    caller: Caller
    metadata: Metadata
    parts: Parts
    context: Context
    refuser: Refuser

    def answer(self, pieces: Sequence[Any]) -> bytes:
        """Return the message with the answers to all parts, or to those before the caller cancelled the call."""
        pieces, answers, together = list(pieces), list[bytes](), _TOGETHER
        # When the caller has cancelled the call, it hears no answer, and so nothing more is decided for it.
        while len(answers) < len(pieces) and self.context.is_active():
            answers += self._at_once(pieces[len(answers) :], together)
            if len(answers) < len(pieces) and self.context.is_active():
                answers.append(self._part(pieces[len(answers)]))
            # What was looked at after a part that had to wait is looked at again: not all of it for each of many.
            together = 1
        # Messages that are written one after the other are one message, with the answers of all.
        return b"".join(answers)

    def _at_once(self, pieces: Sequence[Any], together: int) -> Sequence[bytes]:
        """Answer the first parts, as far as they wait for nothing."""
        begun: list[Any] = []
        # The handler does again what has failed, and refuses the part.
        attempt(self.rpc, self.metadata, self._begin, pieces, begun, together)
        if not begun:
            return ()
        answers = attempt(self.rpc, self.metadata, self.parts.at_once.finish, begun)
        if answers is None or isinstance(answers, Refusal):
            return [self._part(piece) for piece in pieces[: len(begun)] if self.context.is_active()]
        return answers

    def _begin(self, pieces: Sequence[Any], begun: list[Any], together: int) -> None:
        """Begin parts in turn, until one has to wait, or the caller waits no longer.

        `together` go on together at first, and then twice as many each time.
        """
        origin, at_once = Origin(caller=self.caller, parent=trace_parent(self.metadata)), self.parts.at_once
        while len(begun) < len(pieces) and self.context.is_active():
            _require_time(self.context)
            some, looked_at = pieces[len(begun) : len(begun) + together], list[Any]()
            wanted = len(begun) + len(some)
            try:
                # One by one: what was begun before one that is refused stays.
                for one in at_once.begin(zip(some, repeat(origin))):
                    looked_at.append(one)
            finally:
                # What was looked at after a part that has to wait is looked at again after it, which can change it.
                begun += at_once.go_on(looked_at)
            if len(begun) < wanted:
                return
            together = min(2 * together, _TOGETHER)

    def _part(self, piece: Any) -> bytes:  # noqa: ANN401 - a part
        """Answer a part by its handler: one that is refused is told, and refuses no other."""
        metadata = self.parts.headers(piece) or self.metadata
        made = attempt(self.rpc, metadata, answer_of, self.parts.handle, self.caller, metadata, piece, self.context)
        if isinstance(made, Refusal):
            self.refuser.tell(self.rpc, self.caller, metadata, made, peer_address(self.context))
            made = self.parts.refused(piece, made)
        whole: bytes = self.parts.whole(made).SerializeToString()
        return whole


def _require_time(context: Context) -> None:
    if context.time_remaining() <= 0:
        raise DeadlinePassedError("the deadline has passed")
