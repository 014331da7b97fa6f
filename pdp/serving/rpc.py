"""The description of an RPC: who may call it, how its messages flow, and which threads serve it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final, Literal

from google.protobuf.message import Message

from pdp.model import Caller, Role

# Open to everyone without credentials, because probes cannot send any. Says whether the server serves, nothing else.
PUBLIC: Final = "public"


class Shape(Enum):
    """How messages flow: one and one answer; many, each answered; one and many answers; many and one answer.

    A watch is one message and many answers, and holds no thread.
    """

    UNARY = "unary"
    EXCHANGE = "exchange"
    FEED = "feed"
    UPLOAD = "upload"
    WATCH = "watch"


class Lane(Enum):
    """Which threads serve an RPC. Lanes do not wait for each other."""

    # By identity: each call looks its lane up, and `Enum` would hash the name in an extra call.
    __hash__ = object.__hash__

    CALLS = "calls"
    STREAMS = "streams"
    # Each report is a write, and can wait for the store.
    REPORTS = "reports"
    # What ends authority never waits for a gateway's calls: gateways have a separate lane for it.
    ENDING = "ending"
    GATEWAY_ENDING = "ending by gateways"
    # Activates another bundle, which can itself end authority. Compiling takes up to seconds.
    ACTIVATION = "activation"
    # Compiling and evaluating in the child process takes up to seconds.
    AUTHORING = "authoring"
    # A question can read many records, and first those that the index does not hold yet.
    AUDIT = "audit"
    # Asks the policies about many tools and reads many sessions, for people.
    REVIEWS = "reviews"
    # Each watch has a thread for as long as it is open. Those of gateways cannot keep people from watching.
    ACCESS_WATCHES = "watches of access requests"
    GATEWAY_ACCESS_WATCHES = "watches of access requests by gateways"
    # These hold no thread; its calls are only counted.
    SESSION_WATCHES = "watches of sessions"
    # Callers without credentials can fill these two lanes and no other.
    PROBES = "probes"
    WATCHES = "watches"


# What ends authority, and what a call has shown, counts even if whoever sent it has left in the meantime.
_DONE_ANYWAY: Final = frozenset({Lane.ENDING, Lane.ACTIVATION, Lane.REPORTS})

# A caller with the role of a gateway does not enter these, whatever its other roles are, but the lanes beside them.
_OF_GATEWAYS: Final[Mapping[Lane, Lane]] = MappingProxyType(
    {
        Lane.ENDING: Lane.GATEWAY_ENDING,
        Lane.ACTIVATION: Lane.GATEWAY_ENDING,
        Lane.ACCESS_WATCHES: Lane.GATEWAY_ACCESS_WATCHES,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RPC:
    """A row of the table: an RPC, who may call it, and how it is served.

    An RPC with `presence` wants an approver who is present, and takes an ID token as evidence.
    """

    service: str
    method: str
    request: type[Message]
    roles: frozenset[Role] | Literal["public"]
    lane: Lane
    shape: Shape = Shape.UNARY
    presence: bool = False

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
        return _OF_GATEWAYS.get(self.lane, self.lane) if Role.PEP in caller.roles else self.lane

    @property
    def done_anyway(self) -> bool:
        """Say whether it is done for a caller that has cancelled the call before it was begun."""
        return self.lane in _DONE_ANYWAY

    @property
    def handler(self) -> str:
        """Return the name of the function that answers: the method's, in lower case with underscores."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.method).lower()
