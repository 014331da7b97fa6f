"""The bundle of the tests with processes: one tool that reads, one that writes."""

from __future__ import annotations

from pdp.testing.bundles import bundle_files, tool

READ, WRITE = "read_note", "write_note"

DIRECTORY = """
users: {alice: {}, bob: {}}
agents: {coder: {ceiling: ["notes/*"]}, reviewer: {ceiling: ["notes/*"]}}
"""

EVERYTHING = '@id("notes/everything")\npermit (principal, action, resource == Server::"notes");\n'
NO_WRITING = """
@id("guardrails/{name}")
forbid (principal, action == Action::"notes/write_note", resource);
"""


def notes_bundle(no_writing: str = "") -> dict[str, bytes]:
    """Return a bundle that permits both tools; `no_writing` names a guardrail against one, and makes a new version."""
    guardrails = NO_WRITING.format(name=no_writing) if no_writing else ""
    properties = {"name": {"type": "string"}}
    return bundle_files(
        policies={"notes": EVERYTHING, "guardrails": guardrails},
        tools={"notes": [tool(READ, properties, ["name"]), tool(WRITE, properties, ["name"])]},
        directory=DIRECTORY,
        labels=("suspect",),
    )
