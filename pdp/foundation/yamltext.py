"""Read YAML strictly, and remember the line of each key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import yaml

from pdp.errors import BundleError, Problem, one_line
from pdp.foundation.nearest import hint

_DEPTH = 16
# Base-60 numbers and similar ones take the square of their length to read.
_LONGEST_PLAIN = 64
_TAGS = "tag:yaml.org,2002:"
# Where libyaml looks for directives, which take the square of their number.
_DIRECTIVE = re.compile("(?:\\A\ufeff?|[\n\r\x85\u2028\u2029])%")
_STRING, _TIME = _TAGS + "str", _TAGS + "timestamp"


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
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError((Problem(file, content.count(b"\n", 0, error.start) + 1, "not UTF-8"),)) from None
    if found := _DIRECTIVE.search(text):
        line = 1 + text.count("\n", 0, found.end())
        raise BundleError((Problem(file, line, "a line must not begin with `%`: directives are not allowed"),))
    # Events only, by libyaml: no objects are created, and 10,000 users take half a second instead of five.
    events = yaml.CSafeLoader(text)
    try:
        return _Reader(file, events, times_as_text=times_as_text).section()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        # A bracket or quotation mark that is not closed is noticed far below it.
        began = error.context_mark.line + 1 if error.context_mark else line
        since = f", {error.context} that begins in line {began}" if began < line else ""
        raise BundleError((Problem(file, line, f"not YAML: {error.problem}{since}"),)) from None
    except yaml.reader.ReaderError as error:
        line = 1 + content.count(b"\n", 0, error.position)
        raise BundleError((Problem(file, line, f"not YAML: {error.reason}"),)) from None
    finally:
        events.dispose()


class _Reader:
    def __init__(self, file: str, events: yaml.CSafeLoader, *, times_as_text: bool) -> None:
        self._file = file
        self._events = events
        self._times_as_text = times_as_text
        self._scalars: Any = yaml.SafeLoader("")

    def section(self) -> Section:
        """Read the only document, a mapping or nothing."""
        events = self._events
        events.get_event()
        if events.check_event(yaml.StreamEndEvent):
            return Section(self._file, 1)
        events.get_event()
        section = self._value(events.get_event(), 0)
        events.get_event()
        if not isinstance(section, Section):
            raise self._problem(1, "must be a mapping")
        if not events.check_event(yaml.StreamEndEvent):
            raise self._problem(_line(events.get_event()), "not YAML: expected a single document")
        return section

    def _value(self, event: Any, depth: int) -> Any:  # noqa: ANN401 - any event, any YAML value
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            raise self._problem(line, "aliases are not allowed")
        if event.tag not in (None, "!") and not event.tag.startswith(_TAGS):
            raise self._problem(line, "tags are not allowed")
        if depth > _DEPTH:
            raise self._problem(line, f"deeper than {_DEPTH} levels")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(line, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(depth)
        return self._scalar(event, line)

    def _list(self, depth: int) -> list[Any]:
        values = []
        while not isinstance(event := self._events.get_event(), yaml.SequenceEndEvent):
            values.append(self._value(event, depth + 1))
        return values

    def _mapping(self, line: int, depth: int) -> Section:
        section = Section(self._file, line)
        while not isinstance(event := self._events.get_event(), yaml.MappingEndEvent):
            key_line = _line(event)
            key = self._scalar(event, key_line) if isinstance(event, yaml.ScalarEvent) else None
            if not isinstance(key, str):
                raise self._problem(key_line, "a key must be a string; put it in quotes")
            if key in section:
                raise self._problem(key_line, f"key `{key}` appears twice")
            section.lines[key] = key_line
            section[key] = self._value(self._events.get_event(), depth + 1)
        return section

    def _scalar(self, event: Any, line: int) -> Any:  # noqa: ANN401 - any event of a scalar, any YAML scalar
        tag, text = event.tag, event.value
        if tag in (None, "!"):
            tag = self._scalars.resolve(yaml.ScalarNode, text, event.implicit)
        if tag == _STRING or (self._times_as_text and tag == _TIME):
            return text
        if len(text) > _LONGEST_PLAIN:
            raise self._problem(line, "a long value must be in quotes")
        try:
            value = self._scalars.construct_object(yaml.ScalarNode(tag, text))
            self._scalars.constructed_objects.clear()
        except (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError):
            # The last three are PyYAML's errors for `!!int ""`, `!!bool x`, `!!timestamp x` and `1:1:…:1.0`.
            raise self._problem(line, "not a plain value") from None
        if not isinstance(value, str | int | float | bool | None):
            raise self._problem(line, "dates and binary values must be in quotes")
        return value

    def _problem(self, line: int, message: str) -> BundleError:
        return BundleError((Problem(self._file, line, message),))


def _line(event: Any) -> int:  # noqa: ANN401 - any event
    return int(event.start_mark.line) + 1


def flow_text(value: object) -> str:
    r"""Write a JSON value as one line of YAML.

    YAML reads JSON with one exception: it refuses the two halves of a character beyond U+FFFF, as JSON escapes it. So
    printable characters are written as they are, and the rest as `\U0001f600`.
    """
    text = json.dumps(value, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in text)
