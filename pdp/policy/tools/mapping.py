"""Map a call to its resource, by a template over its arguments.

INVARIANT: the mapping is injective. Without canonical forms, two calls with different placeholders never get the same
id; otherwise an agent could reach one object under the id of another. With a canonical form they share an id exactly
when their canonical values are equal. Unicode is never normalised: ids compare by code point.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pdp.errors import InvalidArgumentsError
from pdp.limits import DEFAULT_LIMITS

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceMapping:
    """How calls of one tool become a resource: `{owner}/{repo}` of type `Repository`.

    `literals` are the texts around the `fields`: one more than there are fields, the outer ones possibly empty.
    `canonical` names the form of a field, one of `CANONICAL_FORMS`.
    """

    type: str
    literals: tuple[str, ...]
    fields: tuple[str, ...]
    canonical: Mapping[str, str] = field(default_factory=dict)
    log_resource: bool = True

    def id(self, arguments: Mapping[str, Any], limit: int = DEFAULT_LIMITS.resource_id_characters) -> str:
        """Return the resource's id, at most `limit` code points long.

        Raise `InvalidArgumentsError`, which names the parameter and the rule and never a value.
        """
        values = [self._value(name, arguments.get(name)) for name in self.fields]
        found = self.literals[0] + "".join(value + text for value, text in zip(values, self.literals[1:], strict=True))
        if len(found) > limit:
            raise InvalidArgumentsError(f"the resource's id would be longer than {limit} characters")
        self._check_readable(found, values)
        return found

    def _value(self, name: str, found: object) -> str:
        if type(found) is not str or not found:
            raise InvalidArgumentsError(
                f"parameter `{name}`: must be a string that is not empty, it names the resource"
            )
        form = self.canonical.get(name)
        value = CANONICAL_FORMS[form](name, found) if form else found
        if any(text in value for text in self.literals if text):
            raise InvalidArgumentsError(f"parameter `{name}`: holds text that separates the parts of the resource's id")
        return value

    def _check_readable(self, found: str, values: list[str]) -> None:
        """Parse the id from the left; raise unless that returns the same values.

        It is not enough that no value holds a separator, since a separator can overlap itself: with `{a}::{b}` both
        (`x:`, `y`) and (`x`, `:y`) would be `x:::y`.
        """
        start = len(self.literals[0])
        for name, value, text in zip(self.fields, values, self.literals[1:-1], strict=False):
            if found.find(text, start) != start + len(value):
                raise InvalidArgumentsError(f"parameter `{name}`: runs into the text that follows in the resource's id")
            start += len(value) + len(text)


class Mappable(Protocol):
    """What the mapping needs of a tool."""

    @property
    def server(self) -> str:
        """Return the name of its server."""

    @property
    def mapping(self) -> ResourceMapping | None:
        """Return how its calls become a resource; None when the server is the resource."""


def map_resource(
    tool: Mappable, arguments: Mapping[str, Any], limit: int = DEFAULT_LIMITS.resource_id_characters
) -> tuple[str, str]:
    """Return type and id of the resource of a call; without a mapping the tool's server.

    Raise `InvalidArgumentsError`.
    """
    if tool.mapping is None:
        return "Server", tool.server
    return tool.mapping.type, tool.mapping.id(arguments, limit)


def split_template(template: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split `{owner}/{repo}` into literals and fields. Raise `ValueError` with what is wrong in one line."""
    parts = _PLACEHOLDER.split(template)
    literals, fields = tuple(parts[::2]), tuple(parts[1::2])
    if any(brace in text for text in literals for brace in "{}"):
        raise ValueError("a brace without its partner")
    if not fields:
        raise ValueError("names no parameter; write `{parameter}`")
    if len(set(fields)) < len(fields):
        raise ValueError("names a parameter twice")
    if not all(literals[1:-1]):
        raise ValueError("two parameters need text between them, else different calls would get one id")
    return literals, fields


def _lower(name: str, value: str) -> str:
    """Lower the case of a name, for tools that ignore case.

    Only characters with an unambiguous pair of cases are accepted. U+0130 becomes longer in lower case, a final sigma
    depends on its position, and U+212A (Kelvin), U+017F (long s) and U+0131 (dotless i) equal `k`, `s` and `i` in some
    comparisons only: with those, the tool could act on another object than the one that the policies judged.
    """
    if value.isascii():
        return value.lower()
    if not all(_has_clean_case(character) for character in value):
        raise InvalidArgumentsError(f"parameter `{name}`: holds a character whose upper and lower case are ambiguous")
    # Character by character, since `str.lower` of the whole text depends on the neighbours of a sigma.
    return "".join(character.lower() for character in value)


def _has_clean_case(character: str) -> bool:
    lower, upper = character.lower(), character.upper()
    return character in (lower, upper) and character.casefold() == lower == upper.lower() and lower.upper() == upper


def _path(name: str, value: str) -> str:
    """Normalise the text of a POSIX path: remove `//`, `.`, `..` and a trailing `/`.

    Relative and absolute paths stay different. Symbolic links are not resolved: the server itself must refuse to follow
    links out of its folders.
    """
    if "\0" in value:
        raise InvalidArgumentsError(f"parameter `{name}`: a path holds no NUL")
    steps: list[str] = []
    for step in value.split("/"):
        if step == "..":
            if not steps:
                raise InvalidArgumentsError(f"parameter `{name}`: the path leads above its root")
            steps.pop()
        elif step not in ("", "."):
            steps.append(step)
    return ("/" if value.startswith("/") else "") + "/".join(steps) or "."


def _absolute_path(name: str, value: str) -> str:
    """Normalise an absolute POSIX path as `path` does, and refuse a relative one.

    Only the server knows the folder of a relative path; here, one file could have two ids.
    """
    if not value.startswith("/"):
        raise InvalidArgumentsError(f"parameter `{name}`: must be an absolute path, it names the resource")
    return _path(name, value)


CANONICAL_FORMS: Mapping[str, Callable[[str, str], str]] = {
    "lower": _lower,
    "path": _path,
    "absolute-path": _absolute_path,
}
