"""Values of the API's enumerations as words: `active`, `open`, `depends`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pdp.v1.access_pb2 import AccessState, ArgumentChange, ComparedArgument, RequestedAccess
from pdp.v1.audit_pb2 import Approval, PlannedRevocation, RecordedState
from pdp.v1.authorization_pb2 import Visibility
from pdp.v1.reach_pb2 import ReachedTool
from pdp.v1.session_pb2 import ReviewedTool, Session, SessionChange, SessionState

# What a later server may send.
_UNKNOWN = "unknown"


class Enumeration(Protocol):
    """An enumeration of the API: its names with their numbers."""

    def items(self) -> Iterable[tuple[str, int]]:
        """Return the names with their numbers."""
        ...


def word_of(kind: Enumeration, number: int) -> str:
    """Return a value as a word: `active` for `SESSION_STATE_ACTIVE`, `unknown` for one that this version lacks."""
    names = {each: name for name, each in kind.items()}
    prefix = names[0].removesuffix("UNSPECIFIED")
    return names[number].removeprefix(prefix).lower() if number in names else _UNKNOWN


def session_state(session: Session | SessionChange) -> str:
    """Return the state of a session: `active`."""
    return word_of(SessionState, session.state)


def access_state(request: RequestedAccess) -> str:
    """Return the state of an access request: `open`."""
    return word_of(AccessState, request.state)


def argument_change(one: ComparedArgument) -> str:
    """Return what is otherwise about an argument than in an earlier call: `added`."""
    return word_of(ArgumentChange, one.change)


def recorded_state(found: Approval | PlannedRevocation) -> str:
    """Return the state of a session by the record: `active`."""
    return word_of(RecordedState, found.state)


def visibility(one: ReviewedTool | ReachedTool) -> str:
    """Return what policies do with the calls of a tool: `never`, `depends` or `always`."""
    return word_of(Visibility, one.visibility)


def former_visibility(one: ReachedTool) -> str:
    """Return what policies did with the calls of a tool under the former bundle that was asked about."""
    return word_of(Visibility, one.former_visibility)
