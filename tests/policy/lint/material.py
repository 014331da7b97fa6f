"""A small bank: what the tests of `check` are about, and policies that are wrong in one way each."""

from __future__ import annotations

from pathlib import Path

from pdp.errors import Problem
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.loading import CheckReport, inspect_bundle
from pdp.testing.bundles import SCHEMA, bundle_files, compile_here, tool

DIRECTORY = """\
user_groups: {tellers: {}, managers: {}}
users:
  ann: {groups: [tellers]}
  bob: {groups: [managers]}
agent_groups: {assistants: {}}
agents:
  clerk: {groups: [assistants], ceiling: ["bank/*", "files/*"]}
entities:
- {type: Thing, id: safe, attributes: {owner: {type: User, id: ann}}}
"""
TEXT, NUMBER, WHOLE = {"type": "string"}, {"type": "number", "minimum": 0}, {"type": "integer", "minimum": 0}
TOOLS = {
    "bank": [
        tool("transfer", {"to": TEXT, "amount": NUMBER, "cents": WHOLE, "note": TEXT}, ["to", "amount", "cents"]),
        tool("balance", {"account": TEXT, "kind": {"type": "string", "enum": ["day", "year"]}}, ["account", "kind"]),
    ],
    "files": [tool("read", {"path": TEXT}, ["path"]), tool("write", {"path": TEXT, "extra": {}}, ["path"])],
}
OVERLAYS = {
    "bank": "tools: {transfer: {risk: mutating}, balance: {risk: read_only}}\n",
    "files": """\
tools:
  read: {risk: read_only, resource: {type: Thing, id: "{path}", canonical: {path: absolute-path}}}
  write: {risk: mutating, resource: {type: Thing, id: "{path}"}}
""",
}
# What every policy of an example needs, so that the lint in question is the only one that speaks.
AGENT = 'when { context.agent in AgentGroup::"assistants" }'


def files(policies: str, **changes: str) -> dict[str, bytes]:
    """Return the bank's bundle with these policies; `directory`, `schema` and `bank`, the overlay, may change."""
    overlays = OVERLAYS | ({"bank": changes["bank"]} if "bank" in changes else {})
    return bundle_files(
        policies={"bank": policies},
        tools=TOOLS,
        overlays=overlays,
        directory=changes.get("directory", DIRECTORY),
        schema=changes.get("schema", SCHEMA),
        sessions="",
    )


def report(policies: str, **changes: str) -> CheckReport:
    """Check the bank's bundle with some policies."""
    return inspect_bundle(files(policies, **changes), DEFAULT_LIMITS, compile_here)


def found(policies: str, **changes: str) -> tuple[Problem, ...]:
    """Return everything that is found in the bank's bundle with some policies."""
    checked = report(policies, **changes)
    return (*checked.errors, *checked.warnings)


def codes(policies: str, **changes: str) -> list[str]:
    """Return the codes of all that is found."""
    return [problem.code for problem in found(policies, **changes)]


def policy(head: str, *conditions: str, name: str = "x", note: str = "") -> str:
    """Write a policy with an `@id`; `head` is its effect and scope."""
    return "\n".join([f'@id("bank/{name}")', *([note] if note else []), head, *conditions]) + ";\n"


GOLDEN = Path(__file__).parent / "golden"
