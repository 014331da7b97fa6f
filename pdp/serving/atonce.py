"""Calls that are answered together because nothing holds them up: those of one turn of the transport, or of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pdp.serving.origin import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class AtOnce:
    """How calls are answered where nothing has to be waited for. Neither function waits longer than a moment.

    `begin` returns what it makes of a message; None for one that has to wait. `finish` returns the answers to all that
    was begun, in order and as bytes; None when they have to wait after all, and then nothing has come of them.
    """

    begin: Callable[[Any, Origin], Any | None]
    finish: Callable[[Sequence[Any]], Sequence[bytes] | None]
