"""Decode messages strictly: no undecodable bytes, and no field twice."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from pdp.errors import InvalidRequestError

M = TypeVar("M", bound=Message)

_LENGTH_DELIMITED = 2


def read(kind: type[M], wire: bytes) -> M:
    """Decode a message. Raise `InvalidRequestError` for undecodable bytes or a repeated field.

    When a field occurs twice, each reader believes another one; protobuf's own rule is to merge the two.
    """
    try:
        message = kind.FromString(wire)
    except DecodeError:
        raise InvalidRequestError("request", f"the bytes are not a valid `{kind.DESCRIPTOR.full_name}`") from None
    # Merging always shortens, so only bytes whose length differs from what we would write need the full check.
    if message.ByteSize() != len(wire):
        _refuse_twice(kind.DESCRIPTOR, wire, "")
    return message


def _refuse_twice(kind: Any, wire: bytes, prefix: str) -> None:  # noqa: ANN401 - a descriptor, of which there are two types
    seen: dict[str, int] = {}
    entries: Any = UnknownFieldSet(Empty.FromString(wire))  # every field is unknown to an empty message
    for entry in entries:
        field = kind.fields_by_number.get(entry.field_number)
        if field is None:
            continue
        name = field.containing_oneof.name if field.containing_oneof else field.name
        count = seen[name] = seen.get(name, 0) + 1
        if count > 1 and not field.is_repeated:
            raise InvalidRequestError(prefix + name, "appears twice")
        if field.message_type is not None and entry.wire_type == _LENGTH_DELIMITED:
            index = f"[{count - 1}]" if field.is_repeated else ""
            _refuse_twice(field.message_type, entry.data, f"{prefix}{name}{index}.")
