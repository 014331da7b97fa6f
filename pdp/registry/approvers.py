"""Who may decide as a person: no gateway, admin or agent of what is asked, and present where the harm is great."""

from __future__ import annotations

from collections.abc import Iterable

from pdp.clock import Instant
from pdp.errors import PermissionDeniedError
from pdp.model import NEVER_APPROVERS, Caller, Role

# How recently the approver of what is risky must have authenticated; no policy or setting lifts this.
PRESENT_SECONDS = 300.0


def require_approver(caller: Caller, what: str) -> None:
    """Raise `PermissionDeniedError` unless the caller may decide about `what`, such as `a session`."""
    if Role.APPROVER not in caller.roles or not caller.roles.isdisjoint(NEVER_APPROVERS):
        raise PermissionDeniedError(f"only an approver who is neither a gateway nor an admin may decide about {what}")


def require_another(caller: Caller, what: str, *, asked_by: str, agents: Iterable[str]) -> None:
    """Refuse the caller that asked for `what`, the agent that is to do it, and the agents that have handed it on."""
    if caller.id in (asked_by, *agents):
        raise PermissionDeniedError(f"{what} is approved by a person, not by the caller or agent that asks for it")


def require_presence(caller: Caller, what: str, now: Instant) -> None:
    """Raise `PermissionDeniedError` when the approver authenticated too long ago; `what` says what is risky."""
    age = now.wall_at - caller.authenticated_at
    if age > PRESENT_SECONDS:
        unknown = "the credential does not say when that was; that of a log-in does (`pdp login`)"
        since = f"that was {age:.0f} s ago" if caller.authenticated_at else unknown
        raise PermissionDeniedError(
            f"{what}: its approver must have authenticated in the last {PRESENT_SECONDS:.0f} s, and {since}",
            max_age=PRESENT_SECONDS,
        )
