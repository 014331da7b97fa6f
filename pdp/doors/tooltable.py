"""Which tool of the catalogue a framework's name means: a table that the operator writes, and no guess."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from pdp.errors import ConfigurationError

# Names of the framework, each with `server/tool` of the catalogue. As pairs, one name can be found twice.
Tools = Mapping[str, str] | Iterable[tuple[str, str]]


def tool_table(tools: Tools) -> Mapping[str, tuple[str, str]]:
    """Return server and tool for each name. A name is never split, and case counts.

    Raise `ConfigurationError` for an empty table, for a name with two entries, and for what is not `server/tool`.
    """
    table: dict[str, tuple[str, str]] = {}
    for name, meant in tools.items() if isinstance(tools, Mapping) else tools:
        server, _, tool = meant.partition("/")
        if not (name and server and tool):
            raise ConfigurationError(f"the tool `{name}` is not mapped to `server/tool`: `{meant}`")
        if name in table:
            raise ConfigurationError(f"the tool `{name}` has two entries: each name means one tool")
        table[name] = (server, tool)
    if not table:
        raise ConfigurationError("no tool is mapped: each call would be denied")
    return MappingProxyType(table)
