"""The layout of policies: one for all, and never another meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cedarpy
import pytest

from pdp.errors import BundleError, UnsafePolicyError
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.policy.child.formatting import format_text
from pdp.policy.safety import scan
from tests.machinery.foreign import FOLDERS

PLAIN = "permit (principal, action, resource);\n"

LAYOUTS: list[tuple[str, str, str]] = [
    ("nothing", "", ""),
    ("blanks alone", " \n\n", ""),
    ("a comment alone", "\n// c  ", "// c\n"),
    ("no end of the last line", "permit(principal,action,resource);", PLAIN),
    ("two on a line", f"{PLAIN.strip()}{PLAIN.strip()}", f"{PLAIN}\n{PLAIN}"),
    ("empty lines between", f"\n\n{PLAIN}\n\n\n{PLAIN}\n\n", f"{PLAIN}\n{PLAIN}"),
    ("a title, and a comment of a policy", f"// t\n\n\n// c\n{PLAIN}", f"// t\n\n// c\n{PLAIN}"),
    ("a comment behind a policy", f"{PLAIN.strip()}// c\n{PLAIN}", f"{PLAIN.strip()} // c\n\n{PLAIN}"),
    ("comments at the end", f"{PLAIN}\n  // c\n\n\n  // d", f"{PLAIN}\n// c\n\n// d\n"),
    ("line ends of Windows", f"// c\r\n{PLAIN.strip()}\r\n", f"// c\n{PLAIN}"),
    (
        "a scope and a condition",
        '@id("a/b") permit(principal == User::"u",action,resource)when{context.n<1&&true};',
        '@id("a/b")\npermit (\n  principal == User::"u",\n  action,\n  resource\n)\nwhen { context.n < 1 && true };\n',
    ),
    (
        "a comment in a policy",
        "permit(principal,action,resource)\nwhen{ // why\ntrue };",
        "permit (principal, action, resource)\nwhen\n{ // why\n  true\n};\n",
    ),
]


@pytest.mark.parametrize(("before", "after"), [row[1:] for row in LAYOUTS], ids=[row[0] for row in LAYOUTS])
def test_layout(before: str, after: str) -> None:
    """A text is laid out as stated, and what is laid out stays."""
    assert after == format_text("a.cedar", before, DEFAULT_LIMITS)
    assert after == format_text("a.cedar", after, DEFAULT_LIMITS)


def test_policies_of_others_say_what_they_said(test_data: Path) -> None:
    """In files that others wrote trees and comments stay, and a second run changes nothing."""
    compared = changed = 0
    for path in foreign_files(test_data):
        before = path.read_text(encoding="utf-8")

        after = format_text(path.name, before, DEFAULT_LIMITS)

        assert trees(before) == trees(after), path
        assert [one.strip() for one in comments(before)] == [one.strip() for one in comments(after)], path
        assert after == format_text(path.name, after, DEFAULT_LIMITS), path
        compared += 1
        changed += before != after

    assert compared > 50
    assert changed > 20


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("// c\npermit (principal, action, resource", 2, "`(` is never closed"),
        (f"{PLAIN}permit (principal, action, resource) when {{ tru }};", 2, "cannot be parsed; `pdp check` says why"),
        (f"{PLAIN}\nhello", 3, "cannot be parsed; `pdp check` says why"),
        ('permit (principal, action, resource) when { context.a == "x\r\ny" };', 0, "would change the meaning"),
    ],
)
def test_refused(text: str, line: int, words: str) -> None:
    """What cannot be read, or would say something else afterwards, is named by its line."""
    with pytest.raises(BundleError) as refusal:
        format_text("a.cedar", text, DEFAULT_LIMITS)

    (problem,) = refusal.value.problems
    assert ("a.cedar", line) == (problem.file, problem.line)
    assert words in problem.message


@pytest.mark.parametrize("spoilt", [PLAIN.replace("permit", "forbid"), PLAIN, "// c\n"])
def test_a_formatter_that_changes_something_is_noticed(spoilt: str) -> None:
    """When the formatter turns a policy around, drops a comment or a policy, the text is refused."""
    text = "permit (principal, // c\naction, resource);"

    with patch("cedarpy.format_policies", lambda *_: spoilt), pytest.raises(BundleError, match="change the meaning"):
        format_text("a.cedar", text, DEFAULT_LIMITS)


def test_limits_hold() -> None:
    """What could crash the formatter does not reach it."""
    deep = f"permit (principal, action, resource) when {{ {'(' * 40}true{')' * 40} }};"

    with pytest.raises(BundleError, match="limit `policy_depth`"):
        format_text("a.cedar", deep, Limits())


def foreign_files(test_data: Path) -> list[Path]:
    """Return the files that the limits and the engine take."""
    found = []
    for path in (path for folder in FOLDERS for path in sorted((test_data / folder).rglob("*.cedar"))):
        text = path.read_text(encoding="utf-8")
        try:
            scan(text, DEFAULT_LIMITS)
            trees(text)
        except (UnsafePolicyError, ValueError):
            continue
        found.append(path)
    return found


def trees(text: str) -> dict[str, Any]:
    """Return the engine's trees of the policies in a text."""
    found: dict[str, Any] = json.loads(cedarpy.policies_to_json_str(text))
    return found


def comments(text: str) -> list[str]:
    """Return the comments of a text whose strings hold no two slashes."""
    return [line[line.index("//") :] for line in text.splitlines() if "//" in line]
