"""Answer a message, on a thread of ours: as a whole, or part by part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pdp.identity.authentication import Metadata
from pdp.model import Caller
from pdp.serving.atonce import AtOnce
from pdp.serving.origin import Origin, trace_parent
from pdp.serving.parts import Parts
from pdp.serving.refusedcredentials import peer_address
from pdp.serving.refusing import Refuser, attempt
from pdp.serving.rpc import RPC
from pdp.serving.status import DeadlinePassedError, Refusal
from pdp.serving.transport import Context


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
        origin = Origin(caller=self.caller, parent=trace_parent(self.metadata))
        answers: list[Any] = []
        begun: list[tuple[Any, Any]] = []
        for piece in pieces:
            if not self.context.is_active():
                # The caller has cancelled the call: it hears no answer, so nothing more is decided for it.
                break
            made = attempt(self.rpc, self.metadata, _begin, self.parts.at_once, piece, origin, self.context)
            # The handler does again what has failed, and refuses the part.
            if made is None or isinstance(made, Refusal):
                answers += self._finish(begun)
                answers.append(self._part(piece))
                begun = []
            else:
                begun.append((piece, made))
        answers += self._finish(begun)
        whole: bytes = self.parts.whole(answers).SerializeToString()
        return whole

    def _finish(self, begun: Sequence[tuple[Any, Any]]) -> Sequence[Any]:
        if not begun:
            return ()
        answers = attempt(self.rpc, self.metadata, self.parts.at_once.finish, [one for _, one in begun])
        if answers is None or isinstance(answers, Refusal):
            return [self._part(piece) for piece, _ in begun]
        return answers

    def _part(self, piece: Any) -> Any:  # noqa: ANN401 - a part, and its answer
        """Answer a part by its handler: one that is refused is told, and refuses no other."""
        metadata = self.parts.headers(piece) or self.metadata
        made = attempt(self.rpc, metadata, answer_of, self.parts.handle, self.caller, metadata, piece, self.context)
        if isinstance(made, Refusal):
            self.refuser.tell(self.rpc, self.caller, metadata, made, peer_address(self.context))
            return self.parts.refused(piece, made)
        return made


def _begin(at_once: AtOnce, piece: Any, origin: Origin, context: Context) -> Any | None:  # noqa: ANN401 - a part, and what is begun of it
    _require_time(context)
    return at_once.begin(piece, origin)


def _require_time(context: Context) -> None:
    if context.time_remaining() <= 0:
        raise DeadlinePassedError("the deadline has passed")
