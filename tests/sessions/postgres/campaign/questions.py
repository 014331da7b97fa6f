"""The questions of clients about calls, and what answers say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pdp.v1 import authorization_pb2, decision_pb2
from tests.sessions.replicahistory import Kind, Operation

_ARGUMENTS: Final = b'{"name": "shopping"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What clients know of a session."""

    id: str
    handle: str
    digest: str
    budget: int
    parent: str
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A change of a session of which clients have heard, maybe before it was acknowledged."""

    epoch: int
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A call of a tool in a session. With what was `heard`, the answer must know that."""

    session: Known
    tool: str
    request_id: str = ""
    heard: Heard | None = None

    def message(self) -> authorization_pb2.AuthorizeRequest:
        """Return the message that asks."""
        return authorization_pb2.AuthorizeRequest(
            call=decision_pb2.Call(
                session_handle=self.session.handle, server="notes", tool=self.tool, arguments_json=_ARGUMENTS
            ),
            request_id=self.request_id,
            min_revision=self.heard.revision if self.heard is not None else "",
        )

    def line(self) -> Operation:
        """Return its line, without the answer."""
        return Operation(
            kind=Kind.AUTHORIZE,
            session=self.session.id,
            tool=self.tool,
            request_id=self.request_id,
            least=self.heard.epoch if self.heard is not None else -1,
        )


def said_by(decision: decision_pb2.Decision) -> Mapping[str, Any]:
    """Return what a line says of a decision."""
    return {
        "allowed": decision.outcome == decision_pb2.OUTCOME_ALLOW,
        "basis": decision_pb2.Basis.Name(decision.basis).removeprefix("BASIS_").lower(),
        "decision": decision.decision_id,
        "epoch": decision.session_epoch,
        "bundle": decision.bundle_version,
    }
