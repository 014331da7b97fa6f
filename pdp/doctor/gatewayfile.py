"""Read the configuration of a gateway: YAML or JSON, with names of fields in either of their forms."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from pdp.errors import ConfigurationError, reason_of

Node: TypeAlias = Mapping[str, Any]

_MOST_BYTES: Final = 16 * 1024 * 1024
_MOST_VALUES: Final = 1_000_000
_CAMEL = re.compile(r"[a-z0-9]+(?:[A-Z][a-z0-9]*)+")


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, which takes no key twice: a gateway could take the other value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's method
        """Read a mapping, with names such as `failureModeAllow` as `failure_mode_allow`."""
        found = {_snake(name): value for name, value in super().construct_mapping(node, deep=deep).items()}
        if len(found) < len(node.value):
            raise yaml.constructor.ConstructorError(problem="a key appears twice", problem_mark=node.start_mark)
        return found


def read_configuration(path: Path) -> Node:
    """Return a configuration. Raise `ConfigurationError`."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read `{path}`: {reason_of(error)}") from None
    if len(content) > _MOST_BYTES:
        raise ConfigurationError(f"`{path}` has more than {_MOST_BYTES} bytes")
    try:
        document = yaml.load(content, Loader=_Loader)  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigurationError(f"`{path}`{line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError, LookupError, TypeError):
        raise ConfigurationError(f"`{path}` is not YAML") from None
    if not isinstance(document, dict):
        raise ConfigurationError(f"`{path}` is not a mapping")
    if not _ends(document):
        raise ConfigurationError(f"`{path}` holds more than {_MOST_VALUES} values, or an alias of what it is in")
    return document


def _ends(document: Node) -> bool:
    """Say whether a document has an end that can be reached: a few lines of aliases can stand for a billion values."""
    pending: list[Any] = [document]
    for _ in range(_MOST_VALUES):
        if not pending:
            return True
        one = pending.pop()
        pending += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return not pending


def of_type(value: Any, name: str) -> Iterator[Node]:  # noqa: ANN401 - any YAML value
    """Yield every part whose `@type` has this name, wherever it is."""
    if isinstance(value, dict):
        if str(value.get("@type", "")).endswith(f".{name}"):
            yield value
        for one in value.values():
            yield from of_type(one, name)
    elif isinstance(value, list):
        for one in value:
            yield from of_type(one, name)


def part(value: Any, *names: str) -> Node:  # noqa: ANN401 - any YAML value
    """Return the mapping that these names lead to; empty for none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def parts(value: Any, name: str) -> list[Node]:  # noqa: ANN401 - any YAML value
    """Return the mappings in a list of this name."""
    found = value.get(name) if isinstance(value, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _snake(name: Any) -> Any:  # noqa: ANN401 - a key of YAML
    if isinstance(name, str) and _CAMEL.fullmatch(name):
        return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)
    return name
