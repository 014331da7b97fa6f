"""Digests of live tool definitions are those that an import of the same server has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mcp import types

from pdp.client import InvalidRequestError, definition_digest, definition_digests
from pdp.foundation import jsontext

TOOL = {
    "name": "read",
    "description": "Reads.",
    "inputSchema": {"type": "object", "properties": {"limit": {"type": "integer", "default": None}}},
    "annotations": {"readOnlyHint": True},
}


def test_a_definition_and_its_model_have_one_digest() -> None:
    """A value of the `mcp` package counts as what travels: by alias, nulls inside the schema kept."""
    model = types.Tool.model_validate(TOOL)

    assert definition_digest(model) == definition_digest(TOOL) == jsontext.definition_digest(TOOL)


def test_what_is_for_display_does_not_count() -> None:
    """What a gateway's framework adds on the way, such as a title and `_meta`, is no change of the tool."""
    adorned = {
        **TOOL,
        "title": "Read",
        "_meta": {"_fastmcp": {"tags": []}},
        "icons": [{"src": "https://example.com/i.png"}],
        "execution": {"taskSupport": "optional"},
    }

    assert definition_digest(types.Tool.model_validate(adorned)) == definition_digest(TOOL)


@pytest.mark.parametrize(
    "change",
    [
        {"description": "Reads!"},
        {"annotations": {"readOnlyHint": False}},
        {"inputSchema": {"type": "object"}},
        {"outputSchema": {"type": "object"}},
    ],
)
def test_every_change_of_what_a_model_acts_on_counts(change: dict[str, Any]) -> None:
    """A tool that changed in one thing has another digest."""
    assert definition_digest({**TOOL, **change}) != definition_digest(TOOL)


def test_a_listing_gives_all_of_its_tools() -> None:
    """Pages of dictionaries and of models give one mapping by server and tool."""
    write = {**TOOL, "name": "write"}
    page = types.ListToolsResult.model_validate({"tools": [write]})

    digests = definition_digests("files", {"tools": [TOOL], "nextCursor": "2"}, page)

    assert digests == {("files", "read"): definition_digest(TOOL), ("files", "write"): definition_digest(write)}


def test_two_definitions_under_one_name_are_refused() -> None:
    """Which of the two will run cannot be known."""
    with pytest.raises(InvalidRequestError, match="two different definitions of `read`"):
        definition_digests("files", {"tools": [TOOL, {**TOOL, "description": "Deletes."}]})


@pytest.mark.parametrize("page", [{}, {"result": {"tools": [TOOL]}}, {"tools": None}])
def test_an_answer_that_lists_nothing_is_refused(page: dict[str, Any]) -> None:
    """A wrong shape is not taken for a server without tools."""
    with pytest.raises(InvalidRequestError, match="holds no list of tools"):
        definition_digests("files", page)


def test_real_servers_keep_their_digests_through_the_mcp_package(test_data: Path) -> None:
    """For every tool of five real servers the model's digest is that of the raw answer."""
    raw: dict[tuple[str, str], str] = {}
    through_models: dict[tuple[str, str], str] = {}
    for file in sorted((test_data / "mcp-tools").glob("*.tools.json")):
        answer = json.loads(file.read_bytes())
        listing = answer.get("result", answer)
        raw.update(definition_digests(file.name, listing))
        through_models.update(definition_digests(file.name, types.ListToolsResult.model_validate(listing)))

    assert len(raw) == 146
    assert through_models == raw
