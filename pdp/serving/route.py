"""How one RPC is served: its row of the table, and what handles it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pdp.identity.authentication import Metadata
from pdp.serving.atonce import AtOnce
from pdp.serving.parts import Parts
from pdp.serving.rpc import RPC
from pdp.serving.status import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How one RPC is served: the function that handles it, and how many bytes an upload can have in all.

    A unary RPC that has waited for a thread longer than `longest_wait` seconds is refused.
    An RPC that is `elsewhere` is not served at this address; the refusal says where to call it.
    `in_band` writes a refusal as a message of an exchange, which then goes on; without it a refusal ends the exchange.
    `parts` says how a message is answered part by part; None for an RPC whose messages have no parts.
    `at_once` says how a call is answered without a thread; None for an RPC that always has one.
    `headers` reads the trace headers that a message has of its own; without any, those of the call count.
    """

    rpc: RPC
    handle: Callable[..., Any]
    upload_bytes: int
    longest_wait: float = math.inf
    in_band: Callable[[bytes, Refusal], bytes] | None = None
    parts: Parts | None = None
    at_once: AtOnce | None = None
    headers: Callable[[bytes], Metadata] = lambda _: ()
    elsewhere: bool = False
