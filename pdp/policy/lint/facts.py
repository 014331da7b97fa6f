"""The facts for lints: each policy as a conjunction, and what is known about calls of each action."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pdp.policy.analysis import BELOW, entity_uids, reads
from pdp.policy.contents import Contents
from pdp.policy.directory import Directory, Uid
from pdp.policy.locate import Anchor
from pdp.policy.schema import SESSION_ACTIONS
from pdp.policy.tools.catalogue import Catalogue, Tool

Tree = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What is known about every request of one action. `groups` holds the action itself and its groups.

    `tool` is None for actions of the PDP itself.
    """

    action: str
    groups: frozenset[str]
    resource_type: str
    tool: Tool | None = None

    @property
    def server(self) -> Uid | None:
        """Return the server that is the resource of every call; None when the resource depends on the call."""
        if self.tool is None or self.tool.mapping is not None:
            return None
        return "Server", self.tool.server


@dataclass(frozen=True, kw_only=True)
class LintPolicy:
    """One policy: its tree in Cedar's JSON, and the actions that its scope can match.

    It matches exactly when the action is in one of `environments` and all `conjuncts` are true.
    """

    id: str
    effect: str
    file: str
    line: int
    column: int
    text: str
    tree: Tree
    environments: tuple[Environment, ...]

    @cached_property
    def conjuncts(self) -> tuple[Tree, ...]:
        """Return scope and conditions as expressions, in the order of evaluation, without the action's scope."""
        scopes = (_scope_expressions(variable, self.tree[variable]) for variable in ("principal", "resource"))
        return (*(one for scope in scopes for one in scope), *self.conditions)

    @property
    def scope_length(self) -> int:
        """Return the number of conjuncts from the scope; they come first."""
        return len(self.conjuncts) - len(self.conditions)

    @cached_property
    def conditions(self) -> tuple[Tree, ...]:
        """Return only the conditions, as expressions that `&&` joins."""
        bodies = (
            condition["body"] if condition["kind"] == "when" else negation(condition["body"])
            for condition in self.tree["conditions"]
        )
        return tuple(one for body in bodies for one in split(body))

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Return a text for each conjunct; equal texts mean equal expressions."""
        return tuple(map(key, self.conjuncts))

    @cached_property
    def actions(self) -> frozenset[str]:
        """Return the ids of all actions that the scope can match."""
        return frozenset(one.action for one in self.environments)

    @cached_property
    def reads(self) -> frozenset[str] | None:
        """Return what the policy can read apart from principal, action and server; None means everything."""
        found = reads(self.tree)
        return None if found is None else frozenset(read for read in found if not read.startswith(BELOW))

    @property
    def counted(self) -> bool:
        """Say whether it reads what was called before, in whatever form."""
        return any(read.startswith(("context.counts", "context.done")) for read in self.reads or ())

    @cached_property
    def uids(self) -> tuple[Uid, ...]:
        """Return every entity that the policy names, except actions in its scope."""
        return tuple((kind, name) for kind, name in entity_uids(self.tree))

    @property
    def annotations(self) -> Mapping[str, str | None]:
        """Return the annotations; one without a value has None."""
        found: Mapping[str, str | None] = self.tree.get("annotations", {})
        return found


@dataclass(frozen=True, kw_only=True)
class LintBundle:
    """All policies and the contents of their bundle. `impossible` holds those that the validator calls impossible.

    `terms` are the names of the terms that the schema declares.
    """

    contents: Contents
    policies: tuple[LintPolicy, ...]
    terms: frozenset[str] = frozenset()
    impossible: frozenset[str] = frozenset()

    @property
    def catalogue(self) -> Catalogue:
        """Return the tools."""
        return self.contents.catalogue

    @property
    def directory(self) -> Directory:
        """Return users, agents, groups and other entities."""
        return self.contents.directory

    @cached_property
    def known(self) -> Mapping[str, frozenset[str]]:
        """Return the ids of each entity type whose entities the bundle declares completely."""
        ids: dict[str, set[str]] = {name: set() for name in ("User", "UserGroup", "Agent", "AgentGroup")}
        for entity_type, name in self.directory.entities:
            ids.setdefault(entity_type, set()).add(name)
        kept = {name: frozenset(ids[name]) for name in ("User", "UserGroup", "Agent", "AgentGroup")}
        return kept | {"Server": frozenset(self.catalogue.servers)}

    @cached_property
    def mapped_servers(self) -> Mapping[str, frozenset[str]]:
        """Return, by entity type, the servers that its entities are below in the directory."""
        found: dict[str, set[str]] = {}
        for uid in self.directory.entities:
            found.setdefault(uid[0], set()).update(name for kind, name in self.ancestors(uid) if kind == "Server")
        return {kind: frozenset(names) for kind, names in found.items()}

    def ancestors(self, uid: Uid) -> frozenset[Uid]:
        """Return an entity of the directory and all its ancestors."""
        found: set[Uid] = set()
        pending = [uid]
        while pending:
            one = pending.pop()
            if one not in found:
                found.add(one)
                known = self.directory.entities.get(one)
                pending.extend((p["type"], p["id"]) for p in known.json["parents"]) if known else None
        return frozenset(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a lint finds in a policy: a message, what to do, and where (by default the policy's head)."""

    message: str
    help: str
    at: Sequence[Anchor] = field(default=())


def environments(catalogue: Catalogue) -> dict[str, Environment]:
    """Return an environment for each action of the catalogue and of the PDP itself."""
    found = {
        action: Environment(action=action, groups=frozenset({action}), resource_type="Session")
        for action in SESSION_ACTIONS
    }
    for action, tool in catalogue.tools.items():
        groups = frozenset({action, *tool.action_groups})
        found[action] = Environment(action=action, groups=groups, resource_type=tool.resource_type, tool=tool)
    return found


def matching(scope: Iterable[str] | None, known: Mapping[str, Environment]) -> tuple[Environment, ...]:
    """Return the environments that an action scope can match; None means any action."""
    if scope is None:
        return tuple(known.values())
    names = set(scope)
    return tuple(one for one in known.values() if not names.isdisjoint(one.groups))


def split(tree: Tree) -> Iterator[Tree]:
    """Split an expression at its outer `&&`, in the order of evaluation; `!` is moved inwards where possible."""
    pending = [tree]
    while pending:
        one = pending.pop()
        match one:
            case {"&&": {"left": left, "right": right}}:
                pending += [right, left]
            case {"!": {"arg": {"||": {"left": left, "right": right}}}}:
                pending += [negation(right), negation(left)]
            case {"!": {"arg": {"!": {"arg": inner}}}}:
                pending.append(inner)
            case {"is": {"left": left, "entity_type": name, "in": above}}:
                pending += [{"in": {"left": left, "right": above}}, {"is": {"left": left, "entity_type": name}}]
            case {"Value": True}:
                pass
            case _:
                yield one


def negation(tree: Tree) -> Tree:
    """Return the expression that is true when the given one is false."""
    return {"!": {"arg": tree}}


def key(tree: Tree) -> str:
    """Return a text that is the same only for equal expressions."""
    return json.dumps(tree, sort_keys=True)


def nodes(trees: Iterable[Tree]) -> Iterator[dict[str, Any]]:
    """Yield every node of some expressions; the field names of a record are not read as kinds of nodes."""
    pending = list(trees)
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if set(value) == {"Record"}:
                pending.extend(value["Record"].values())
                continue
            yield value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def path(tree: Tree) -> tuple[str, ...]:
    """Return `("context", "input", "a")` for `context.input.a`; empty when the expression is not a path."""
    steps: list[str] = []
    while True:
        match tree:
            case {".": {"left": left, "attr": str(name)}}:
                steps.append(name)
                tree = left
            case {"Var": str(name)}:
                return (name, *reversed(steps))
            case _:
                return ()


def pattern_text(pattern: Iterable[Any]) -> str:
    """Return a pattern of Cedar's JSON as text; a literal `*` looks like a wildcard."""
    return "".join("*" if part == "Wildcard" else str(part["Literal"]) for part in pattern)


def literal_uid(tree: Tree) -> Uid | None:
    """Return type and id of an entity literal."""
    match tree:
        case {"Value": {"__entity": {"type": str(kind), "id": str(name)}}}:
            return kind, name
        case _:
            return None


def _scope_expressions(variable: str, scope: Tree) -> Iterator[Tree]:
    subject = {"Var": variable}
    match scope:
        case {"op": "==", "entity": uid}:
            yield {"==": {"left": subject, "right": _entity(uid)}}
        case {"op": "in", "entity": uid}:
            yield {"in": {"left": subject, "right": _entity(uid)}}
        case {"op": "is", "entity_type": name, "in": {"entity": uid}}:
            yield {"is": {"left": subject, "entity_type": name}}
            yield {"in": {"left": subject, "right": _entity(uid)}}
        case {"op": "is", "entity_type": name}:
            yield {"is": {"left": subject, "entity_type": name}}


def _entity(uid: Mapping[str, Any]) -> Tree:
    return {"Value": {"__entity": uid.get("__entity", uid)}}


def atoms(trees: Iterable[Tree]) -> Iterator[tuple[Tree, bool]]:
    """Yield the parts of conditions that are not `&&`, `||`, `!`, `if` or a comparison with true or false.

    Each is paired with whether the policy matches more calls when it is true; the condition of an `if` is yielded with
    both.
    """
    pending: list[tuple[Any, bool]] = [(one, True) for one in trees]
    while pending:
        tree, positive = pending.pop()
        match tree:
            case {"!": {"arg": inner}}:
                pending.append((inner, not positive))
            case {"==": {"left": inner, "right": {"Value": bool(value)}}} if path(inner) == ():
                pending.append((inner, positive == value))
            case {"&&": {"left": left, "right": right}} | {"||": {"left": left, "right": right}}:
                pending += [(left, positive), (right, positive)]
            case {"if-then-else": {"if": condition, "then": then, "else": otherwise}}:
                pending += [(condition, True), (condition, False), (then, positive), (otherwise, positive)]
            case _:
                yield tree, positive


def lenient(policy: LintPolicy) -> Iterator[Tree]:
    """Yield the parts that let calls pass when true: conditions of a permit, exceptions of a forbid."""
    return (tree for tree, positive in atoms(policy.conditions) if positive == (policy.effect == "permit"))


def strict(policy: LintPolicy) -> Iterator[Tree]:
    """Yield the parts that stop calls when true: exceptions of a permit, conditions of a forbid."""
    return (tree for tree, positive in atoms(policy.conditions) if positive == (policy.effect == "forbid"))
