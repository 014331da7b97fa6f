"""Build bundles for tests from small pieces, and compile them without a child process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pdp.foundation.threads import on_large_stack
from pdp.policy.child.compile import compile_bundle

SCHEMA = """
entity UserGroup in [UserGroup];
entity User in [UserGroup] = { team?: String, level?: Long };
entity AgentGroup in [AgentGroup];
entity Agent in [AgentGroup] = { vendor?: String };
entity Grant;
entity Session in [Grant] = {
  purpose: String, tenant: String, environment: String, opened_by: String, depth: Long, labels: Set<String>,
};
entity Server;
entity Thing in [Server] = { owner?: User, secret?: Bool };
"""

OPEN_SESSIONS = """
@id("sessions/all")
permit (principal, action in [
  Action::"pdp/request_session", Action::"pdp/approve_session", Action::"pdp/delegate_session",
  Action::"pdp/approve_call"
], resource);
"""

# A suite of tests goes through the same few dozen bundles again and again.
_MOST_REMEMBERED = 256


def with_terms(declared: str, schema: str = SCHEMA) -> str:
    """Return a schema that declares terms of sessions, such as `ticket: String, max_sum?: decimal`."""
    labels = "labels: Set<String>"
    return schema.replace(labels, f"{labels}, terms: SessionTerms") + f"type SessionTerms = {{ {declared} }};\n"


def tool(
    name: str, properties: Mapping[str, Any] | None = None, required: Sequence[str] = (), **more: object
) -> dict[str, Any]:
    """Return a tool's definition in the form of MCP's `tools/list`."""
    schema = {"type": "object", "properties": dict(properties or {}), "required": list(required)}
    return {"name": name, "description": name, "inputSchema": schema, **more}


def bundle_files(
    *,
    policies: Mapping[str, str],
    tools: Mapping[str, Sequence[Mapping[str, Any]]],
    directory: str,
    overlays: Mapping[str, str] | None = None,
    schema: str = SCHEMA,
    manifest: str = "name: test\n",
    sessions: str = OPEN_SESSIONS,
    labels: Iterable[str] = (),
) -> dict[str, bytes]:
    """Return the files of a bundle.

    `policies` maps a file's stem to Cedar text, `tools` a server to tool definitions, `overlays` a server to YAML;
    `directory` and `manifest` are YAML. `sessions` is the text of `sessions.cedar`; by default all callers may open,
    approve and delegate. `labels` are declared as labels that do not widen; the manifest declares others.
    """
    # JSON is YAML.
    declared = {name: {"meaning": name} for name in labels}
    manifest += f"labels: {json.dumps(declared)}\n" if declared else ""
    files = {"bundle.yaml": manifest, "schema.cedarschema": schema, "directory.yaml": directory}
    files |= {"sessions.cedar": sessions} if sessions else {}
    files |= {f"{stem}.cedar": text for stem, text in policies.items()}
    files |= {f"tools/{server}.json": json.dumps({"tools": list(listed)}) for server, listed in tools.items()}
    files |= {f"tools/{server}.yaml": text for server, text in (overlays or {}).items()}
    return {name: text.encode("utf-8") for name, text in files.items()}


def compile_here(job: Mapping[str, Any]) -> dict[str, Any]:
    """Compile a bundle in this process, which is faster: for a test's own policies."""
    return on_large_stack(lambda: compile_bundle(job))


def compile_once_here(job: Mapping[str, Any]) -> dict[str, Any]:
    """Do the same, for equal bundles once: for tests that leave the compiler as it is."""
    # Text, as from a child process: no caller can change what the next one gets.
    return dict(json.loads(_compiled(json.dumps(job, sort_keys=True))))


@lru_cache(maxsize=_MOST_REMEMBERED)
def _compiled(job: str) -> str:
    return json.dumps(compile_here(json.loads(job)))
