"""Which definition a tool has, as its server last listed it."""

from __future__ import annotations

from typing import Any

from pdp.client.definitions import definition_digest
from pdp.doors.mcp import tools
from pdp.doors.mcp.tools import MOST_TOOLS, Definitions
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
