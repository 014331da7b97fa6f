"""Take named texts out of the files in which agents and their tools are configured.

Nothing is interpreted: every text of a file comes, with the name under which it stands.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Final

from pdp.errors import BundleError, one_line
from pdp.foundation.yamltext import load_section

_JSON: Final = frozenset({".json", ".jsonc", ".json5", ".code-workspace"})
_YAML: Final = frozenset({".yaml", ".yml"})
_URLS: Final = ("url", "serverUrl", "httpUrl", "endpoint", "baseUrl", "base_url")
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*[=:]\s*(.*)")
_QUOTED = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'([^']*)'")
_ASSIGNED = re.compile(r"(--?)?([A-Za-z][A-Za-z0-9_-]*)=(.*)", re.DOTALL)
# A text, which stays, or a comment or a comma before a bracket, which editors allow in their settings. What has no end
# goes to the end: looking for one from each further sign too would take the square of the length.
_JSON_EXTRAS = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z))|//[^\n]*|/\*(?:.*?\*/|.*)|,(?=\s*[]}])', re.DOTALL)


class UnreadableError(Exception):
    """A file is not in its format; the message holds nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedText:
    """A text of a file: where it stands, such as `mcpServers.github.env.TOKEN`, and its name there.

    `url` is where the server to which it belongs is reached, when the file says so.
    """

    place: str
    name: str
    value: str = field(repr=False)
    url: str = ""


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON in which a key may stand twice: the first value is as much a find as the last."""


def named_texts(path: PurePath, content: bytes) -> Iterator[NamedText]:
    """Yield the texts of a file, by the format that its name says. Raise `UnreadableError`."""
    suffix = path.suffix.lower()
    try:
        if path.name == "environ":
            yield from _of_environment(content.decode("utf-8", "replace"))
            return
        text = content.decode("utf-8-sig")
        if suffix in _JSON or (suffix not in _YAML and text.lstrip().startswith("{")):
            yield from _texts(json.loads(_JSON_EXTRAS.sub(_kept, text), object_pairs_hook=_Pairs))
        elif suffix == ".toml":
            yield from _texts(tomllib.loads(text))
        elif suffix in _YAML:
            yield from _texts(load_section(path.name, content))
        else:
            yield from _of_lines(text.splitlines())
    except UnicodeDecodeError:
        raise UnreadableError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise UnreadableError(f"not JSON (line {error.lineno})") from None
    except tomllib.TOMLDecodeError:
        raise UnreadableError("not TOML") from None
    except BundleError as error:
        lines = ", ".join(str(problem.line) for problem in error.problems)
        raise UnreadableError(f"not plain YAML (line {one_line(lines)})") from None
    except RecursionError:
        raise UnreadableError("too deep") from None


def _of_environment(text: str) -> Iterator[NamedText]:
    """Yield the variables of a process, which are as they are: neither quotes nor lines mean anything."""
    for variable in text.split("\0"):
        name, _, value = variable.partition("=")
        if value:
            yield NamedText(place=name, name=name, value=value)


def _of_lines(lines: list[str]) -> Iterator[NamedText]:
    for line in lines:
        if match := _LINE.fullmatch(line):
            name, rest = match.groups()
            quoted = _QUOTED.match(rest)
            value = (quoted[1] or quoted[2] or "") if quoted else rest.partition(" #")[0].strip()
            yield NamedText(place=name, name=name, value=value)


def _texts(value: Any, place: tuple[str, ...] = (), name: str = "", url: str = "") -> Iterator[NamedText]:  # noqa: ANN401 - any JSON value
    if isinstance(value, _Pairs | dict):
        pairs = list(value.items()) if isinstance(value, dict) else value
        url = next((one for key, one in pairs if key in _URLS and isinstance(one, str)), url)
        for key, one in pairs:
            yield from _texts(one, (*place, str(key)), str(key), url)
    elif isinstance(value, list):
        yield from _listed(value, place, name, url)
    elif isinstance(value, str):
        yield NamedText(place=".".join(place), name=name, value=value, url=url)


def _listed(values: list[Any], place: tuple[str, ...], name: str, url: str) -> Iterator[NamedText]:
    """Yield the texts of a list, in which `--name value`, `--name=value` and `NAME=value` have names."""
    before = ""
    for number, one in enumerate(values):
        here = (*place, str(number))
        if isinstance(one, str) and (match := _ASSIGNED.fullmatch(one)):
            yield NamedText(place=".".join(here), name=match[2], value=match[3], url=url)
        else:
            yield from _texts(one, here, before.lstrip("-") if before.startswith("-") else name, url)
        before = one if isinstance(one, str) else ""


def _kept(match: re.Match[str]) -> str:
    # The lines stay, for messages.
    return match[1] or "\n" * match[0].count("\n")
