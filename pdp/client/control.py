"""The control address: calls that end authority go there first, because it works when the main one is flooded."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import grpc

from pdp.client.connection import Connection
from pdp.client.operations import Operation
from pdp.errors import ConfigurationError
from pdp.foundation.ownership import require_own_socket

_LOG = logging.getLogger("pdp.client")

# The most seconds that connecting takes; a channel in one of these states is not connected yet.
REACH_SECONDS = 2.0
UNDECIDED = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)
# The most seconds to wait for an answer when the main address can be asked after that.
_ANSWER_SECONDS = 10.0

_UNIX = "unix:"
# The server has not begun a call with one of these. A caller with a certificate is unknown at a socket.
_NOT_BEGUN = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED)
_UNKNOWN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


def connection_from(main: Connection, address: str | None) -> Connection | None:
    """Return the connection to the control address, or None when there is none.

    It has the same credentials. None as address means `PDP_CONTROL_ADDRESS`. Raise `ConfigurationError` for a wrong
    one.
    """
    address = address or os.environ.get("PDP_CONTROL_ADDRESS")
    if not address:
        return None
    return main.at(address)


def is_there(connection: Connection) -> bool:
    """Say whether to connect: a socket must exist.

    It must be where only this user and root can create one.
    """
    if not connection.address.startswith(_UNIX):
        return True
    path = Path(connection.address.removeprefix(_UNIX).removeprefix("//"))
    if not path.exists():
        return False
    try:
        require_own_socket(path, "another process could impersonate the server")
    except ConfigurationError as error:
        _LOG.warning("the control address is not used: %s", error)
        return False
    return True


def answer_seconds(operation: Operation[Any, Any], timeout: float) -> float:
    """Return the seconds to wait for an answer, of `timeout` for the whole call."""
    return min(timeout, _ANSWER_SECONDS) if operation.repeatable else timeout


def may_be_asked_elsewhere(error: grpc.RpcError, operation: Operation[Any, Any]) -> bool:
    """Say whether to repeat a failed call at the main address.

    It was not begun, or can safely be done twice.
    """
    code = error.code()
    return code in _NOT_BEGUN or (operation.repeatable and code in _UNKNOWN)
