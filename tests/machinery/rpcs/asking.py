"""Questions that are asked of RPCs, right ones and wrong ones."""

from __future__ import annotations

import base64
from typing import Any

from pdp.v1.authorization_pb2 import AuthorizeRequest
from pdp.v1.decision_pb2 import Basis, Call
from pdp.v1.session_pb2 import RequestSessionRequest

DIGEST = "sha256:" + "a" * 64
LONG_ID = "a" * 129
BIDI = "pay \u202eevil"
# Of the right form and of values that no list is sorted by, for each kind of list one at least.
FOREIGN_TOKENS = tuple(
    base64.urlsafe_b64encode(text.encode()).decode()
    for text in (
        "[1]",
        '[1, "a", -1]',
        '[1, "a", 1e30]',
        f'[{1 << 63}, "a", 1]',
        '[true, "a", 1]',
        r'[1, "\ud800", 1]',
        r'["git", "\udfff", "", ""]',
        r'["\ud800"]',
        '[NaN, "a"]',
        '[1e999, "a"]',
        r'[1.0, "\ud800"]',
        "[" * 2000,
    )
)


def a_call(
    handle: str, tool: str = "log", arguments: bytes = b'{"repo": "web"}', *, server: str = "git", **more: Any
) -> AuthorizeRequest:
    """Return a question about a call, by default one that the policies permit."""
    call = Call(session_handle=handle, server=server, tool=tool, arguments_json=arguments)
    return AuthorizeRequest(call=call, **more)


def calling(handle: str = "pdps_unknown", **more: Any) -> AuthorizeRequest:
    """Return a question about a call of `git/git_log`, with more fields of the call."""
    fields = {"session_handle": handle, "server": "git", "tool": "git_log", "arguments_json": b'{"repo_path": "/r"}'}
    return AuthorizeRequest(call=Call(**(fields | more)))


def asked(**more: Any) -> AuthorizeRequest:
    """Return a question with more fields."""
    return AuthorizeRequest(call=calling().call, **more)


def wanted(**more: Any) -> RequestSessionRequest:
    """Return a request for a session, right but for what is given."""
    fields: dict[str, Any] = {"user": "alice", "agent": "coder", "purpose": "x", "tool_patterns": ["git/*"]}
    return RequestSessionRequest(**(fields | more))


def basis_of(number: int) -> str:
    """Return the name of a basis."""
    return Basis.Name(number).removeprefix("BASIS_").lower()
