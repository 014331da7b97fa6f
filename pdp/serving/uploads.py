"""Receive an upload larger than one message: several messages of one call, limited in bytes and in time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import TypeVar

from google.protobuf.message import Message

from pdp.serving.decoding import read
from pdp.serving.status import MessageLateError, MessageTooLargeError
from pdp.serving.transport import Incoming

M = TypeVar("M", bound=Message)

# The limit for a whole upload, because it occupies one of the few threads of its lane. The largest needs 2 Mbit/s.
MOST_SECONDS = 60.0
# The memory that a message, and each entry of a list in it, takes beyond its bytes.
_MESSAGE_BYTES = 1024
_ENTRY_BYTES = 128


def receive(kind: type[M], first: bytes, incoming: Incoming, *, most: int) -> tuple[M, ...]:
    """Return the messages of an upload, starting with `first`; wait for the others.

    Raise `InvalidRequestError` for a message that cannot be read, `MessageTooLargeError` when all are larger than
    `most` bytes together, and `MessageLateError` when they do not arrive in time.
    """
    messages, size = [], 0
    for wire in _wires(first, incoming):
        message = read(kind, wire)
        size += len(wire) + _MESSAGE_BYTES + _ENTRY_BYTES * _entries(message)
        if size > most:
            raise MessageTooLargeError(f"the messages together are larger than {most} bytes (limit `bundle_bytes`)")
        messages.append(message)
    return tuple(messages)


def _wires(first: bytes, incoming: Incoming) -> Iterator[bytes]:
    latest = time.monotonic() + MOST_SECONDS
    received: SimpleQueue[bytes | None] = SimpleQueue()
    wire: bytes | None = first
    while wire is not None:
        yield wire
        incoming.receive(received.put)
        try:
            wire = received.get(timeout=max(0.0, latest - time.monotonic()))
        except Empty:
            raise MessageLateError(f"the messages did not arrive within {MOST_SECONDS:g} s") from None


def _entries(message: Message) -> int:
    return sum(len(value) for field, value in message.ListFields() if field.is_repeated)
