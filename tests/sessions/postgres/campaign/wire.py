"""The connections of one client, over which each call is made once and noted, whatever comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import grpc

from pdp.model import Role
from pdp.v1.authorization_pb2_grpc import AuthorizationServiceStub
from pdp.v1.policy_pb2_grpc import PolicyServiceStub
from pdp.v1.session_pb2_grpc import SessionServiceStub
from tests.sessions.postgres.campaign.replicas import Replica
from tests.sessions.replicahistory import Operation, Result

# Longer than any stop of a replica: what was asked meanwhile is answered afterwards.
PATIENCE: Final = 6.0

# What faults explain.
_SILENT: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
)


@dataclass(frozen=True, slots=True)
class Stubs:
    """The stubs of one process of a replica."""

    channel: Any
    calls: Any
    sessions: Any
    policies: Any

    @classmethod
    def of(cls, replica: Replica) -> Self:
        """Return those of the present process."""
        channel = replica.channel()
        calls = AuthorizationServiceStub(channel)  # type: ignore[no-untyped-call]
        sessions = SessionServiceStub(channel)  # type: ignore[no-untyped-call]
        policies = PolicyServiceStub(channel)  # type: ignore[no-untyped-call]
        return cls(channel, calls, sessions, policies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A call that was made at a replica: when, and its answer, or else the error."""

    at: int
    invoked: float
    returned: float
    answer: Any = None
    error: grpc.RpcError | None = None


class Wire:
    """The connections of one client to all replicas; `note` takes its lines. For one thread."""

    def __init__(self, client: int, note: Callable[[Operation], None]) -> None:
        self._client = client
        self._take = note
        # By replica, and by how often it was started.
        self._stubs: dict[int, tuple[int, Stubs]] = {}

    def close(self) -> None:
        """Close all connections."""
        for _, stubs in self._stubs.values():
            stubs.channel.close()

    def exchange(
        self, at: Replica, method: Callable[[Stubs], Any], request: Any, role: Role, *, patience: float = PATIENCE
    ) -> Exchange:
        """Make a call."""
        call, metadata = method(self._stubs_of(at)), at.authorization(role)
        answer, failed = None, None
        invoked = time.monotonic()
        try:
            answer = call(request, metadata=metadata, timeout=patience)
        except grpc.RpcError as error:
            failed = error
        return Exchange(at=at.number, invoked=invoked, returned=time.monotonic(), answer=answer, error=failed)

    def note(self, line: Operation, exchange: Exchange, said: Mapping[str, Any]) -> Operation:
        """Note a line with the times of an exchange, and with what its answer or its error said."""
        noted = replace(
            line,
            invoked=exchange.invoked,
            returned=exchange.returned,
            client=self._client,
            replica=exchange.at,
            **said,
        )
        self._take(noted)
        return noted

    def _stubs_of(self, replica: Replica) -> Stubs:
        begun, (started, stubs) = replica.started, self._stubs.get(replica.number, (0, None))
        if stubs is None or started != begun:
            if stubs is not None:
                stubs.channel.close()
            stubs = Stubs.of(replica)
            self._stubs[replica.number] = begun, stubs
        return stubs


def failure(
    code: grpc.StatusCode, details: str, *, not_done: frozenset[grpc.StatusCode] = frozenset()
) -> Mapping[str, Any]:
    """Return what a line says of an error: errors of the codes `not_done` say that nothing was done.

    The name of one that faults do not explain has the details behind a colon.
    """
    return {
        "result": Result.FAILED if code in not_done else Result.UNKNOWN,
        "name": code.name if code in _SILENT | not_done else f"{code.name}: {details}",
    }
