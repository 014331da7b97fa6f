"""A server that allows calls of one tool, which are for the broker, and the rules of a broker for it."""

from __future__ import annotations

from pdp.model import AT_EACH_CALL, Caller, Role
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import RunningServer

ISSUER, AUDIENCE = "https://pdp.example", "https://broker.example"
_OVERLAY = f"audiences: [{AUDIENCE}]\nconnection: {{kind: github}}\ntools:\n  read: {{risk: read_only}}\n"
# `remote` is a server of MCP over HTTP.
FILES = bundle_files(
    policies={"notes": '@id("notes/all") permit (principal, action, resource);'},
    tools={name: [tool("read", {"path": {"type": "string"}})] for name in ("notes", "remote")},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['notes/*', 'remote/*']}}}",
    overlays={"notes": _OVERLAY, "remote": _OVERLAY},
)
CALLERS = (
    Caller(id="gateway", kind="token", roles=frozenset({Role.PEP})),
    Caller(id="lead", kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL),
    Caller(id="broker", kind="token", roles=frozenset({Role.BROKER})),
)
RULES = """
notes:
  kind: github
  proxy: {methods: [GET], paths: [/v1/]}
  tools:
    read: {method: GET, path: "/v1/{path}"}
"""


def opened_session(server: RunningServer, pattern: str = "notes/*") -> tuple[str, str]:
    """Have a session approved; return its id and its handle."""
    wanted = server.client("gateway").request_session(
        user="alice", agent="coder", purpose="p", tools=(pattern,), duration=600.0
    )
    server.client("lead").approve_session(wanted.session.session_id, request_digest=wanted.session.request_digest)
    return wanted.session.session_id, wanted.session_handle
