"""The bundle of the generated workload: ten policies in the slice of each tool, of which one permit decides."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pdp.testing.bundles import bundle_files, tool

SERVER = "bench"
TOOL = "read_item"
# An item whose name begins with this is denied.
FORBIDDEN = "forbidden"
USER, AGENT = "alice", "worker"
TOOLS = (TOOL, "b", "c", "d", "e")
# This many policies each forbid one item by its name.
EQUALITIES = 7

_PROPERTIES = {"item": {"type": "string"}, "limit": {"type": "integer"}, "deep": {"type": "boolean"}}

_SCHEMA = """
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
    tools = [tool(name, _PROPERTIES, ["item"]) for name in TOOLS]
    return files_of(policies={SERVER: _POLICIES}, tools={SERVER: tools}, users=(USER,), agents=(AGENT,))


def files_of(
    *,
    policies: Mapping[str, str],
    tools: Mapping[str, Sequence[Mapping[str, Any]]],
    users: Iterable[str],
    agents: Iterable[str],
) -> dict[str, bytes]:
    """Return the files of a bundle: all users are staff, agents reach all tools."""
    directory = {
        "user_groups": {"staff": {}, "contractors": {}},
        "users": {user: {"groups": ["staff"]} for user in users},
        "agents": {agent: {"ceiling": [f"{server}/*" for server in tools]} for agent in agents},
    }
    return bundle_files(
        policies=policies,
        tools=tools,
        directory=json.dumps(directory),  # JSON is YAML, and quotes what must be quoted
        overlays=dict.fromkeys(tools, "risk: read_only\n"),
        schema=_SCHEMA,
        manifest="name: bench\n",
    )
