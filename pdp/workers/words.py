"""What a worker and its supervisor say to each other: one word a line, short enough to be written as a whole."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a worker's start went: it serves, or these lines for people say why it does not."""

    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A signal for a worker, by its number."""

    signal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """One worker tells all others what stands in a file; by way of the supervisor, who passes it on as it is."""

    id: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A worker has dealt with news; or, to the one who told them, all others have."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """A worker takes calls; said every second."""


Word = Report | Told | News | Heard | Alive

_KINDS: dict[str, Callable[..., Word]] = {kind.__name__: kind for kind in (Report, Told, News, Heard, Alive)}


def written(word: Word) -> bytes:
    """Return a word as a line, for `read`."""
    return json.dumps({"word": type(word).__name__, **dataclasses.asdict(word)}).encode() + b"\n"


def read(line: bytes) -> Word:
    """Read a line of `written`."""
    fields = json.loads(line)
    return _KINDS[fields.pop("word")](**{name: _value(value) for name, value in fields.items()})


def _value(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
