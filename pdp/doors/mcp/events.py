"""The event streams in which servers of MCP answer over HTTP: events are read from bytes, and written anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from pdp.doors.mcp.messages import MOST_BYTES, InvalidMessageError

_MESSAGE = "message"
_ID = re.compile(rb"[\x21-\x7e]{1,256}")
_MILLISECONDS = re.compile(rb"[0-9]{1,9}")
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0
_MARK = b"\xef\xbb\xbf"

# A line that no reader takes for an event, and that keeps a connection open.
KEEP_ALIVE = b":\r\n\r\n"


class Event(NamedTuple):
    """One event: its text, and what it is called. Without a text it only keeps the connection open."""

    text: bytes
    kind: str = _MESSAGE

    @property
    def is_message(self) -> bool:
        """Say whether the event holds a message of MCP."""
        return self.kind == _MESSAGE and bool(self.text.strip())


class EventReader:
    """Reads events from pieces of a stream, as the HTML standard describes it, and each as soon as it has ended.

    `last_id` and `pause` (seconds) say where and when a server wants a stream that it has closed to be asked for again.
    """

    def __init__(self, last_id: str = "", pause: float = 1.0) -> None:
        self.last_id = last_id
        self.pause = pause
        self._line = bytearray()
        # Not a list of lines, which takes more memory than many short ones have bytes.
        self._text = bytearray()
        self._kind = _MESSAGE
        # The bytes of the event that has begun.
        self.held = 0
        self._begun = False
        self._after_return = False

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Yield the events that end in this piece. Raise `InvalidMessageError` when one is too large."""
        if self._after_return and piece.startswith(b"\n"):
            piece = piece[1:]
        self._after_return = piece.endswith(b"\r")
        ended = piece.splitlines()
        rest = b"" if piece.endswith((b"\n", b"\r")) else ended.pop() if ended else b""
        for part in ended:
            self._take(part)
            line = bytes(self._line)
            self._line.clear()
            if line or not self._begun:
                self._field(line)
            else:
                yield self._event()
        self._take(rest)

    def _take(self, part: bytes) -> None:
        self.held += len(part)
        if self.held > MOST_BYTES:
            raise InvalidMessageError("an event is too large")
        self._line += part

    def _field(self, line: bytes) -> None:
        if not self._begun:
            line, self._begun = line.removeprefix(_MARK), True
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._text += value + b"\n"
        elif name == b"event":
            self._kind = value.decode("utf-8", "replace") or _MESSAGE
        elif name == b"id" and _ID.fullmatch(value):
            self.last_id = value.decode("ascii")
        elif name == b"retry" and _MILLISECONDS.fullmatch(value):
            self.pause = min(max(int(value) / 1000, _SHORTEST_PAUSE), _LONGEST_PAUSE)

    def _event(self) -> Event:
        event = Event(bytes(self._text[:-1]), self._kind)
        self._text.clear()
        self._kind, self.held = _MESSAGE, 0
        return event


def written(message: str) -> bytes:
    """Return a message as an event."""
    lines = message.encode("utf-8").splitlines()
    return b"event: message\r\n" + b"".join(b"data: %b\r\n" % line for line in lines) + b"\r\n"
