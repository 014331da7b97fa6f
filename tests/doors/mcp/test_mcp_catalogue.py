"""Which definition a tool has, as its server last listed it."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from pdp.client.definitions import definition_digest
from pdp.doors.mcp import tools
from pdp.doors.mcp.tools import MOST_REPEATING, MOST_TOOLS, Definitions
from pdp.testing.bundles import tool

ONE, OTHER = tool("read"), tool("read", {"path": {"type": "string"}})
NONE = definition_digest({"name": ""})


def listed(*pages: list[Any]) -> Definitions:
    """Return what is known after these pages of one list."""
    found = Definitions()
    for number, page in enumerate(pages):
        found.add(page, first=not number)
    return found


def test_a_tool_has_the_digest_of_its_definition() -> None:
    """A tool that is not listed, or cannot be read, has one that no tool has."""
    found = listed([ONE, {"name": 7}, {}, "read", None, {**tool("odd"), "inputSchema": {"maximum": 10**400}}])

    assert definition_digest(ONE) == found.digest("read")
    assert [NONE] * 4 == [found.digest(name) for name in ("other", "odd", "", "7")]


def test_a_later_list_counts() -> None:
    """It is what the client has seen last."""
    found = listed([ONE])
    found.add([OTHER], first=True)

    assert definition_digest(OTHER) == found.digest("read")


def test_two_definitions_of_one_name_are_none() -> None:
    """On one page or on two; a page that is asked for again is the same one."""
    assert NONE == listed([ONE, OTHER]).digest("read")
    assert NONE == listed([ONE, ONE]).digest("read")
    assert NONE == listed([ONE], [OTHER]).digest("read")
    assert NONE == listed([ONE], [OTHER], [ONE]).digest("read")
    assert definition_digest(ONE) == listed([ONE], [ONE]).digest("read")


def test_definitions_have_a_bound() -> None:
    """Calls of further tools are denied; those that are known can change."""
    found = listed([{"name": f"{number}"} for number in range(MOST_TOOLS + 1)])
    found.add([{"name": "0", "description": "another"}], first=True)

    assert NONE == found.digest(f"{MOST_TOOLS}")
    assert definition_digest({"name": "0", "description": "another"}) == found.digest("0")
    assert tools.MOST_TOOLS == len(found._digests)


def repeating(name: str) -> dict[str, Any]:
    """Return a tool with an argument that a header repeats."""
    return tool(name, {"region": {"type": "string", "x-mcp-header": "Region"}})


def test_the_headers_of_tools_have_a_bound() -> None:
    """Calls of further tools that have some are denied."""
    found = listed([repeating(f"{number}") for number in range(MOST_REPEATING + 1)])
    found.add([repeating("0"), tool("other")], first=True)

    assert {"mcp-param-region": ("region",)} == found.repeating("0")
    assert definition_digest(repeating("0")) == found.digest("0")
    assert NONE == found.digest(f"{MOST_REPEATING}")
    assert definition_digest(tool("other")) == found.digest("other")


def test_a_tool_that_repeats_nothing_any_more_has_no_headers() -> None:
    """Its latest definition counts."""
    found = listed([repeating("read")], [ONE])

    assert {} == found.repeating("read")


@pytest.mark.parametrize("many", ["name", "property", "description"])
def test_little_is_kept_of_a_large_definition(many: str) -> None:
    """Else a server could fill the memory, page by page."""
    large = "x" * 1_000_000
    found = Definitions()
    tracemalloc.start()
    for number in range(20):
        name = f"{number}{large}" if many == "name" else f"{number}"
        properties = {
            f"{large}{number}" if many == "property" else "a": {"x-mcp-header": "A", "title": f"{large}{number}"}
        }
        found.add([tool(name, properties)], first=True)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert kept < 5_000_000
