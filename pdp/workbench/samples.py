"""Generate arguments that a tool accepts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pdp.errors import InvalidArgumentsError, InvalidJSONError
from pdp.foundation.jsontext import parse_object
from pdp.policy.tools.catalogue import Tool

# The depth limit for a schema that refers to itself.
_DEPTH = 8


def sample_arguments(tool: Tool) -> dict[str, Any] | None:
    """Return arguments that a tool's JSON schema accepts; None when none are found."""
    schema = tool.check.schema if tool.check else {}
    arguments = _sample(schema, schema, 0) if schema else {}
    text = json.dumps(arguments, default=float).encode("utf-8")
    try:
        parsed = parse_object(text)
        tool.input.convert(parsed)
        if tool.check is not None:
            tool.check.require(parsed, len(text))
    except (InvalidArgumentsError, InvalidJSONError):
        return None
    return parsed


def _sample(schema: object, root: Any, depth: int) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value that is likely to fit a JSON schema."""
    if not isinstance(schema, dict) or depth == _DEPTH:
        return "example"
    if listed := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return min(listed, key=str)
    branches = schema.get("allOf") or schema.get("anyOf") or schema.get("oneOf") or []
    if "$ref" in schema:
        branches = [_at(str(schema["$ref"]), root)]
    if branches and "properties" not in schema:
        return _sample(branches[0], root, depth + 1)
    return _sample_of_type(schema, root, depth)


def _sample_of_type(schema: Mapping[str, Any], root: Any, depth: int) -> Any:  # noqa: ANN401 - any JSON value
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        names = schema.get("properties", {})
        return {name: _sample(names.get(name), root, depth + 1) for name in schema.get("required", ())}
    if kind == "array":
        return [_sample(schema.get("items"), root, depth + 1)] * int(schema.get("minItems", 0))
    if kind in ("integer", "number"):
        return schema.get("minimum", schema.get("maximum", 1))
    return {"boolean": True, "null": None}.get(str(kind), "example")


def _at(reference: str, root: Any) -> object:  # noqa: ANN401 - any JSON value
    node = root
    for step in reference.split("/")[1:]:
        node = node.get(step) if isinstance(node, dict) else None
    return node
