"""The workload that every server under measurement gets: one bundle, one approved session, calls of one tool."""

from __future__ import annotations

import json
from pathlib import Path

from pdp.testing.bundles import bundle_files, tool
from pdp.v1 import authorization_pb2, decision_pb2

SERVER = "bench"
TOOL = "read_item"

_DIRECTORY = """
user_groups: {staff: {}, contractors: {}}
users: {alice: {groups: [staff], attributes: {team: platform}}}
agents: {worker: {ceiling: ["bench/*"]}}
"""

# Ten policies in the slice of each tool, as in the aims; one permit decides.
_POLICIES = "\n".join(
    [
        '@id("bench/staff") permit (principal in UserGroup::"staff", action in Action::"read_only", resource);',
        *(
            f'@id("bench/forbid-{n}") forbid (principal, action in Action::"read_only", resource) '
            f'when {{ context.input.item == "forbidden-{n}" }};'
            for n in range(8)
        ),
        '@id("bench/contractors") forbid (principal in UserGroup::"contractors", action, resource is Server);',
    ]
)


def write_bundle(folder: Path) -> None:
    """Write the bundle to a folder."""
    read_only = {"readOnlyHint": True}
    properties = {"item": {"type": "string"}, "limit": {"type": "integer"}, "deep": {"type": "boolean"}}
    tools = [tool(name, properties, ["item"], annotations=read_only) for name in (TOOL, "b", "c", "d", "e")]
    files = bundle_files(policies={"bench": _POLICIES}, tools={SERVER: tools}, directory=_DIRECTORY)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def arguments(item: str) -> bytes:
    """Return well-formed arguments of about 300 bytes."""
    return json.dumps({"item": item.ljust(250, "."), "limit": 50, "deep": True}).encode()


def request(handle: str, item: str, request_id: str = "") -> authorization_pb2.AuthorizeRequest:
    """Return one question."""
    call = decision_pb2.Call(session_handle=handle, server=SERVER, tool=TOOL, arguments_json=arguments(item))
    return authorization_pb2.AuthorizeRequest(call=call, request_id=request_id)
