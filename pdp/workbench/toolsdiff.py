"""Compare a server's tools with its approved catalogue, and list the policies and agents that depend on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pdp.errors import BundleError, Problem
from pdp.limits import Limits
from pdp.policy.bundle import Bundle
from pdp.policy.loading import Compile, check_bundle, load_bundle
from pdp.policy.tools.catalogue import Tool, load_catalogue, tool_definitions
from pdp.policy.tools.importing import catalogue_file
from pdp.policy.tools.parameters import OpaqueType, Parameter, RecordType

Kind = Literal["added", "changed", "removed"]
Definition = Mapping[str, Any]

# Parts of a definition's digest, except its name and those compared by the types that policies see.
_DESCRIPTIVE = ("annotations", "description", "outputSchema")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDifference:
    """One tool that was added, changed or removed.

    `was` and `now` are definition digests, empty where there is no definition; `parts` names the changes.
    `risk` and `groups` are those after an import, or before it for a removed tool. `named_by` holds the ids of policies
    that name the tool, `covered_by` of the others that could match it, `agents` those that have it within the ceiling.
    """

    tool: str
    kind: Kind
    was: str
    now: str
    parts: tuple[str, ...]
    risk: str
    groups: tuple[str, ...]
    named_by: tuple[str, ...]
    covered_by: tuple[str, ...]
    agents: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolsDifference:
    """The differences of one server, by tool, and the problems that `pdp check` would report after an import.

    `approved` counts the tools of the catalogue, `present` those that the server has now.
    """

    server: str
    approved: int
    present: int
    tools: tuple[ToolDifference, ...]
    problems: tuple[Problem, ...]


def compare_tools(
    server: str, definitions: Sequence[Definition], files: Mapping[str, bytes], limits: Limits, compile_files: Compile
) -> ToolsDifference:
    """Compare a server's `tools/list` answer with the catalogue in a bundle's files.

    Raise `BundleError` when the bundle does not load without the change, or the answer cannot become a catalogue.
    """
    bundle = load_bundle(files, limits, compile_files)
    name = f"tools/{server}.json"
    imported = {**files, name: catalogue_file(definitions)}
    old, new = _side(files.get(name), name), _side(imported[name], name)
    after = _after(imported, bundle, new)
    changed = [one for one in sorted(old.keys() | new.keys()) if _digest(old.get(one)) != _digest(new.get(one))]
    return ToolsDifference(
        server=server,
        approved=len(old),
        present=len(new),
        tools=tuple(_difference(old.get(action), new.get(action), bundle, after) for action in changed),
        problems=_problems(imported, limits, compile_files),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """A tool as its own definition describes it, without an overlay's additions."""

    tool: Tool
    definition: Definition


def _side(content: bytes | None, name: str) -> dict[str, _Side]:
    if content is None:
        return {}
    definitions = {str(one["name"]): one for one in tool_definitions(content)}
    tools = load_catalogue({name: content}).tools
    return {action: _Side(tool=tool, definition=definitions[tool.name]) for action, tool in tools.items()}


def _digest(side: _Side | None) -> str:
    return side.tool.definition_digest if side else ""


def _after(imported: Mapping[str, bytes], bundle: Bundle, new: Mapping[str, _Side]) -> Callable[[str], Tool]:
    """Return a function from an action to its tool after an import, with its groups."""
    try:
        tools = load_catalogue(imported).tools
    except BundleError:
        # The overlay names removed tools. Until it is corrected, its entries for the others still hold.
        tools = {action: side.tool for action, side in new.items()} | dict(bundle.catalogue.tools)
    return lambda action: tools.get(action) or bundle.catalogue.tools[action]


def _problems(files: Mapping[str, bytes], limits: Limits, compile_files: Compile) -> tuple[Problem, ...]:
    try:
        check_bundle(files, limits, compile_files)
    except BundleError as error:
        return error.problems
    return ()


def _difference(old: _Side | None, new: _Side | None, bundle: Bundle, after: Callable[[str], Tool]) -> ToolDifference:
    one = new or old
    if one is None:
        raise AssertionError("a tool that neither side has is no difference")
    action, grouped = one.tool.action, after(one.tool.action)
    policies = bundle.policies.values()
    named = sorted(policy.id for policy in policies if policy.actions is not None and action in policy.actions)
    covering = sorted(policy.id for policy in policies if policy.may_match((action, *grouped.action_groups)))
    return ToolDifference(
        tool=action,
        kind="changed" if old and new else "added" if new else "removed",
        was=_digest(old),
        now=_digest(new),
        parts=tuple(_parts(old, new)) if old and new else (),
        risk=grouped.risk,
        groups=grouped.groups,
        named_by=tuple(named),
        covered_by=tuple(one for one in covering if one not in named),
        agents=tuple(sorted(agent for agent, ceiling in bundle.directory.ceilings.items() if ceiling.match(action))),
    )


def _parts(old: _Side, new: _Side) -> Iterator[str]:
    """Name the changes of a definition, first those that policies see."""
    yield from _parameters(old.tool.input, new.tool.input, "")
    for field in _DESCRIPTIVE:
        if old.definition.get(field) != new.definition.get(field):
            yield field
    if old.definition.get("inputSchema") != new.definition.get("inputSchema") and old.tool.input == new.tool.input:
        yield "inputSchema: only parts that policies do not see"


def _parameters(old: RecordType, new: RecordType, path: str) -> Iterator[str]:
    was = {one.name: one for one in old.parameters}
    now = {one.name: one for one in new.parameters}
    for name in sorted(was.keys() | now.keys()):
        before, after = was.get(name), now.get(name)
        if before is None or after is None:
            yield f"parameter `{path}{name}`: {_kind(before)} → {_kind(after)}"
        elif isinstance(before.type, RecordType) and isinstance(after.type, RecordType):
            yield from _parameters(before.type, after.type, f"{path}{name}.")
        elif before != after:
            yield f"parameter `{path}{name}`: {_kind(before)} → {_kind(after)}"


def _kind(parameter: Parameter | None) -> str:
    if parameter is None:
        return "absent"
    words = "opaque" if isinstance(parameter.type, OpaqueType) else parameter.type.cedar()
    words += "" if parameter.required else ", optional"
    words += ", nullable" if parameter.nullable else ""
    allowed = getattr(parameter.type, "allowed", None)
    return words + (f", one of {', '.join(sorted(map(str, allowed)))}" if allowed else "")
