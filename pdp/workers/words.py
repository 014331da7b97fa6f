"""The words between a worker and its supervisor: one on a line, short enough to be written as a whole."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a worker's start: it serves, or the lines for people say why not."""

    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A signal for a worker, by its number."""

    signal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """News of one worker for all others, in a file; the supervisor passes the word on unchanged."""

    id: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A worker has handled news; to the sender: all others have."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """A worker takes calls; sent every second."""


Word = Report | Signal | News | Heard | Alive

_KINDS: dict[str, Callable[..., Word]] = {kind.__name__: kind for kind in (Report, Signal, News, Heard, Alive)}


def written(word: Word) -> bytes:
    """Return a word as a line, for `read`."""
    return json.dumps({"word": type(word).__name__, **dataclasses.asdict(word)}).encode() + b"\n"


def read(line: bytes) -> Word:
    """Read a line of `written`."""
    fields = json.loads(line)
    return _KINDS[fields.pop("word")](**{name: _value(value) for name, value in fields.items()})


def _value(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
