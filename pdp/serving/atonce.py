"""Calls that are answered together because nothing holds them up: those of one turn of the transport, or of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pdp.serving.origin import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class AtOnce:
    """How calls are answered where nothing has to be waited for. No function waits longer than a moment.

    `begin` takes messages that have come, each with its origin, and yields what it makes of each, up to the first that
    has to wait: use all of it within a moment.
    `go_on` does what takes longest, for several calls that were begun, and returns what it makes of each; None for one
    that has to wait after all. For parts of a message, which are in order, it returns what it makes of those before the
    first that has to wait. `finish` returns the answers to all of these, in order and as bytes; None when they have to
    wait after all, and then nothing has come of them.
    """

    begin: Callable[[Iterable[tuple[Any, Origin]]], Iterator[Any]]
    go_on: Callable[[Sequence[Any]], Sequence[Any | None]]
    finish: Callable[[Sequence[Any]], Sequence[bytes] | None]
