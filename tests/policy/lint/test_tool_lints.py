"""What `check` says about the catalogue itself."""

from __future__ import annotations

from typing import Any

import pytest

from pdp.limits import DEFAULT_LIMITS
from pdp.policy.loading import inspect_bundle
from pdp.testing.bundles import bundle_files, compile_here, tool

TEXT = {"type": "string"}


def warnings(*tools: dict[str, Any], overlay: str = "risk: read_only\n") -> list[tuple[str, str]]:
    """Return code and message of each warning about a server of these tools."""
    files = bundle_files(policies={}, tools={"s": tools}, overlays={"s": overlay}, directory="{}\n")
    report = inspect_bundle(files, DEFAULT_LIMITS, compile_here)
    assert report.errors == ()
    return [(one.code, one.message) for one in report.warnings if one.file.startswith("tools/")]


CASES = [
    (
        [tool("a", {"x": {"$ref": "https://example.com/x"}})],
        "unusable-tool",
        (
            "every call of `s/a` is denied: its `inputSchema` cannot be used: "
            "a `$ref` leads elsewhere: only `#` and `#/…` are followed"
        ),
    ),
    (
        [tool("a", {"__entity": TEXT})],
        "unusable-tool",
        "every call of `s/a` is denied: its `inputSchema` names `__entity`, which Cedar reserves",
    ),
    (
        [tool("a", {"x": {"type": "string", "pattern": "^(?=y)"}})],
        "unchecked-pattern",
        "arguments of `s/a` are not checked against `^(?=y)`",
    ),
    (
        [{"name": "a", "inputSchema": {"type": "object", "additionalProperties": TEXT}}],
        "further-parameters",
        "the schema of `s/a` takes undeclared parameters; a call with one is denied",
    ),
    ([tool("list_all"), tool("Iist_all")], "twin-names", "two tools look alike: `'list_all'` and `'Iist_all'`"),
    (
        [tool("a", {"caf\u00e9": TEXT, "cafe\u0301": TEXT})],
        "twin-names",
        r"two parameters of `s/a` look alike: `'caf\xe9'` and `'cafe\u0301'`",
    ),
]


@pytest.mark.parametrize(("tools", "code", "message"), CASES)
def test_what_is_wrong_with_a_tool_is_said(tools: list[dict[str, Any]], code: str, message: str) -> None:
    """Each is a warning that names the tool; the bundle loads."""
    assert [(code, message)] == warnings(*tools)


def test_good_tools_raise_no_alarm() -> None:
    """Tools with schemas and patterns of any usual kind are nothing to speak of."""
    assert [] == warnings(tool("get_a", {"x": {"type": "string", "pattern": "^[a-z]{1,20}$"}}), tool("get_b"))


@pytest.mark.parametrize("word", ["true", "false"])
def test_who_decides_about_further_parameters_is_asked_no_more(word: str) -> None:
    """With `open` in the overlay there is nothing to warn of."""
    anything = {"name": "a", "inputSchema": {"type": "object", "patternProperties": {"^x": TEXT}}}

    assert [] == warnings(anything, overlay=f"risk: read_only\ntools: {{a: {{open: {word}}}}}\n")
