"""Bundles: whatever their files hold, they load or are refused; the engine's child process never dies of them.

The child is the oracle of what would end a process: what it compiles, this process parses again, slice by slice.
"""

from __future__ import annotations

import atexit
import re

from pdp.errors import BundleError, UnsafePolicyError
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.child.process import PolicyChild
from pdp.policy.contents import read_contents
from pdp.policy.loading import load_bundle
from pdp.policy.safety import scan, scan_schema
from pdp.testing.bundles import bundle_files, tool

WORDS = (
    *("\n=== a.cedar\n", "\n=== tools/a.yaml\n", "\n=== tools/a.json\n", "\n=== directory.yaml\n"),
    *(
        "\n=== schema.cedarschema\n",
        "\n=== bundle.yaml\n",
        "@id(",
        "permit",
        "forbid",
        "principal",
        "action",
        "resource",
    ),
    *("when {", "unless {", "context.input.", ".contains(", "like ", "decimal(", "ip(", "datetime(", " has ", " in "),
    *("entity ", "appliesTo", "namespace ", "__cedar::", "risk: ", "ceiling: ", "resource: {type: ", "?principal"),
)
BASE = bundle_files(
    policies={"a": '@id("a/all") permit (principal, action, resource);\n'},
    tools={"a": [tool("b", {"x": {"type": "string"}, "n": {"type": "integer"}}, ["x"])]},
    overlays={"a": "tools: {b: {risk: mutating}}\n"},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: [a/*]}}}",
)
SEEDS = (
    b'\n=== a.cedar\n@id("a/b") forbid (principal, action == Action::"a/b", resource)\nwhen { 1 < 2 };',
    b'\n=== a.cedar\n@id("a/b") permit (principal in UserGroup::"g", action, resource) unless { context.input has n };',
    b"\n=== tools/a.yaml\ntools: {b: {risk: destructive, digest: required, parameters: {x: {opaque: true}}}}",
    b'\n=== tools/a.yaml\ntools: {b: {risk: mutating, resource: {type: Thing, id: "{x}", canonical: {x: lower}}}}',
    b'\n=== tools/a.json\n[{"name": "b", "inputSchema": {"type": "object", "properties": {"x": {"enum": []}}}}]',
    b"\n=== directory.yaml\n{users: {alice: {groups: [g], attributes: {level: 3}}}, groups: {}, agents: {}}",
    b"\n=== bundle.yaml\nname: other\nsession_seconds: 60\ncaller_facts: {properties: {shift: {type: integer}}}",
    b"\n=== schema.cedarschema\nentity User; entity Agent; entity Session; entity Grant; entity Server;",
    b"\n=== a.cedar\npermit (principal == ?principal, action, resource);",
    b'\n=== a.cedar\n@id("a/b") permit (principal, action, resource) when { ((((((((((true)))))))))) };',
)
_BORDER = re.compile(rb"\n=== ([a-z0-9./_-]{1,40})\n")
_CHILD = PolicyChild(timeout=20.0)
atexit.register(_CHILD.close)


def files_of(data: bytes) -> dict[str, bytes]:
    """Return a bundle's files: those of a small one, some of them replaced by what the data holds."""
    _, *parts = _BORDER.split(data)
    return BASE | {name.decode("ascii"): content for name, content in zip(parts[::2], parts[1::2], strict=True)}


def run(data: bytes) -> None:
    """Load a bundle. That the child ended, or took too long, is an exception that nobody here expects."""
    files = files_of(data)
    _look(files)
    try:
        bundle = load_bundle(files, DEFAULT_LIMITS, lambda job: _CHILD.call("compile", job))
    except BundleError as error:
        assert error.problems
        assert all(str(problem).isprintable() for problem in error.problems)
        return
    for action in sorted(bundle.catalogue.tools)[:3]:
        reading = bundle.slice(action).reading
        if reading.cacheable:
            reading.place_in_time(1_700_000_000.5)


def _look(files: dict[str, bytes]) -> None:
    """Do here what the child does before the engine, so that it is seen which inputs get far."""
    try:
        contents = read_contents(files, DEFAULT_LIMITS)
        for text in contents.policies.values():
            scan(text, DEFAULT_LIMITS)
        scan_schema(contents.schema, DEFAULT_LIMITS)
    except (BundleError, UnsafePolicyError):
        return
