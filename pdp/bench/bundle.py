"""The bundle of the generated workload: ten policies in the slice of each tool, of which one permit decides."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SERVER = "bench"
TOOL = "read_item"
# An item whose name begins so is denied.
FORBIDDEN = "forbidden"
USER, AGENT = "alice", "worker"
TOOLS = (TOOL, "b", "c", "d", "e")
# So many policies each forbid one item by its name.
EQUALITIES = 7

_PROPERTIES = {"item": {"type": "string"}, "limit": {"type": "integer"}, "deep": {"type": "boolean"}}

SCHEMA = """
entity UserGroup in [UserGroup];
entity User in [UserGroup];
entity AgentGroup in [AgentGroup];
entity Agent in [AgentGroup];
entity Grant;
entity Session in [Grant] = {
  purpose: String, tenant: String, environment: String, opened_by: String, depth: Long, labels: Set<String>,
};
entity Server;
"""

SESSIONS = """
@id("sessions/all")
permit (principal, action in [
  Action::"pdp/request_session", Action::"pdp/approve_session", Action::"pdp/delegate_session"
], resource);
"""

_POLICIES = "\n".join(
    [
        '@id("bench/staff") permit (principal in UserGroup::"staff", action in Action::"read_only", resource);',
        *(
            f'@id("bench/not-{n}") forbid (principal, action in Action::"read_only", resource) '
            f'when {{ context.input.item == "item-{n}-of-others" }};'
            for n in range(EQUALITIES)
        ),
        (
            '@id("bench/forbidden") forbid (principal, action in Action::"read_only", resource) '
            f'when {{ context.input.item like "{FORBIDDEN}*" }};'
        ),
        '@id("bench/contractors") forbid (principal in UserGroup::"contractors", action, resource is Server);',
    ]
)


def generated_files() -> dict[str, bytes]:
    """Return the files of the bundle."""
    tools = [definition(name, _PROPERTIES, ["item"]) for name in TOOLS]
    return files_of(policies={SERVER: _POLICIES}, tools={SERVER: tools}, users=(USER,), agents=(AGENT,))


def files_of(
    *,
    policies: Mapping[str, str],
    tools: Mapping[str, Iterable[Mapping[str, Any]]],
    users: Iterable[str],
    agents: Iterable[str],
) -> dict[str, bytes]:
    """Return the files of a bundle where everybody is staff and every agent may reach every tool.

    `policies` maps a file's stem to Cedar text, `tools` a server to definitions of tools.
    """
    # JSON is YAML, and quotes what must be quoted.
    directory = {
        "user_groups": {"staff": {}, "contractors": {}},
        "users": {user: {"groups": ["staff"]} for user in users},
        "agents": {agent: {"ceiling": [f"{server}/*" for server in tools]} for agent in agents},
    }
    texts = {
        "bundle.yaml": "name: bench\n",
        "schema.cedarschema": SCHEMA,
        "sessions.cedar": SESSIONS,
        "directory.yaml": json.dumps(directory),
        **{f"{stem}.cedar": text for stem, text in policies.items()},
        **{f"tools/{server}.json": json.dumps({"tools": list(listed)}) for server, listed in tools.items()},
        **{f"tools/{server}.yaml": "risk: read_only\n" for server in tools},
    }
    return {name: text.encode() for name, text in texts.items()}


def definition(name: str, properties: Mapping[str, Any], required: Iterable[str]) -> dict[str, Any]:
    """Return the definition of a tool that only reads, as MCP's `tools/list` has it."""
    schema = {"type": "object", "properties": dict(properties), "required": list(required)}
    return {"name": name, "description": name, "inputSchema": schema}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of a bundle into a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
