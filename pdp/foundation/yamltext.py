"""Read YAML strictly, and remember the line of each key."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NoReturn

import yaml

from pdp.errors import BundleError, Problem, one_line
from pdp.foundation.nearest import hint

_DEPTH = 16
# Base-60 numbers and similar ones take the square of their length to read.
_LONGEST_PLAIN = 64
_STRING = "tag:yaml.org,2002:str"
_TIME = "tag:yaml.org,2002:timestamp"


class _DepthError(yaml.MarkedYAMLError):
    pass


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, which stops at nesting deeper than the limit.

    Beyond that its time grows with the square of the depth: a minute for a few ten thousand brackets.
    """

    def fetch_flow_collection_start(self, token_class: Any) -> None:  # noqa: ANN401 - PyYAML's method
        """Read a `[` or `{`; raise beyond the depth."""
        if self.flow_level > _DEPTH:
            self._refuse()
        super().fetch_flow_collection_start(token_class)

    def add_indent(self, column: int) -> bool:
        """Begin a nested block; raise beyond the depth."""
        if len(self.indents) > _DEPTH + 1:
            self._refuse()
        return bool(super().add_indent(column))

    def _refuse(self) -> NoReturn:
        raise _DepthError(problem=f"deeper than {_DEPTH} levels", problem_mark=self.get_mark())


class Section(dict[str, Any]):
    """A mapping of a YAML file that knows its file and the line of each key (from 1)."""

    def __init__(self, file: str, line: int) -> None:
        super().__init__()
        self.file = file
        self.line = line
        self.lines: dict[str, int] = {}

    def problem(self, message: str, key: str | None = None) -> Problem:
        """Return a problem with the line of a key, or of the section itself."""
        return Problem(self.file, self.lines.get(key, self.line) if key is not None else self.line, message)

    def unknown_keys(self, known: Iterable[str], what: str = "key") -> list[Problem]:
        """Return a problem for each unknown key, naming the nearest known one."""
        names = tuple(known)
        return [self.problem(unknown(what, key, names), key) for key in self if key not in names]


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is unknown, and name the nearest known one."""
    return f"unknown {what}: `{one_line(name)}`{hint(name, known)}"


def load_section(file: str, content: bytes, *, times_as_text: bool = False) -> Section:
    """Parse a YAML file whose root is a mapping; an empty file is an empty mapping.

    Only plain mappings, lists and scalars: no tags, no anchors, no duplicate keys, string keys only.
    `times_as_text` reads a date or time without quotes as text; otherwise it is a problem.
    Raise `BundleError` with file and line.
    """
    try:
        # Nodes only: no objects are created.
        node = yaml.compose(content.decode("utf-8"), Loader=_Loader)
    except UnicodeDecodeError:
        raise BundleError((Problem(file, 0, "not UTF-8"),)) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problem = error.problem if isinstance(error, _DepthError) else f"not YAML: {error.problem}"
        raise BundleError((Problem(file, line, problem or "not YAML"),)) from None
    except (yaml.YAMLError, RecursionError):
        raise BundleError((Problem(file, 0, "not YAML"),)) from None
    if node is None:
        return Section(file, 1)
    value = _Reader(file, times_as_text=times_as_text).read(node, 0)
    if not isinstance(value, Section):
        raise BundleError((Problem(file, 1, "must be a mapping"),))
    return value


class _Reader:
    def __init__(self, file: str, *, times_as_text: bool) -> None:
        self._file = file
        self._times_as_text = times_as_text
        self._seen: set[int] = set()
        self._scalars = yaml.SafeLoader("")

    def read(self, node: yaml.Node, depth: int) -> Any:  # noqa: ANN401 - any YAML value
        line = node.start_mark.line + 1
        if id(node) in self._seen:
            raise BundleError((Problem(self._file, line, "aliases are not allowed"),))
        self._seen.add(id(node))
        if not node.tag.startswith("tag:yaml.org,2002:"):
            raise BundleError((Problem(self._file, line, "tags are not allowed"),))
        if depth > _DEPTH:
            raise BundleError((Problem(self._file, line, f"deeper than {_DEPTH} levels"),))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, line, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, depth + 1) for item in node.value]
        return self._scalar(node, line)

    def _mapping(self, node: yaml.MappingNode, line: int, depth: int) -> Section:
        section = Section(self._file, line)
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            key = self._scalar(key_node, key_line) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise BundleError((Problem(self._file, key_line, "a key must be a string; put it in quotes"),))
            if key in section:
                raise BundleError((Problem(self._file, key_line, f"key `{key}` appears twice"),))
            section.lines[key] = key_line
            section[key] = self.read(value_node, depth + 1)
        return section

    def _scalar(self, node: yaml.Node, line: int) -> Any:  # noqa: ANN401 - any YAML scalar
        if self._times_as_text and node.tag == _TIME:
            return node.value
        if node.tag != _STRING and len(node.value) > _LONGEST_PLAIN:
            raise BundleError((Problem(self._file, line, "a long value must be in quotes"),))
        try:
            value = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError):
            # The last three are PyYAML's errors for `!!int ""`, `!!bool x`, `!!timestamp x` and `1:1:…:1.0`.
            raise BundleError((Problem(self._file, line, "not a plain value"),)) from None
        if not isinstance(value, str | int | float | bool | None):
            raise BundleError((Problem(self._file, line, "dates and binary values must be in quotes"),))
        return value


def flow_text(value: object) -> str:
    r"""Write a JSON value as one line of YAML.

    YAML reads JSON with one exception: the two halves of a character beyond U+FFFF, as JSON escapes it, become two
    characters. So printable characters are written as they are, and the rest as `\U0001f600`.
    """
    text = json.dumps(value, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in text)
