"""Where the arguments of a tool name somebody or something outside: paths such as `payments[].iban`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_ITEMS = "[]"
# Deeper paths of a schema are not offered.
_MOST_STEPS = 8
_MOST_NODES = 4096
_CHOICES = ("anyOf", "oneOf", "allOf")
_SCALARS = frozenset({"string", "integer", "number", "boolean", "null"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPath:
    """One path into the arguments, its steps, and the kind of what it names; None where the value's shape decides."""

    text: str
    steps: tuple[str, ...]
    kind: str | None = None

    def found(self, arguments: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
        """Yield each value at the path in raw JSON arguments, with its own path: `payments[0].iban`.

        Lists are taken element by element wherever they are. What is missing, `null` or an empty list yields nothing.
        A value in which the path does not go on is yielded itself: it could name anything.
        """
        yield from _below(arguments, self.steps, "")


def path_of(text: str, names: Mapping[str, object], kind: str | None = None) -> TargetPath:
    """Read a path. A whole text that is the name of a parameter is that parameter, whatever it holds."""
    steps = (text,) if text in names else tuple(step.removesuffix(_ITEMS) for step in text.split("."))
    return TargetPath(text=text, steps=steps, kind=kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPaths:
    """The paths that a tool's JSON schema declares, and those below which it says nothing."""

    known: tuple[str, ...]
    free: tuple[str, ...]

    def declares(self, path: str) -> bool:
        """Return whether arguments can have something at a path."""
        return path in self.known or any(path.startswith((f"{one}.", f"{one}{_ITEMS}")) for one in self.free)


def known_paths(schema: object) -> KnownPaths:
    """Return the paths to each value and list of values that a schema declares, up to eight steps deep."""
    known: dict[str, None] = {}
    free: dict[str, None] = {}
    pending: list[tuple[str, object, int]] = [("", schema, 0)]
    visited = 0
    while pending and visited < _MOST_NODES:
        path, node, depth = pending.pop(0)
        visited += 1
        said = False
        for one in _branches(node, schema):
            properties, items = one.get("properties"), one.get("items")
            for name, below in properties.items() if isinstance(properties, dict) else ():
                inner = f"{path}.{name}" if path else name
                known.setdefault(inner)
                pending += [(inner, below, depth + 1)] if depth < _MOST_STEPS else []
            if path and isinstance(items, dict):
                pending += [(path + _ITEMS, items, depth + 1)] if depth < _MOST_STEPS else []
            said = said or isinstance(properties, dict) or isinstance(items, dict) or _is_scalar(one)
        if path:
            known.setdefault(path)
            if not said:
                free.setdefault(path)
    return KnownPaths(known=tuple(known), free=tuple(free))


def _branches(node: object, schema: object) -> Iterator[Mapping[str, Any]]:
    """Yield a node of a schema, and all that it refers to or combines."""
    pending, seen = [node], set()
    while pending:
        one = pending.pop()
        if not isinstance(one, dict) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        for choice in _CHOICES:
            found = one.get(choice)
            pending += found if isinstance(found, list) else []
        if isinstance(reference := one.get("$ref"), str):
            pending.append(_referred(reference, schema))


def _referred(reference: str, schema: object) -> object:
    found = schema
    for step in reference.removeprefix("#").strip("/").split("/") if reference.startswith("#") else ["#"]:
        found = found.get(step) if isinstance(found, dict) and step else found
    return found


def _is_scalar(node: Mapping[str, Any]) -> bool:
    kinds = node.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return all(kind in _SCALARS for kind in kinds if isinstance(kind, str)) and isinstance(node.get("type"), str | list)


def _below(value: object, steps: tuple[str, ...], path: str) -> Iterator[tuple[str, object]]:
    if value is None:
        return
    if isinstance(value, list):
        for place, one in enumerate(value):
            yield from _below(one, steps, f"{path}[{place}]")
    elif not steps or not isinstance(value, Mapping):
        yield path, value
    elif steps[0] in value:
        yield from _below(value[steps[0]], steps[1:], f"{path}.{steps[0]}" if path else steps[0])
