"""Mistakes that authors really made: each is found where it stands, and the rule as it was meant is not."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from pdp.limits import DEFAULT_LIMITS
from pdp.policy.loading import inspect_bundle
from pdp.testing.bundles import compile_here
from tests.policy.lint.mistakes import MISTAKES, bundle_of, policy_of, text_of


def checked(text: str) -> list[tuple[str, int]]:
    """Return codes and lines of what is found in a bundle with one rule."""
    report = inspect_bundle(bundle_of(text), DEFAULT_LIMITS, compile_here)
    return [(one.code, one.line) for one in (*report.errors, *report.warnings)]


@pytest.mark.parametrize(
    "pattern",
    ["https://ours.example*", "https://*.ours.example/*", "ours.example*", "*@ours.example*", "*ours.example", "/a*"],
)
def test_what_passes_too_is_like_the_pattern(pattern: str) -> None:
    """The text that a warning names passes indeed, and names another host, address or folder."""
    text = policy_of("permit", 'action == Action::"web/fetch"', f'when {{ context.input.url like "{pattern}" }}')
    report = inspect_bundle(bundle_of(text), DEFAULT_LIMITS, compile_here)
    (message,) = [one.message for one in report.warnings if one.code == "open-pattern"]
    example = message.rpartition(", and `")[2].removesuffix("` matches too")

    assert fnmatchcase(example, pattern)
    assert "evil" in example


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_found_and_nothing_else(name: str) -> None:
    """The mistake is told with its line, and the rule as it was meant is silent."""
    mistake = MISTAKES[name]
    found = checked(text_of(mistake, mistake.wrong))

    assert [mistake.code] == sorted({code for code, _ in found})
    assert found[0][1] in (2, 3)
    assert [] == checked(text_of(mistake, mistake.right))


def test_the_page_lists_what_is_tested(project_root: Path) -> None:
    """Each mistake of the page that `check` tells is a case here, told as the page says, and the other way round."""
    page = (project_root / "policies/MISTAKES.md").read_text(encoding="utf-8")
    table = page.partition("## What `pdp check` finds")[2].partition("## ")[0]
    rows = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    told = {mistake.strip(): row[-1] for mistake, *row in rows}

    assert {*MISTAKES, "tools that no overlay names"} == told.keys()
    assert [] == [name for name, mistake in MISTAKES.items() if f"`{mistake.code}`" not in told[name]]
