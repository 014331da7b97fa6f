"""The tools of five real MCP servers in one bundle: each gets an action, and a session over all sees each of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pdp.client import ClientSession, definition_digests
from pdp.model import Visibility
from pdp.policy.tools.catalogue import tool_definitions
from pdp.policy.tools.importing import catalogue_file, propose_overlay, propose_risk
from pdp.testing.bundles import OPEN_SESSIONS, SCHEMA
from pdp.testing.inprocess import RunningServer, running_server
from tests.machinery.servers.replayed import open_session

FILES = {
    "fetch": "mcp-server-fetch",
    "filesystem": "server-filesystem",
    "git": "mcp-server-git",
    "github": "github-mcp-server",
    "time": "mcp-server-time",
}
TOOLS = 146

Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What the five servers list: their definitions by server and name."""

    definitions: dict[Key, dict[str, Any]]

    @property
    def risks(self) -> dict[Key, str]:
        """Return the risk group that the import proposes for each tool."""
        return {key: propose_risk(definition)[0] for key, definition in self.definitions.items()}

    def of(self, server: str) -> list[dict[str, Any]]:
        """Return the definitions of one server."""
        return [definition for (name, _), definition in self.definitions.items() if name == server]


@pytest.fixture(scope="module")
def listed(test_data: Path) -> Listed:
    """Return what the five servers list."""
    answers = {server: test_data / "mcp-tools" / f"{stem}.tools.json" for server, stem in FILES.items()}
    return Listed(
        definitions={
            (server, entry["name"]): entry
            for server, path in answers.items()
            for entry in tool_definitions(path.read_bytes())
        }
    )


@pytest.fixture(scope="module")
def files(listed: Listed) -> dict[str, bytes]:
    """Return one bundle: catalogues and overlays as an import proposes them, and permits that name each tool."""
    directory = {"users": {"ann": {}}, "agents": {"assistant": {"ceiling": [f"{server}/*" for server in FILES]}}}
    texts = {
        "bundle.yaml": "name: everything\n",
        "schema.cedarschema": SCHEMA,
        "sessions.cedar": OPEN_SESSIONS,
        "directory.yaml": json.dumps(directory),
        "guardrails.cedar": '@id("guardrails/nothing-destructive")\n'
        'forbid (principal, action in Action::"destructive", resource);\n',
    }
    for server in FILES:
        tools = listed.of(server)
        texts[f"{server}.cedar"] = permit(server, [tool["name"] for tool in tools])
        texts[f"tools/{server}.json"] = catalogue_file(tools).decode("utf-8")
        texts[f"tools/{server}.yaml"] = propose_overlay(server, tools)
    return {name: text.encode("utf-8") for name, text in texts.items()}


def permit(server: str, tools: Sequence[str]) -> str:
    """Return a permit that names the action of each tool; one that the schema lacked would not validate."""
    actions = ", ".join(f'Action::"{server}/{tool}"' for tool in tools)
    return f'@id("{server}/each")\npermit (principal, action in [{actions}], resource == Server::"{server}");\n'


@pytest.fixture(scope="module")
def server(files: dict[str, bytes]) -> Iterator[RunningServer]:
    """Return a server that runs the bundle."""
    with running_server(files) as running:
        yield running


@pytest.fixture(scope="module")
def session(server: RunningServer) -> ClientSession:
    """Return a session over all tools of all servers."""
    patterns = tuple(f"{name}/*" for name in FILES)
    return open_session(server.client("pep"), server.client("approver"), user="ann", agent="assistant", tools=patterns)


def test_every_tool_gets_an_action(server: RunningServer, listed: Listed, files: dict[str, bytes]) -> None:
    """Permits that name all 146 actions validate strictly; naming one more action is refused, with its file."""
    unknown = permit("git", [*(tool["name"] for tool in listed.of("git")), "git_push"])

    bundle = server.client("author").get_bundle().bundle
    checked = server.client("author").check_bundle(files | {"git.cedar": unknown.encode("utf-8")})

    assert TOOLS == len(listed.definitions) == bundle.tool_count
    assert {"git.cedar"} == {problem.file for problem in checked.problems}


def test_list_tools_answers_completely(session: ClientSession, listed: Listed) -> None:
    """Each tool is listed once, with the digest of its definition and what the policies make of its risk group."""
    seen = session.list_tools()

    digests: dict[Key, str] = {}
    for server in FILES:
        digests |= definition_digests(server, {"tools": listed.of(server)})
    never_or_always = {
        key: Visibility.NEVER if risk == "destructive" else Visibility.ALWAYS for key, risk in listed.risks.items()
    }
    assert TOOLS == len(seen)
    assert digests == {(tool.server, tool.tool): tool.definition_digest for tool in seen}
    assert never_or_always == {(tool.server, tool.tool): tool.visibility for tool in seen}


def test_every_tool_is_decided(session: ClientSession, listed: Listed) -> None:
    """A call of each tool with fitting arguments is allowed, or denied by the guardrail: none is beyond the engine."""
    arguments = {key: fitting(definition["inputSchema"]) for key, definition in listed.definitions.items()}

    answers = {(server, tool): session.authorize(server, tool, given) for (server, tool), given in arguments.items()}

    expected = {
        (server, tool): ("deny", "guardrails/nothing-destructive")
        if risk == "destructive"
        else ("allow", f"{server}/each")
        for (server, tool), risk in listed.risks.items()
    }
    assert expected == {key: (answer.outcome.value, *answer.policies) for key, answer in answers.items()}


def fitting(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the smallest arguments that a tool's schema takes."""
    return {name: value(schema["properties"][name]) for name in schema.get("required", ())}


def value(schema: dict[str, Any]) -> Any:
    """Return some value that a parameter's schema takes."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "array":
        return [value(schema["items"])] * schema.get("minItems", 0)
    examples = {"string": "x", "integer": 1, "number": 1, "boolean": True}
    return fitting(schema) if schema.get("type") == "object" else examples.get(schema.get("type", "string"), "x")
