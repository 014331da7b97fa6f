"""Find which entity the engine refuses, and why: its own message names neither entity nor attribute."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import cedarpy

# The beginning of the engine's message when it cannot read an entity.
_NOT_READ = "error during entity deserialization"
# A value of each type: if one of them fits, the value of the attribute is what does not.
_OTHERS: tuple[Any, ...] = (
    "",
    0,
    True,
    [],
    {},
    {"__extn": {"fn": "decimal", "arg": "1.0"}},
    {"__extn": {"fn": "datetime", "arg": "2026-01-01"}},
    {"__extn": {"fn": "duration", "arg": "1h"}},
    {"__extn": {"fn": "ip", "arg": "127.0.0.1"}},
)


def entities_problem(text: str, schema: cedarpy.Schema | None) -> tuple[str, str]:
    """Return where refused entities are wrong (`[2].attrs.age`, or empty), and what is wrong.

    `text` is JSON that `scan_json` has checked.
    """
    try:
        entities = json.loads(text)
    except json.JSONDecodeError as error:
        return "", f"not JSON (line {error.lineno}, column {error.colno})"
    except ValueError:
        return "", "not JSON"
    if not isinstance(entities, list):
        return "", "must be a list of entities"
    seen: dict[str, int] = {}
    for index, entity in enumerate(entities):
        for below, problem in _problems(entity, schema):
            return f"[{index}]{below}", problem
        name = _name(entity)
        if name in seen:
            return f"[{index}].uid", f"`{name}` is also in [{seen[name]}]"
        seen[name] = index
    return "", "the entities contradict each other: one is its own ancestor"


def _problems(entity: Any, schema: cedarpy.Schema | None) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - any JSON value
    if not isinstance(entity, dict) or "uid" not in entity:
        yield "", "must be an object with `uid`, `attrs` and `parents`"
    elif not _fits({"uid": entity["uid"], "attrs": {}, "parents": []}, None):
        yield ".uid", 'must be `{"type": "…", "id": "…"}`'
    elif not isinstance(entity.get("attrs", {}), dict):
        yield ".attrs", "must be an object"
    elif not isinstance(entity.get("parents", []), list):
        yield ".parents", "must be a list"
    elif not _fits(entity, schema):
        yield from _causes(entity, schema)


def _causes(entity: dict[str, Any], schema: cedarpy.Schema | None) -> Iterator[tuple[str, str]]:
    attributes, parents, name = entity.get("attrs", {}), entity.get("parents", []), _name(entity)
    if _refusal({"uid": entity["uid"]}, schema).startswith(_NOT_READ):
        yield ".uid.type", f"`{name}` is of a type that the schema does not declare"
    for attribute in attributes:
        rest = {key: value for key, value in attributes.items() if key != attribute}
        if _fits({**entity, "attrs": rest}, schema):
            yield f".attrs.{attribute}", f"`{name}` cannot have this attribute, or this value of it"
        if any(_fits({**entity, "attrs": {**rest, attribute: other}}, schema) for other in _OTHERS):
            yield f".attrs.{attribute}", f"`{name}` needs a value of another type here"
    for index in range(len(parents)):
        if _fits({**entity, "parents": parents[:index] + parents[index + 1 :]}, schema):
            yield f".parents[{index}]", f"`{name}` cannot have this parent"
    yield "", f"`{name}` does not fit the schema: an attribute is missing, or several things are wrong"


def _fits(entity: dict[str, Any], schema: cedarpy.Schema | None) -> bool:
    return not _refusal(entity, schema)


def _refusal(entity: dict[str, Any], schema: cedarpy.Schema | None) -> str:
    try:
        cedarpy.Entities.from_json_str(json.dumps([{"attrs": {}, "parents": [], **entity}]), schema)
    except ValueError as error:
        return str(error)
    return ""


def _name(entity: dict[str, Any]) -> str:
    uid = entity["uid"].get("__entity", entity["uid"])
    return f'{uid["type"]}::"{uid["id"]}"'
