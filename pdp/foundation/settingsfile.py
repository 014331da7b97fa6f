"""Read the files of whoever runs a program: strictly, and with all mistakes and their lines together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self, TypeVar

from pdp.errors import BundleError, ConfigurationError, Problem
from pdp.foundation.ownership import read_own
from pdp.foundation.yamltext import Section, load_section

_MOST_BYTES: Final = 1024 * 1024
_KINDS: Final[Mapping[type, str]] = {str: "a text", bool: "`true` or `false`", int: "a whole number", list: "a list"}

T = TypeVar("T")
D = TypeVar("D")


def content_of(path: Path, danger: str) -> bytes:
    """Return what is in a file that others cannot change. Raise `ConfigurationError`.

    `danger` is what could happen otherwise.
    """
    content = read_own(path, danger, most=_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ConfigurationError(f"`{path}` has more than {_MOST_BYTES} bytes")
    return content


class Reader:
    """Reads one file, and collects all problems; what it returns counts only when there are none.

    Files that it names are in `folder`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.problems: list[Problem] = []

    def whole(self, file: str, content: bytes, read: Callable[[Self, Section], D]) -> D:
        """Return what `read` makes of the whole text. Raise `ConfigurationError` with every problem and its line."""
        try:
            found = read(self, load_section(file, content))
        except BundleError as error:
            raise ConfigurationError("\n".join(map(str, error.problems))) from None
        if self.problems:
            raise ConfigurationError("\n".join(map(str, self.problems)))
        return found

    def file(self, name: str) -> Path | None:
        """Return the path of a file that is named; None for an empty name."""
        return self._folder / name if name else None

    def named(self, row: Section, key: str, default: str = "") -> Path:
        """Return the path of a file that must be named."""
        name = self.take(row, key, str, default)
        self.require(row, key, "must name a file", good=name)
        return self._folder / name

    def section(self, row: Section, key: str) -> Section:
        """Return the mapping at a key; an empty one where it is absent."""
        found = row.get(key, Section(row.file, row.line))
        self.require(row, key, "must be a mapping", good=isinstance(found, Section))
        return found if isinstance(found, Section) else Section(row.file, row.line)

    def named_texts(self, row: Section, key: str) -> Mapping[str, str]:
        """Return the mapping of texts at a key."""
        found = self.section(row, key)
        self.require(row, key, "must hold texts", good=all(isinstance(one, str) for one in found.values()))
        return {name: str(value) for name, value in found.items()}

    def texts(self, row: Section, key: str) -> tuple[str, ...]:
        """Return the list of texts at a key."""
        found = self.take(row, key, list, [])
        self.require(row, key, "must list texts", good=all(isinstance(one, str) for one in found))
        return tuple(map(str, found))

    def number(self, row: Section, key: str, default: int, most: int) -> int:
        """Return the whole number at a key."""
        found = self.take(row, key, int, default)
        self.require(row, key, f"must be from 1 to {most}", good=0 < found <= most)
        return found

    def take(self, row: Section, key: str, kind: type[T], default: T) -> T:
        """Return the value at a key, of a kind."""
        found = row.get(key, default)
        # `type`, since `True` is an integer too.
        if type(found) is kind:
            return found
        self.problems.append(row.problem(f"`{key}` must be {_KINDS[kind]}", key))
        return default

    def require(self, row: Section, key: str, problem: str, *, good: object) -> None:
        """Note a problem with a key unless it is good."""
        if not good:
            self.problems.append(row.problem(f"`{key}` {problem}", key))
