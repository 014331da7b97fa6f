"""Read single values of a test file, and collect their problems."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

from pdp.errors import Problem
from pdp.foundation.yamltext import Section, unknown

E = TypeVar("E", bound=Enum)

# Within the years that clocks and the engine know, with some hours to spare.
_MOMENT = re.compile(r"(19[789]|2\d\d)\d-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d)")
_SURROGATE = re.compile("[\ud800-\udfff]")
# The word in a test file for an unknown value.
UNKNOWN = "unknown"


def moment(text: str) -> float:
    """Return the unix seconds of a time with its zone, such as `2026-01-05T10:00:00Z`.

    Raise `ValueError`.
    """
    if not _MOMENT.fullmatch(text):
        raise ValueError(text)
    return datetime.fromisoformat(text).timestamp()


class FieldReader:
    """Reads fields of sections; a value of a wrong type becomes a problem and its default is returned."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def problem(self, problem: Problem) -> None:
        """Add a problem, unless it is already there."""
        if problem not in self.problems:
            self.problems.append(problem)

    def require(self, entry: Section, key: str) -> None:
        """Add a problem when a key is missing."""
        if key not in entry:
            self.problem(entry.problem(f"`{key}` is missing"))

    def text(self, entry: Section, key: str, default: str) -> str:
        """Return a text of at least one character; only the default may be empty."""
        value = entry.get(key, default)
        if _is_text(value) and (value or key not in entry or key == "definition_digest"):
            return str(value)
        self.problem(entry.problem(f"`{key}` must be a text", key))
        return default

    def texts(self, entry: Section, key: str) -> tuple[str, ...]:
        """Return a list of texts; () when it is missing."""
        value = entry.get(key, [])
        if isinstance(value, list) and all(map(_is_text, value)):
            return tuple(value)
        self.problem(entry.problem(f"`{key}` must be a list of texts", key))
        return ()

    def flag(self, entry: Section, key: str) -> bool:
        """Return `true` or `false`; false when it is missing."""
        value = entry.get(key, False)
        if isinstance(value, bool):
            return value
        self.problem(entry.problem(f"`{key}` must be `true` or `false`", key))
        return False

    def seconds(self, entry: Section, key: str) -> float | None:
        """Return a number of seconds above 0; None when it is missing."""
        value = entry.get(key)
        if key not in entry:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
            return float(value)
        self.problem(entry.problem(f"`{key}` must be a number of seconds above 0", key))
        return None

    def seconds_or_unknown(self, entry: Section, key: str) -> float | None:
        """Return a number of seconds, 0 when it is missing; None for the word `unknown`."""
        value = entry.get(key, 0)
        if value == UNKNOWN:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
            return float(value)
        self.problem(entry.problem(f"`{key}` must be a number of seconds or `{UNKNOWN}`", key))
        return None

    def moment(self, entry: Section, key: str, default: float) -> float:
        """Return unix seconds of a time with its zone."""
        if key not in entry:
            return default
        try:
            return moment(entry[key])
        except (TypeError, ValueError):
            self.problem(entry.problem(f"`{key}` must be a time with its zone, such as `2026-01-05T10:00:00Z`", key))
            return default

    def choice(self, entry: Section, key: str, kind: type[E], default: E) -> E:
        """Return one of the values of an enumeration."""
        value = entry.get(key, default.value)
        found = {one.value: one for one in kind}.get(value) if isinstance(value, str) else None
        if found is None:
            self.problem(entry.problem(_no_choice(key, value, [one.value for one in kind]), key))
        return found or default

    def section(self, entry: Section, key: str) -> Section:
        """Return a mapping; an empty one when it is missing."""
        value = entry.get(key)
        if isinstance(value, Section):
            return value
        if key in entry:
            self.problem(entry.problem(f"`{key}` must be a mapping", key))
        return Section(entry.file, entry.lines.get(key, entry.line))

    def arguments(self, entry: Section, key: str) -> bytes:
        """Return the arguments of a call: a mapping as JSON, a text unchanged.

        An agent writes them like this.
        """
        value = entry.get(key)
        return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else self.json(entry, key)

    def json(self, entry: Section, key: str) -> bytes:
        """Return a mapping as JSON, as a gateway sends it; empty when it is missing."""
        if key not in entry:
            return b""
        return json.dumps(self.section(entry, key), ensure_ascii=False).encode("utf-8", "surrogatepass")

    def any_json(self, entry: Section, key: str) -> str:
        """Return any value as JSON, a text as a JSON text; empty when it is missing."""
        if key not in entry:
            return ""
        try:
            return json.dumps(entry[key], allow_nan=False)
        except (TypeError, ValueError):
            self.problem(entry.problem(f"`{key}` must be a JSON value or a text", key))
            return ""


def _is_text(value: object) -> bool:
    # YAML can write half of a surrogate pair, which no gateway can send.
    return isinstance(value, str) and not _SURROGATE.search(value)


def _no_choice(key: str, value: Any, known: Iterable[str]) -> str:  # noqa: ANN401 - any YAML value
    names = tuple(known)
    said = unknown(key, value, names) if isinstance(value, str) else f"`{key}` must be a text"
    return said if "did you mean" in said else f"{said}; known: {', '.join(names)}"
