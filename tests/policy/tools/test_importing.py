"""What is proposed for a tool server that nobody has judged yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pdp.foundation.jsontext import definition_digest, parse
from pdp.foundation.yamltext import load_section
from pdp.policy.tools.catalogue import load_catalogue, tool_definitions
from pdp.policy.tools.importing import catalogue_file, propose_overlay, propose_risk
from pdp.policy.tools.overlay import TOOL_KEYS


@pytest.mark.parametrize(
    ("name", "annotations", "risk", "source"),
    [
        ("anything", {"readOnlyHint": True}, "read_only", "its annotations"),
        ("anything", {"readOnlyHint": False, "destructiveHint": False}, "mutating", "its annotations"),
        ("get_thing", {"destructiveHint": True}, "destructive", "its annotations"),
        ("get_thing", {"readOnlyHint": "true"}, "read_only", "`get` in its name"),
        ("getThing", None, "read_only", "`get` in its name"),
        ("issue-read", None, "read_only", "`read` in its name"),
        ("merge_pull_request", {"readOnlyHint": False}, "destructive", "`merge` in its name"),
        ("get_and_delete", None, "destructive", "`delete` in its name"),
        ("HTTPDelete", None, "destructive", "`delete` in its name"),
        ("mark_as_read", None, "mutating", "`mark` in its name"),
        ("frobnicate", None, "mutating", "neither its annotations nor its name say: look closely"),
        ("日本", "none", "mutating", "neither its annotations nor its name say: look closely"),
        (
            "get_thing",
            {"readOnlyHint": False},
            "mutating",
            "its annotations say not read-only, although its name holds `get`",
        ),
        (
            "send_report",
            {"readOnlyHint": True},
            "mutating",
            "`send` in its name, while its annotations say read-only: look closely",
        ),
        (
            "delete_all",
            {"readOnlyHint": True},
            "destructive",
            "`delete` in its name, while its annotations say read-only: look closely",
        ),
    ],
)
def test_proposed_risk(name: str, annotations: object, risk: str, source: str) -> None:
    """Annotations come first, then the verb; a destructive verb is never read-only; in doubt a tool changes things."""
    assert propose_risk({"name": name, "annotations": annotations}) == (risk, source)


@pytest.mark.parametrize(
    ("properties", "parameter"),
    [
        ({"url": {"type": "string"}}, "url"),
        ({"pageUrl": {"type": "string"}}, "pageUrl"),
        ({"page": {"type": "string", "format": "uri"}}, "page"),
        ({"page": {"type": "string"}, "curl": {"type": "string"}}, ""),
    ],
)
def test_what_goes_to_an_address_that_the_agent_names_is_no_reading(
    properties: dict[str, object], parameter: str
) -> None:
    """Whatever its name and annotations say, it can carry data there."""
    tool = {"name": "get_page", "annotations": {"readOnlyHint": True}, "inputSchema": {"properties": properties}}
    expected = ("mutating", f"it goes to the address in `{parameter}`: look closely")

    assert propose_risk(tool) == (expected if parameter else ("read_only", "its annotations"))


# U+FFFE and U+E000 are no characters that print; the last one stands beyond U+FFFF and does not print either.
ODD_CHARACTERS = ["emoji\U0001f600", "\U00020000", "\\ud83d\\ude00", "a\ufffe", "\ue000", "\U000f0000"]
AWKWARD = [
    *ODD_CHARACTERS,
    "on",
    "no",
    "null",
    "a: b",
    "a#b",
    "- x",
    '"q"',
    "it's",
    "x y",
    "a/b.c-d",
    "ünï",
    "1e3",
    "{a}",
    "~",
    "*a",
]


def test_awkward_names() -> None:
    """Whatever a tool is called, the proposed overlay loads beside its catalogue and names every tool."""
    tools: list[dict[str, Any]] = [{"name": name, "inputSchema": {"type": "object"}} for name in AWKWARD]

    overlay = propose_overlay("odd", tools)
    loaded = load_catalogue({"tools/odd.json": catalogue_file(tools), "tools/odd.yaml": overlay.encode()})

    assert sorted(loaded.tools) == sorted(f"odd/{name}" for name in AWKWARD)
    assert {tool.risk for tool in loaded.tools.values()} == {"mutating"}  # the annotations' default is destructive


@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028", "\u2029"])
def test_no_name_ends_a_comment(end: str) -> None:
    """A server that names a parameter like lines of an overlay proposes nothing by it."""
    properties = {f"url{end}risk: read_only{end}#": {"format": "uri"}, f"x{end}risk: read_only{end}#": {}}

    overlay = propose_overlay("s", [{"name": "fetch", "inputSchema": {"properties": properties}}])

    assert {"tools": {"fetch": {"risk": "mutating"}}} == load_section("s.yaml", overlay.encode())
    assert end not in overlay.replace("\n", "") if end != "\n" else "\nrisk" not in overlay


def test_no_tools() -> None:
    """A server without tools gets files that load."""
    files = {"tools/empty.json": catalogue_file([]), "tools/empty.yaml": propose_overlay("empty", []).encode()}

    assert load_catalogue(files).tools == {}


def test_every_proposal_says_where_it_comes_from() -> None:
    """Each line of a tool ends in a comment."""
    lines = propose_overlay("s", [{"name": "get_it"}, {"name": "a # b"}]).splitlines()

    assert lines[-2:] == [
        '  "a # b": {risk: mutating}  # neither its annotations nor its name say: look closely',
        "  get_it: {risk: read_only}  # `get` in its name",
    ]


@pytest.mark.parametrize("key", TOOL_KEYS)
def test_the_header_shows_all_that_can_be_said_of_a_tool(key: str) -> None:
    """An author needs no manual to find a key, and the header is only comments."""
    header = propose_overlay("files", []).removesuffix("tools: {}\n").splitlines()

    assert [] == [line for line in header if not line.startswith("#") or len(line) > 120]
    assert any(line.startswith(f"#   {key}: ") for line in header)


def test_real_servers(test_data: Path) -> None:
    """The proposal for each real server loads, and the written catalogue keeps every definition's digest."""
    for file in sorted((test_data / "mcp-tools").glob("*.json")):
        server = file.name.removesuffix(".tools.json")
        tools = tool_definitions(file.read_bytes())

        loaded = load_catalogue(
            {
                f"tools/{server}.json": catalogue_file(tools),
                f"tools/{server}.yaml": propose_overlay(server, tools).encode(),
            }
        )

        assert {f"{server}/{tool['name']}": definition_digest(tool) for tool in tools} == {
            action: tool.definition_digest for action, tool in loaded.tools.items()
        }
        assert all(
            tool.risk != "read_only" for action, tool in loaded.tools.items() if "delete" in action or "write" in action
        )


def test_catalogue_file_is_stable() -> None:
    """Order and display fields do not change the file; numbers keep what the digest sees of them."""
    text = '{"name": "b", "icons": [1], "inputSchema": {"x": 0.50, "y": 1e2, "z": 9223372036854775807}}'
    first, second = parse(text.encode()), {"name": "a", "_meta": {"now": 1}}

    written = catalogue_file([first, second])

    assert written == catalogue_file([second, {"icons": [], **json.loads(text)}])
    assert written.endswith(b"}\n")
    assert [definition_digest(tool) for tool in tool_definitions(written)] == [
        definition_digest(second),
        definition_digest(first),
    ]
