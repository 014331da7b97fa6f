"""One call as its connection has it: what is known of it, and the messages that have come."""

from __future__ import annotations

from collections import deque
from typing import Final

from grpc import StatusCode

from pdp.serving.http2.metadata import Metadata

PREFIX_BYTES: Final = 5

Refused = tuple[StatusCode, str]


class Stream:
    """A call. Only the thread of its connection may use it.

    `single` says that it has just one message, which is taken when it is known that no other follows. `kept` are bytes
    that have come and for which the peer may send no others yet. `asked` says that a message is waited for.
    """

    __slots__ = (
        "answering",
        "asked",
        "body",
        "deadline_at",
        "ended",
        "id",
        "kept",
        "messages",
        "metadata",
        "over",
        "path",
        "single",
        "told",
    )

    def __init__(self, number: int, *, path: str, metadata: Metadata, single: bool, deadline_at: float) -> None:
        self.id = number
        self.path = path
        self.metadata = metadata
        self.single = single
        self.deadline_at = deadline_at
        self.body = bytearray()
        self.messages: deque[bytes] = deque()
        self.kept = 0
        self.ended = self.answering = self.asked = self.over = self.told = False

    @property
    def ready(self) -> bool:
        """Say whether a message, or the end of them, can be taken."""
        return self.ended or bool(self.messages and not self.single)

    def take(self, data: bytes, *, ended: bool, most: int) -> Refused | None:
        """Take a part of a message, and return how the call is refused if it breaks a rule."""
        self.kept += len(data)
        self.ended = ended
        if _is_whole(data, most) and not self.body and not (self.single and self.messages):
            self.messages.append(data[PREFIX_BYTES:])
            return None
        self.body += data
        return self._cut(most)

    def _cut(self, most: int) -> Refused | None:
        body = self.body
        while len(body) >= PREFIX_BYTES:
            length = int.from_bytes(body[1:PREFIX_BYTES])
            if body[0]:
                return StatusCode.INTERNAL, "the message is compressed, and does not say how"
            if length > most:
                # In the words of gRPC, so that clients read the same whichever transport they meet.
                return StatusCode.RESOURCE_EXHAUSTED, f"SERVER: Received message larger than max ({length} vs. {most})"
            if self.single and (self.messages or len(body) > length + PREFIX_BYTES):
                return StatusCode.INTERNAL, "the call has more than one message"
            if len(body) < length + PREFIX_BYTES:
                break
            self.messages.append(bytes(body[PREFIX_BYTES : length + PREFIX_BYTES]))
            del body[: length + PREFIX_BYTES]
        if self.single and self.messages and body:
            return StatusCode.INTERNAL, "the call has more than one message"
        if self.ended and body:
            return StatusCode.INTERNAL, "the call has no whole message"
        return None


def _is_whole(data: bytes, most: int) -> bool:
    """Say whether this is one message that is not too long, and nothing else: so it almost always comes."""
    length = len(data) - PREFIX_BYTES
    return 0 <= length <= most and data[:PREFIX_BYTES] == length.to_bytes(PREFIX_BYTES)
