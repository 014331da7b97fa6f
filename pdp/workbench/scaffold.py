"""Make the files of a new bundle for one tool server: policies to begin with, and tests that they pass."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pdp.errors import BundleError, InvalidArgumentsError, InvalidJSONError, Problem
from pdp.jsontext import parse_object
from pdp.policy.catalogue import Tool, load_catalogue, tool_definitions
from pdp.policy.importing import catalogue_file, propose_overlay
from pdp.policy.yamltext import flow_text

EXAMPLE_SERVER = "notes"
# A link to `policies/` in a checkout, and a folder in a package.
_EXAMPLE = Path(__file__).parent.parent / "example"

_CALLS = {"read_only": "read", "mutating": "change", "destructive": "destroy"}
# A schema that describes itself is left alone below so many levels.
_SAMPLE_DEPTH = 8


def example_definitions() -> Sequence[Mapping[str, Any]]:
    """Return the tools of a server that exists in examples only."""
    return tool_definitions(_template("notes.tools.json").encode("utf-8"))


def example_bundle() -> dict[str, bytes]:
    """Return the files of the shipped example bundle: a path to its content."""
    found = (path for path in _EXAMPLE.rglob("*") if path.is_file())
    return {path.relative_to(_EXAMPLE).as_posix(): path.read_bytes() for path in found}


def scaffold(server: str, definitions: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Return the files of a new bundle: a path to its content.

    Permits, guardrails and tests are there for the risk groups that the server has tools of. Raise `BundleError` when
    the definitions are none that a catalogue takes, or the server's name is one of the bundle's own files.
    """
    stem = server.lower()
    if stem in ("guardrails", "sessions"):
        raise BundleError((Problem("", 0, f"the server `{server}` would have the file of `{stem}.cedar`; rename it"),))
    catalogue = {f"tools/{server}.json": catalogue_file(definitions)}
    load_catalogue(catalogue)  # what is wrong with the definitions is said before anything is proposed
    catalogue[f"tools/{server}.yaml"] = propose_overlay(server, definitions).encode("utf-8")
    tools = [tool for _, tool in sorted(load_catalogue(catalogue).tools.items())]
    if not tools:
        raise BundleError((Problem("", 0, f"the server `{server}` has no tools"),))
    risks: set[str] = {tool.risk for tool in tools}
    words = {"server": server, "stem": stem, "changing": _changing(risks)}
    schemas = {f"{server}/{one['name']}": one.get("inputSchema") for one in definitions}
    texts = {
        "README.md": _filled(["README.md"], words),
        "bundle.yaml": _filled(["bundle.yaml"], words),
        "schema.cedarschema": _filled(["schema.cedarschema"], words),
        "directory.yaml": _filled(["directory.yaml"], words),
        "sessions.cedar": _filled(["sessions.cedar"], words),
        "guardrails.cedar": _filled(_guardrails(risks), words),
        f"{stem}.cedar": _filled(_permits(risks), words),
        f"tests/{stem}_test.yaml": _tests(tools, schemas, words),
    }
    return {**{name: text.encode("utf-8") for name, text in texts.items()}, **catalogue}


def _permits(risks: set[str]) -> list[str]:
    read = ["permit_read.cedar"] * ("read_only" in risks)
    return ["permits.cedar", *read, *["permit_change.cedar"] * bool(risks - {"read_only"})]


def _guardrails(risks: set[str]) -> list[str]:
    # A policy about a risk group without tools could never match, and strict validation refuses it.
    destructive = ["guardrail_destructive.cedar"] * ("destructive" in risks)
    return ["guardrails.cedar", *destructive, *["guardrail_tainted.cedar"] * bool(risks - {"read_only"})]


def _changing(risks: set[str]) -> str:
    groups = [f'Action::"{risk}"' for risk in ("mutating", "destructive") if risk in risks]
    return groups[0] if len(groups) == 1 else f"[{', '.join(groups)}]"


def _tests(tools: Iterable[Tool], schemas: Mapping[str, Any], words: Mapping[str, str]) -> str:
    """Write the test file: a call of the first tool of each risk group whose arguments can be made up."""
    calls: dict[str, str] = {}
    for tool in tools:
        if tool.risk not in calls and (arguments := sample_arguments(tool, schemas[tool.action])) is not None:
            call = f"{{tool: {flow_text(tool.action)}, arguments: {flow_text(arguments)}}}"
            calls[tool.risk] = f"  {_CALLS[tool.risk]}: {call}"
    groups = [risk for risk in _CALLS if risk in calls]
    parts = ["test.yaml", *["test_states.yaml"] * bool(groups), *(f"test_{risk}.yaml" for risk in groups)]
    listed = "\n" + "\n".join(calls[risk] for risk in groups) if groups else " {}"
    first = _CALLS[groups[0]] if groups else ""
    return _filled(parts, {**words, "calls": listed, "first": first})


def sample_arguments(tool: Tool, schema: object) -> dict[str, Any] | None:
    """Return arguments that a tool takes, with what its JSON schema requires; None when none come to mind."""
    arguments = {} if schema is None else _sample(schema, schema, 0)
    text = json.dumps(arguments).encode("utf-8")
    try:
        parsed = parse_object(text)
        tool.input.convert(parsed)
        if tool.check is not None:
            tool.check.require(parsed, len(text))
    except (InvalidArgumentsError, InvalidJSONError):
        return None
    return parsed


def _sample(schema: object, root: Any, depth: int) -> Any:  # noqa: ANN401 - any JSON value
    """Return what is likely to fit a JSON schema."""
    if not isinstance(schema, dict) or depth == _SAMPLE_DEPTH:
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
    place = root
    for step in reference.split("/")[1:]:
        place = place.get(step) if isinstance(place, dict) else None
    return place


def _filled(names: Sequence[str], words: Mapping[str, str]) -> str:
    text = "".join(map(_template, names))
    for name, word in words.items():
        text = text.replace("{{" + name + "}}", word)
    return text


def _template(name: str) -> str:
    return files("pdp.workbench").joinpath("templates", name).read_text(encoding="utf-8")
