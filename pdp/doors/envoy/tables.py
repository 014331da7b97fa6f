"""Tables that say which HTTP request is which call: exact templates of method and path, from a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pdp.errors import BundleError, ConfigurationError, Problem, reason_of
from pdp.foundation.yamltext import Section, load_section

_MOST_BYTES: Final = 1024 * 1024
_REQUEST = re.compile(r"(?P<method>[A-Z]+) (?P<path>/\S*)")
# A literal is what may be in a path without an escape, so that it has one form.
_SEGMENT = re.compile(r"\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<literal>[A-Za-z0-9._~@:$&'()*+,=-]+)")
_DOTS: Final = frozenset({".", ".."})
_TOOL = re.compile(r"(?P<server>[^/\s]+)/(?P<tool>\S+)")
_KEYS: Final = ("tool", "query", "integers", "body")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placeholder:
    """A segment of a path that is an argument."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """Requests of one method and form of path, and the tool that they are calls of.

    `query` are the parameters that may be there, `integers` the arguments from path and query that are integers and no
    texts. With `body`, the members of a JSON object are arguments too; without it there may be no body.
    """

    method: str
    segments: tuple[str | Placeholder, ...]
    server: str
    tool: str
    query: frozenset[str] = frozenset()
    integers: frozenset[str] = frozenset()
    body: bool = False


Table = tuple[Template, ...]


def read_tables(path: Path) -> Mapping[str, Table]:
    """Return the tables of a file by name. Raise `ConfigurationError` with every mistake and its line."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read `{path}`: {reason_of(error)}") from None
    if len(content) > _MOST_BYTES:
        raise ConfigurationError(f"`{path}` has more than {_MOST_BYTES} bytes")
    problems: list[Problem] = []
    tables: dict[str, Table] = {}
    try:
        document = load_section(str(path), content)
    except BundleError as error:
        raise ConfigurationError("\n".join(map(str, error.problems))) from None
    for name, section in document.items():
        if isinstance(section, Section) and section:
            tables[name] = tuple(_templates(section, problems))
        else:
            problems.append(document.problem(f"the table `{name}` has no requests", name))
    if not document:
        problems.append(document.problem("there are no tables"))
    if problems:
        raise ConfigurationError("\n".join(map(str, problems)))
    return tables


def _templates(section: Section, problems: list[Problem]) -> Iterator[Template]:
    for request, row in section.items():
        found = _REQUEST.fullmatch(request)
        segments = None if found is None else _segments(found["path"])
        if found is None or segments is None:
            problems.append(
                section.problem(f"not a method and a path such as `GET /repos/{{owner}}`: `{request}`", request)
            )
        elif not isinstance(row, Section):
            problems.append(section.problem(f"`{request}` has no `tool`", request))
        else:
            yield from _template(found["method"], segments, row, problems)


def _template(
    method: str, segments: tuple[str | Placeholder, ...], row: Section, problems: list[Problem]
) -> Iterator[Template]:
    before = len(problems)
    problems += row.unknown_keys(_KEYS)
    tool = _TOOL.fullmatch(str(row.get("tool", "")))
    if tool is None:
        problems.append(row.problem("`tool` is not a tool of the catalogue, such as `github/list_issues`", "tool"))
    query, integers = (_names(row, key, problems) for key in ("query", "integers"))
    if not isinstance(body := row.get("body", False), bool):
        problems.append(row.problem("`body` is neither true nor false", "body"))
    placeholders = [one.name for one in segments if isinstance(one, Placeholder)]
    names = [*placeholders, *query]
    if twice := sorted({one for one in names if names.count(one) > 1}):
        problems.append(row.problem(f"the argument `{twice[0]}` has two places"))
    if unknown := sorted(set(integers) - set(names)):
        problems.append(row.problem(f"`{unknown[0]}` is neither in the path nor in `query`", "integers"))
    if tool is not None and len(problems) == before:
        yield Template(
            method=method,
            segments=segments,
            server=tool["server"],
            tool=tool["tool"],
            query=frozenset(query),
            integers=frozenset(integers),
            body=bool(body),
        )


def _names(row: Section, key: str, problems: list[Problem]) -> list[str]:
    found: Any = row.get(key, [])
    if isinstance(found, list) and all(isinstance(one, str) and one for one in found):
        return found
    problems.append(row.problem(f"`{key}` is not a list of names", key))
    return []


def _segments(path: str) -> tuple[str | Placeholder, ...] | None:
    if path == "/":
        return ("",)
    found = [_SEGMENT.fullmatch(one) for one in path[1:].split("/")]
    if any(one is None or one[0] in _DOTS for one in found):
        return None
    return tuple(one["literal"] or Placeholder(name=one["name"]) for one in found if one is not None)
