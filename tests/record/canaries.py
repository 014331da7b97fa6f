"""Unique texts in every field of every RPC: which message carries which."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

# No message of the API holds itself; the bound is for one that some day does.
_DEEPEST = 6
_TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A message with a canary in one field, `path`, in one of the shapes that such a field can have."""

    path: str
    shape: str
    canary: str
    message: Message


def new_canary() -> str:
    """Return a text that stands nowhere else and could be an id."""
    return f"canary{secrets.token_hex(12)}"


def plantings(described: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each field of a message that holds text, with each shape of such a text."""
    for path in texts_of(described):
        for shape in _SHAPES_OF_JSON if path[-1].endswith("_json") else _SHAPES:
            yield path, shape


def plant(base: Message, path: tuple[str, ...], shape: str) -> Planted:
    """Return a copy of a message with a new canary in one field."""
    canary = new_canary()
    message = type(base)()
    message.CopyFrom(base)
    bare = canary.removeprefix("canary")
    _plant(message, path, _TEXT_OF[shape] % {"canary": canary, "hex": bare.rjust(64, "0")})
    return Planted(path=".".join(path), shape=shape, canary=bare if shape == "digest" else canary, message=message)


def texts_of(described: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each field of a message that holds text or bytes, at any depth."""
    for field in described.fields:
        path = (*above, field.name)
        if field.type in _TEXTS:
            yield path
        elif field.message_type is not None and len(path) < _DEEPEST:
            yield from texts_of(field.message_type, path)


_SHAPES = ("plain", "digest", "handle")
_SHAPES_OF_JSON = ("value", "key", "wrong type", "no json", "overflow")
_TEXT_OF = {
    "plain": "%(canary)s",
    "digest": "sha256:%(hex)s",
    "handle": "pdps_%(canary)s",
    "value": json.dumps({"team": "%(canary)s"}),
    "key": json.dumps({"%(canary)s": 1}),
    "wrong type": json.dumps({"team": "x", "count": "%(canary)s"}),
    "no json": '{"team": "%(canary)s',
    "overflow": json.dumps({"team": "%(canary)s", "count": 2**62}),
}


def _plant(message: Message, path: tuple[str, ...], text: str) -> None:
    name, *rest = path
    field = message.DESCRIPTOR.fields_by_name[name]
    value: str | bytes = text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
    if rest:
        inner = getattr(message, name)
        if field.is_repeated:
            inner = inner[0] if inner else inner.add()
        else:
            inner.SetInParent()
        _plant(inner, tuple(rest), text)
    elif field.is_repeated:
        del getattr(message, name)[:]
        getattr(message, name).append(value)
    else:
        setattr(message, name, value)
