"""Sessions, scopes and bundles for tests of stores, and changes of sessions."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from pdp.clock import Deadline, Instant
from pdp.model import Scope, Session, SessionState
from pdp.sessions.freezes import Freeze
from pdp.sessions.store import SessionWriter
from pdp.sessions.values import ActiveBundle


def make_session(name: str, parent: Session | None = None, **changes: Any) -> Session:  # noqa: ANN401 - any field
    """Return a session that is ready to be inserted; equal names give equal ids and handles."""
    session = Session(
        id=f"ses_{name}",
        handle_digest=hashlib.sha256(name.encode()).digest(),
        state=SessionState.ACTIVE,
        user="ada",
        agent="coder",
        purpose="fix the build",
        tool_patterns=("git/*",),
        duration=3600.0,
        requested_at=1000.0,
        deadline=Deadline(wall_at=4600.0, boot_at=3700.0, boot_id="boot-1"),
        tenant="default",
        environment="test",
        opened_by="gateway",
        parent_id=parent.id if parent else "",
        ancestor_ids=(parent.id, *parent.ancestor_ids) if parent else (),
    )
    return replace(session, **changes)


def make_moment(at: float) -> Instant:
    """Return a moment that both clocks show as `at`."""
    return Instant(wall_at=at, boot_at=at, boot_id="boot-1")


def make_scope(*tools: str) -> Scope:
    """Return a scope of these tools; equal tools give equal ids."""
    content = ",".join(sorted(tools))
    return Scope(id=f"sha256:{hashlib.sha256(content.encode()).hexdigest()}", tools=dict.fromkeys(tools, "sha256:0"))


def make_freeze(tenant: str, **changes: Any) -> Freeze:  # noqa: ANN401 - any field
    """Return a freeze of a tenant, or of all tenants for an empty name; equal tenants give equal ids."""
    freeze = Freeze(id=f"frz_{tenant or 'all'}", tenant=tenant, set_at=2000.0, set_by="lead", reason="acts strangely")
    return replace(freeze, **changes)


def successor_of(session: Session, **changes: Any) -> Session:  # noqa: ANN401 - any field
    """Return the session's next version."""
    return replace(session, epoch=session.epoch + 1, **changes)


def revoked(session: Session) -> Session | None:
    """Return the session revoked; None if it already is, as a `Change` does."""
    if session.state is SessionState.REVOKED:
        return None
    return successor_of(session, state=SessionState.REVOKED, reason="no longer trusted")


def unchanged(_: Session) -> None:
    """Leave a session unchanged, as a `Change` does."""


def make_bundle(version: str, **changes: Any) -> ActiveBundle:  # noqa: ANN401 - any field
    """Return a bundle to activate."""
    return replace(ActiveBundle(version=version, activated_at=2000.0, activated_by="admin"), **changes)


def insert_family(store: SessionWriter, *, user: str = "ada", child_user: str = "ada") -> tuple[Session, ...]:
    """Insert a session, its child and its grandchild; return them in this order."""
    root = make_session("root", user=user)
    child = make_session("child", root, user=child_user)
    grandchild = make_session("grandchild", child, user=child_user)
    for session in (root, child, grandchild):
        store.insert(session, wall_at=1000.0)
    return root, child, grandchild


def insert_over(store: SessionWriter, name: str, parent: Session | None = None, **changes: Any) -> Session:  # noqa: ANN401 - any field
    """Insert a session that ended at 2000."""
    session = make_session(name, parent, **{"state": SessionState.ENDED, "ended_at": 2000.0, **changes})
    store.insert(session, wall_at=1000.0)
    return session


def insert_four(store: SessionWriter) -> None:
    """Insert four different sessions, the oldest first: `ses_a` to `ses_d`."""
    for session in (
        make_session("a", requested_at=1000.0, state=SessionState.ENDED),
        make_session("b", requested_at=1001.0, state=SessionState.REQUESTED, user="bob"),
        make_session("c", requested_at=1002.0, agent="writer", tenant="other"),
        make_session("d", requested_at=1003.0, agent="writer", opened_by="laptop"),
    ):
        store.insert(session, wall_at=1000.0)
