"""The transports, by the names that the settings have for them."""

from __future__ import annotations

from typing import Final, Protocol

from pdp.limits import Limits
from pdp.serving.boundary import Boundary
from pdp.serving.grpctransport import GRPCTransport
from pdp.serving.incoming import require_known_grpc
from pdp.serving.listener import Listener
from pdp.serving.transport import Transport

GRPC: Final = "grpc"
LOOP: Final = "loop"


class Serving(Protocol):
    """Makes a server on one address, for the calls of a boundary."""

    def __call__(self, listener: Listener, boundary: Boundary, limits: Limits, *, share_port: bool) -> Transport:
        """Make it; it does not listen yet."""
        ...


def transport_of(name: str) -> Serving:
    """Return a transport by its name. Raise `ConfigurationError` or `ImportError` when what it needs is missing."""
    if name == GRPC:
        require_known_grpc()
        return GRPCTransport
    from pdp.serving.looptransport import LoopTransport  # noqa: PLC0415 - needs an extra

    return LoopTransport
