"""A bundle for recorded calls that come without policies: every recorded call is allowed.

Ten policies are about each tool: one permit, eight forbids that read the session, and one that reads the first text
parameter that every call of the tool has. None of the forbids matches.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pdp.bench.bundle import files_of
from pdp.bench.recorded import RecordedCall
from pdp.testing.bundles import tool

SESSION_RULES = 8
NEVER = "never-said"

_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}

Definition = Mapping[str, Any]


def shaped_files(calls: Sequence[RecordedCall]) -> dict[str, bytes]:
    """Return the files of a bundle for the calls."""
    tools = {
        server: [_definition(name, listed) for name, listed in sorted(seen.items())]
        for server, seen in _seen(calls).items()
    }
    return files_of(
        policies={server: "\n".join(_policies(server, listed)) for server, listed in tools.items()},
        tools=tools,
        users=dict.fromkeys(call.user for call in calls),
        agents=dict.fromkeys(call.agent for call in calls),
    )


def _seen(calls: Iterable[RecordedCall]) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    seen: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for call in calls:
        seen.setdefault(call.server, {}).setdefault(call.tool, []).append(call.arguments)
    return seen


def _definition(name: str, seen: Sequence[Mapping[str, Any]]) -> Definition:
    values: dict[str, list[Any]] = {}
    for arguments in seen:
        for parameter, value in arguments.items():
            values.setdefault(parameter, []).append(value)
    properties = {parameter: _schema(found) for parameter, found in values.items()}
    return tool(name, properties, [parameter for parameter, found in values.items() if len(found) == len(seen)])


def _schema(values: Sequence[Any]) -> dict[str, Any]:
    kinds = sorted({_KINDS.get(type(value), "null") for value in values})
    if kinds == ["array"]:
        items = [item for value in values for item in value]
        return {"type": "array", "items": _schema(items)} if items else {"type": "array"}
    return {"type": kinds[0] if len(kinds) == 1 else kinds}


def _policies(server: str, tools: Iterable[Definition]) -> Iterable[str]:
    everywhere = f"principal, action, resource == Server::{json.dumps(server)}"
    yield f'@id("{server}/staff") permit (principal in UserGroup::"staff", action, resource);'
    for number in range(SESSION_RULES):
        head = f'@id("{server}/session-{number}") forbid ({everywhere})'
        yield f'{head} when {{ context.session.purpose == "{NEVER}-{number}" }};'
    for number, one in enumerate(tools):
        if parameter := first_text(one):
            action = _quoted(f"{server}/{one['name']}")
            head = f'@id("{server}/argument-{number}") forbid (principal, action == Action::{action}, resource)'
            yield f'{head} when {{ context.input[{_quoted(parameter)}] == "{NEVER}" }};'


def _quoted(text: str) -> str:
    # Cedar has other escapes for what is not ASCII than JSON has.
    return json.dumps(text, ensure_ascii=False)


def first_text(definition: Definition) -> str | None:
    """Return the first parameter that is a text in every call of the tool; else None."""
    schema = definition["inputSchema"]
    return next((one for one in schema["required"] if schema["properties"][one] == {"type": "string"}), None)
