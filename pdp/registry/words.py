"""What the registrar is asked, and how it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pdp.model import Session, SessionState
from pdp.policy.grants import Grants
from pdp.registry.budgets import BudgetState
from pdp.registry.review import ReviewedTool
from pdp.registry.scope import (
    ScopedTool,
)
from pdp.registry.unusual import Unusual


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """A PEP's request for a session. `duration` is in seconds, None for the bundle's default."""

    user: str
    agent: str
    purpose: str
    tool_patterns: tuple[str, ...]
    duration: float | None = None
    parent_session_handle: str = field(default="", repr=False)
    environment: str = ""
    user_attributes_json: bytes = field(default=b"", repr=False)
    labels: tuple[str, ...] = ()
    may_delegate: bool = False
    terms_json: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """A session as people and PEPs see it: with its current state, and what an approval would approve.

    A summary has no `tools` and no `request_digest`.
    `budgets` and `values_kept` are filled only by `Registrar.get`: the first while the session waits or is active, the
    second while it is active.
    """

    session: Session
    state: SessionState
    tools: tuple[ScopedTool, ...] = ()
    request_digest: str = ""
    budgets: tuple[BudgetState, ...] = ()
    values_kept: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A session as an approver sees it: with what the policies of a bundle say about each of its tools.

    `unusual` says in words what differs from earlier sessions. `known_grants` holds every grant that can be given, with
    the ids of the policies that name it.
    """

    view: SessionView
    tools: tuple[ReviewedTool, ...]
    unusual: tuple[Unusual, ...]
    known_grants: Grants
    bundle_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocable:
    """What a revocation would reach now: `count` sessions, of which `newest` are at most 100, without their tools."""

    count: int
    newest: tuple[SessionView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which sessions to revoke.

    `of_tenant` is the tenant of the session, user or agent; empty for the caller's only one.
    """

    kind: Literal["session", "user", "agent", "tenant"]
    value: str
    of_tenant: str = ""
