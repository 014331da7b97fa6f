"""Calls that are answered on the transport's own thread: all that one turn of it brings, together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pdp.serving.origin import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class AtOnce:
    """How an RPC is answered where nothing has to be waited for. Neither function waits longer than a moment.

    `begin` returns what it makes of a message; None for one that needs a thread. `finish` returns the answers to all
    that was begun in a turn, in order; None when they need threads after all, and then nothing has come of them.
    """

    begin: Callable[[Any, Origin], Any | None]
    finish: Callable[[Sequence[Any]], Sequence[bytes] | None]
