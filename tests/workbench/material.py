"""A bundle and a test file that fit together, made from small pieces."""

from __future__ import annotations

from functools import cache

from pdp.limits import DEFAULT_LIMITS
from pdp.policy.bundle import Bundle
from pdp.policy.loading import load_bundle
from pdp.testing.bundles import bundle_files, compile_once_here, tool, with_terms
from pdp.workbench.reading import read_suite
from pdp.workbench.runner import CaseResult, Report, run
from pdp.workbench.suite import Suite

POLICIES = {
    "files": """
@id("files/staff-read")
permit (principal in UserGroup::"staff", action in Action::"read_only", resource);

@id("files/write-when-granted")
permit (principal, action == Action::"files/write", resource)
when { context.session in Grant::"writing" && context.input.size + 1 > 0 };
""",
    "guardrails": """
@id("guardrails/no-secrets")
forbid (principal, action, resource is Server)
when { context has input && context.input has path && context.input.path like "*secret*" };
""",
}
SESSIONS = """
@id("sessions/request")
permit (principal in UserGroup::"staff", action == Action::"pdp/request_session", resource);

@id("sessions/approve")
permit (principal, action == Action::"pdp/approve_session", resource) unless { principal == context.user };

@id("sessions/delegate")
permit (principal, action == Action::"pdp/delegate_session", resource);
"""
DIRECTORY = """
user_groups: {staff: {}}
users: {ada: {groups: [staff]}, eve: {}}
agents: {coder: {ceiling: ["files/*"]}, helper: {ceiling: ["files/read"]}}
"""
TOOLS = {
    "files": [
        tool("read", {"path": {"type": "string"}}, ["path"]),
        tool("write", {"path": {"type": "string"}, "size": {"type": "integer"}}, ["path", "size"]),
    ]
}
OVERLAY = "tools: {read: {risk: read_only}, write: {risk: mutating}}"

HEAD = """
now: 2026-01-05T10:00:00Z
sessions:
  work: {user: ada, agent: coder, tools: ["files/*"]}
  granted: {user: ada, agent: coder, tools: ["files/*"], grants: [writing], may_delegate: true}
  child: {parent: granted, agent: helper, tools: ["files/read"]}
  gone: {user: ada, agent: coder, tools: ["files/*"], state: revoked}
calls:
  read: {tool: files/read, arguments: {path: notes}}
  secret: {tool: files/read, arguments: {path: a secret}}
  write: {tool: files/write, arguments: {path: notes, size: 1}}
  huge: {tool: files/write, arguments: {path: notes, size: 9223372036854775807}}
"""
FILE = "tests/files_test.yaml"


def material_files() -> dict[str, bytes]:
    """Return the files of the bundle that the tests of this folder are about."""
    return bundle_files(
        policies=POLICIES,
        tools=TOOLS,
        directory=DIRECTORY,
        overlays={"files": OVERLAY},
        sessions=SESSIONS,
        schema=with_terms("ticket?: String, max_sum?: decimal"),
    )


@cache
def bundle() -> Bundle:
    """Return the bundle that the tests of this folder are about."""
    return load_bundle(material_files(), DEFAULT_LIMITS, compile_once_here)


def suite(cases: str, head: str = HEAD) -> Suite:
    """Read a test file whose cases are given as YAML."""
    return read_suite(FILE, f"{head}cases:\n{cases}".encode())


def report(cases: str, head: str = HEAD) -> Report:
    """Run a test file whose cases are given as YAML."""
    return run(bundle(), [suite(cases, head)])


def only(cases: str, head: str = HEAD) -> CaseResult:
    """Run a test file that holds one case, and return its result."""
    (result,) = report(cases, head).results
    return result
