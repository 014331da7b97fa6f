"""The directory of a bundle: users, agents with their ceilings, groups and other entities."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pdp.errors import BundleError, Problem
from pdp.foundation.yamltext import Section, load_section
from pdp.policy.patterns import ToolPatterns, pattern_problem

FILE = "directory.yaml"

Uid = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """One entity in Cedar's JSON, and its line in the file. `refers_to` holds parents and attribute references."""

    uid: Uid
    json: Mapping[str, Any]
    refers_to: frozenset[Uid]
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class Directory:
    """The users, agents, groups and other entities that a bundle declares.

    `ceilings` bounds each agent's tools, whatever a session or a policy says.
    """

    entities: Mapping[Uid, Entity] = field(default_factory=dict)
    ceilings: Mapping[str, ToolPatterns] = field(default_factory=dict)

    def closure(self, roots: Iterable[Uid]) -> dict[Uid, Entity]:
        """Return every entity that the roots reach: all that a policy can read or test."""
        found: dict[Uid, Entity] = {}
        pending = list(roots)
        while pending:
            uid = pending.pop()
            entity = self.entities.get(uid)
            if entity is not None and uid not in found:
                found[uid] = entity
                pending.extend(entity.refers_to)
        return found

    @cached_property
    def servers_above(self) -> Mapping[str, frozenset[str]]:
        """Return for each type the ids of all servers that an entity of this type is below."""
        found: dict[str, set[str]] = {}
        for uid in self.entities:
            pending, seen = [uid], {uid}
            while pending:
                above = self._parents(pending.pop()) - seen
                found.setdefault(uid[0], set()).update(name for kind, name in above if kind == "Server")
                pending += above
                seen |= above
        return {kind: frozenset(names) for kind, names in found.items() if names}

    def _parents(self, uid: Uid) -> set[Uid]:
        one = self.entities.get(uid)
        return {(parent["type"], parent["id"]) for parent in one.json["parents"]} if one else set()

    def capture(self, user: str, agent: str) -> str | None:
        """Return all entities that a user and an agent reach, as Cedar's JSON; None when either is unknown."""
        if ("User", user) not in self.entities or ("Agent", agent) not in self.entities:
            return None
        reached = self.closure([("User", user), ("Agent", agent)])
        return json.dumps([reached[uid].json for uid in sorted(reached)], sort_keys=True, separators=(",", ":"))

    def overlaid(self, over: Directory) -> Directory:
        """Return the directory with the entities and ceilings of `over` in place of those with the same id."""
        return Directory(entities={**self.entities, **over.entities}, ceilings={**self.ceilings, **over.ceilings})

    def orphans(self) -> tuple[tuple[Entity, Uid], ...]:
        """Return each entity with an unknown parent, and that parent."""
        # With a misspelt group, a forbid on the right one silently does not match. An attribute may refer to an
        # unknown entity: an owner who has left is still the owner.
        parents = (
            (one, (parent["type"], parent["id"])) for one in self.entities.values() for parent in one.json["parents"]
        )
        return tuple((one, uid) for one, uid in parents if uid[0] != "Server" and uid not in self.entities)


def uid_json(uid: Uid) -> dict[str, str]:
    """Return an entity's uid in Cedar's JSON."""
    return {"type": uid[0], "id": uid[1]}


def entity(uid: Uid, attributes: Mapping[str, Any], parents: Iterable[Uid], line: int = 0) -> Entity:
    """Make an entity from attributes in Cedar's JSON and parents."""
    above = tuple(parents)
    return Entity(
        uid=uid,
        json={"uid": uid_json(uid), "attrs": dict(attributes), "parents": [uid_json(parent) for parent in above]},
        refers_to=frozenset(above) | frozenset(references(attributes)),
        line=line,
    )


def references(value: Any) -> Iterable[Uid]:  # noqa: ANN401 - any JSON value
    """Yield every entity that a value in Cedar's JSON refers to."""
    if isinstance(value, Mapping):
        if set(value) == {"type", "id"} and isinstance(value["type"], str) and isinstance(value["id"], str):
            yield value["type"], value["id"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from references(inner)


def load_directory(files: Mapping[str, bytes]) -> Directory:
    """Read `directory.yaml`; without one the directory is empty. Raise `BundleError` naming every problem."""
    if FILE not in files:
        return Directory()
    return _DirectoryReader(FILE).read(load_section(FILE, files[FILE]))


def read_overlay(top: Section) -> Directory:
    """Read `users`, `agents` and `entities` of another file, in the form of `directory.yaml`.

    Parents may be unknown. Raise `BundleError` naming every problem. Other keys of the file are not checked.
    """
    return _DirectoryReader(top.file).read_overlay(top)


class _DirectoryReader:
    """Collect entities and problems section by section."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._entities: dict[Uid, Entity] = {}
        self._ceilings: dict[str, ToolPatterns] = {}
        self._problems: list[Problem] = []

    def read(self, top: Section) -> Directory:
        self._problems += top.unknown_keys(("users", "agents", "user_groups", "agent_groups", "entities"))
        self._named(top, "user_groups", "UserGroup", "UserGroup", "parents")
        self._named(top, "agent_groups", "AgentGroup", "AgentGroup", "parents")
        self._people_and_things(top)
        for found, uid in Directory(entities=self._entities).orphans():
            self._problems.append(Problem(self._file, found.line, unknown_parent(uid)))
        return self._directory()

    def read_overlay(self, top: Section) -> Directory:
        self._people_and_things(top)
        return self._directory()

    def _people_and_things(self, top: Section) -> None:
        self._named(top, "users", "User", "UserGroup", "groups")
        self._named(top, "agents", "Agent", "AgentGroup", "groups")
        self._further(top)

    def _directory(self) -> Directory:
        if self._problems:
            raise BundleError(tuple(self._problems))
        return Directory(entities=self._entities, ceilings=self._ceilings)

    def _named(self, top: Section, key: str, entity_type: str, group_type: str, groups_key: str) -> None:
        section = top.get(key)
        if section is None:
            return
        if not isinstance(section, Section):
            self._problems.append(top.problem(f"`{key}` must be a mapping from id to facts", key))
            return
        known = (groups_key, "attributes", "ceiling") if entity_type == "Agent" else (groups_key, "attributes")
        for name, facts in section.items():
            entry = facts if isinstance(facts, Section) else Section(self._file, section.lines[name])
            if facts is not None and not isinstance(facts, Section):
                self._problems.append(section.problem(f"`{name}` must be a mapping", name))
            self._problems += entry.unknown_keys(known)
            groups = self._strings(entry, groups_key)
            self._add((entity_type, name), entry, [(group_type, group) for group in groups], section.lines[name])
            if entity_type == "Agent":
                self._ceilings[name] = self._ceiling(entry)

    def _further(self, top: Section) -> None:
        entries = top.get("entities", [])
        if not isinstance(entries, list):
            self._problems.append(top.problem("`entities` must be a list", "entities"))
            return
        for entry in entries:
            if not isinstance(entry, Section) or not _is_uid({key: entry.get(key) for key in ("type", "id")}):
                line = entry.line if isinstance(entry, Section) else top.lines["entities"]
                self._problems.append(Problem(self._file, line, "an entity needs `type` and `id`"))
                continue
            self._problems += entry.unknown_keys(("type", "id", "attributes", "parents"))
            parents = entry.get("parents") or []
            if not isinstance(parents, list) or not all(_is_uid(parent) for parent in parents):
                self._problems.append(entry.problem("`parents` must be a list of `{type: …, id: …}`", "parents"))
                parents = []
            self._add((entry["type"], entry["id"]), entry, [(p["type"], p["id"]) for p in parents], entry.line)

    def _add(self, uid: Uid, entry: Section, parents: list[Uid], line: int) -> None:
        attributes = entry.get("attributes") or {}
        if not isinstance(attributes, dict):
            self._problems.append(entry.problem("`attributes` must be a mapping", "attributes"))
            attributes = {}
        if uid[0] in ("Session", "Grant", "Action", "Server"):
            self._problems.append(Problem(self._file, line, f"entities of type `{uid[0]}` are made only by the PDP"))
        elif uid in self._entities:
            self._problems.append(Problem(self._file, line, f"`{uid[0]}::{uid[1]}` appears twice"))
        else:
            self._entities[uid] = entity(uid, _plain(attributes), parents, line)

    def _ceiling(self, entry: Section) -> ToolPatterns:
        patterns = self._strings(entry, "ceiling")
        for pattern in patterns:
            if problem := pattern_problem(pattern):
                self._problems.append(entry.problem(f"ceiling `{pattern}`: {problem}", "ceiling"))
        return ToolPatterns(patterns)

    def _strings(self, entry: Section, key: str) -> tuple[str, ...]:
        values = entry.get(key) or []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            self._problems.append(entry.problem(f"`{key}` must be a list of strings", key))
            return ()
        return tuple(values)


def unknown_parent(uid: Uid) -> str:
    """Return the message for an unknown parent."""
    return f"unknown parent: `{uid[0]}::{uid[1]}`"


def _is_uid(value: Any) -> bool:  # noqa: ANN401 - any YAML value
    return (
        isinstance(value, dict)
        and set(value) == {"type", "id"}
        and all(isinstance(part, str) and part for part in value.values())
    )


def _plain(value: Any) -> Any:  # noqa: ANN401 - any YAML value
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value
