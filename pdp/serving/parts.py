"""Messages that are answered part by part, each part as if it had come by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pdp.identity.authentication import Metadata
from pdp.serving.atonce import AtOnce
from pdp.serving.origin import Origin
from pdp.serving.status import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """How the messages of an RPC are answered part by part.

    `of` returns the parts of a message, or None for one that is answered as a whole. `handle` answers a part, `refused`
    makes the answer to one that was refused, and `whole` a message with one answer: in bytes, several of these are one
    with all their answers. `headers` returns the trace headers of a part; without any, those of the call count.
    `at_once` answers several parts that have to wait for nothing, each by such a message. It is given the origin of the
    whole, and reads by itself what a part says of its trace.
    """

    of: Callable[[Any], Sequence[Any] | None]
    handle: Callable[[Any, Origin], Any]
    at_once: AtOnce
    refused: Callable[[Any, Refusal], Any]
    whole: Callable[[Any], Any]
    headers: Callable[[Any], Metadata]
