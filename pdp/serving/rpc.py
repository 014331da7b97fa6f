"""What is said of an RPC: who may call it, how its messages go, and which threads serve it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from google.protobuf.message import Message

from pdp.model import Caller, Role

# Open to everyone without credentials, which probes cannot send. Says whether the server serves and nothing else.
PUBLIC: Final = "public"


class Shape(Enum):
    """How messages go: one and its answer; many and an answer to each; one and many answers; many and one answer."""

    UNARY = "unary"
    EXCHANGE = "exchange"
    FEED = "feed"
    UPLOAD = "upload"


class Lane(Enum):
    """Which threads serve an RPC. Lanes do not wait for each other."""

    CALLS = "calls"
    STREAMS = "streams"
    # What ends authority waits for nothing that a gateway does: a gateway has a lane of its own for it.
    ENDING = "ending"
    GATEWAY_ENDING = "ending by gateways"
    # Makes another bundle the running one, which may be what ends authority. Compiling it can take seconds.
    ACTIVATION = "activation"
    # Compiling and evaluating in the child process can take seconds.
    AUTHORING = "authoring"
    # A question may read many records, and first those that its index does not know yet.
    AUDIT = "audit"
    # Callers without credentials can fill these two and no other.
    PROBES = "probes"
    WATCHES = "watches"


# A caller with the role of a gateway, whatever its other roles are, does not enter these.
_WITHOUT_GATEWAYS: Final = frozenset({Lane.ENDING, Lane.ACTIVATION})


@dataclass(frozen=True, slots=True, kw_only=True)
class RPC:
    """One row: an RPC, who may call it, and how it is served."""

    service: str
    method: str
    request: type[Message]
    roles: frozenset[Role] | Literal["public"]
    lane: Lane
    shape: Shape = Shape.UNARY

    @property
    def path(self) -> str:
        """Return the path under which the RPC is called."""
        return f"/{self.service}/{self.method}"

    @property
    def name(self) -> str:
        """Return the full name, as traces and the record spell it."""
        return f"{self.service}/{self.method}"

    def lane_for(self, caller: Caller) -> Lane:
        """Return the lane in which a call of this caller is served."""
        barred = Role.PEP in caller.roles and self.lane in _WITHOUT_GATEWAYS
        return Lane.GATEWAY_ENDING if barred else self.lane

    @property
    def handler(self) -> str:
        """Return the name of the function that answers: the method's, in lower case with underscores."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.method).lower()
