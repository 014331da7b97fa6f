"""Lists of tools from servers: refused with a reason, or written as files that a bundle can be made of."""

from __future__ import annotations

import atexit
import json

from pdp.errors import BundleError, InvalidJSONError
from pdp.foundation.jsontext import definition_digest
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.child.process import PolicyChild
from pdp.policy.loading import load_bundle
from pdp.policy.tools.catalogue import load_catalogue, tool_definitions
from pdp.policy.tools.importing import catalogue_file, propose_overlay
from pdp.testing.bundles import bundle_files, tool

WORDS = (
    *('"name":', '"inputSchema":{', '"type":"object"', '"properties":{', '"required":[', '"type":"string"', '"enum":['),
    *(
        '"type":["string","null"]',
        '"anyOf":[',
        '"$ref":',
        '"items":{',
        '"additionalProperties":',
        '"format":',
        '"const":',
    ),
    *('"annotations":{', '"readOnlyHint":true', '"destructiveHint":false', '"nextCursor":', '"result":{', '"tools":['),
)
SEEDS = tuple(
    json.dumps(one).encode()
    for one in (
        {"tools": [tool("b", {"x": {"type": "string"}})]},
        {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "get_x", "annotations": {"readOnlyHint": True}}]}},
        [
            tool(
                "a",
                {"n": {"type": "integer"}, "l": {"type": "array", "items": {"type": "string", "enum": ["a"]}}},
                ["n"],
            )
        ],
        [tool("a", {"o": {"type": "object", "properties": {"p": {"type": "boolean"}}, "required": ["p"]}})],
        [tool("x", {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "b": {"type": ["number", "null"]}})],
        [tool("x", {"c": {"$ref": "#/x"}, "__entity": {"type": "string"}})],
        {"tools": [{"name": "a/b"}, {"name": "a/b"}, {"name": ""}, {}]},
        {"nextCursor": "x", "tools": []},
    )
)
_REST = bundle_files(
    policies={"a": '@id("a/all") permit (principal, action, resource);\n'},
    tools={},
    directory="{users: {}, agents: {}}",
)
_CHILD = PolicyChild(timeout=20.0)
atexit.register(_CHILD.close)


def run(data: bytes) -> None:
    """Import a list of tools, and load a bundle with what was written."""
    try:
        definitions = tool_definitions(data)
        files = {"tools/a.json": catalogue_file(definitions)}
        load_catalogue(files)
    except InvalidJSONError as error:
        assert str(error).isprintable()
        return
    except BundleError as error:
        assert all(str(problem).isprintable() for problem in error.problems)
        return
    files["tools/a.yaml"] = propose_overlay("a", definitions).encode("utf-8")
    tools = load_catalogue(files).tools
    assert {f"a/{one['name']}": definition_digest(one) for one in definitions} == {
        action: known.definition_digest for action, known in tools.items()
    }
    # What was imported makes a schema that the engine takes.
    load_bundle({**_REST, **files}, DEFAULT_LIMITS, lambda job: _CHILD.call("compile", job))
