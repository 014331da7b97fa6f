"""What people read of the downstream connections that a session, or one call, may use."""

from __future__ import annotations

from collections.abc import Iterable

from pdp.v1.access_pb2 import GetAccessRequestResponse
from pdp.v1.session_pb2 import ScopedTool


def connection_text(tool: ScopedTool) -> str:
    """Return the connection that calls of a tool use, and with which scopes, such as `github: repo:read`.

    Empty for a tool that uses none.
    """
    return _text(tool.connection_kind, tool.connection_scopes) if tool.connection_kind else ""


def connections_text(tools: Iterable[ScopedTool], user: str) -> tuple[str, ...]:
    """Return the connections that calls of any of these tools use for a user, each kind with all its scopes."""
    scopes: dict[str, set[str]] = {}
    for one in tools:
        if one.connection_kind:
            scopes.setdefault(one.connection_kind, set()).update(one.connection_scopes)
    return tuple(_text(_whose(kind, user), sorted(scopes[kind])) for kind in sorted(scopes))


def call_connection_text(review: GetAccessRequestResponse) -> str:
    """Return the connection that one call uses for its user; empty where it uses none."""
    if not review.connection_kind:
        return ""
    return _text(_whose(review.connection_kind, review.access_request.user), review.connection_scopes)


def _whose(kind: str, user: str) -> str:
    return f"{kind} of {user}, or else of the tenant"


def _text(what: str, scopes: Iterable[str]) -> str:
    return f"{what}: {' '.join(scopes) or 'no scopes'}"
