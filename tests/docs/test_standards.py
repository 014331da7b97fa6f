"""The page of standards: each list is whole, and each test that it and its neighbours name is there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.machinery.namedtests import exists, named_in

_ROOT: Final = Path(__file__).parents[2]
_PAGE: Final = _ROOT / "pdp" / "STANDARDS.md"

LISTS: Final[Mapping[str, tuple[str, ...]]] = {
    "OWASP Non-Human Identities Top 10": (
        "NHI1 Improper Offboarding",
        "NHI2 Secret Leakage",
        "NHI3 Vulnerable Third-Party NHI",
        "NHI4 Insecure Authentication",
        "NHI5 Overprivileged NHI",
        "NHI6 Insecure Cloud Deployment Configurations",
        "NHI7 Long-Lived Secrets",
        "NHI8 Environment Isolation",
        "NHI9 NHI Reuse",
        "NHI10 Human Use of NHI",
    ),
    "OWASP Top 10 for Agentic Applications": (
        "ASI01 Agent Goal Hijack",
        "ASI02 Tool Misuse and Exploitation",
        "ASI03 Identity and Privilege Abuse",
        "ASI04 Agentic Supply Chain Vulnerabilities",
        "ASI05 Unexpected Code Execution (RCE)",
        "ASI06 Memory & Context Poisoning",
        "ASI07 Insecure Inter-Agent Communication",
        "ASI08 Cascading Failures",
        "ASI09 Human-Agent Trust Exploitation",
        "ASI10 Rogue Agents",
    ),
    "NIST SP 800-207, the tenets of zero trust": (
        "1. All data sources and computing services are considered resources",
        "2. All communication is secured regardless of network location",
        "3. Access to individual enterprise resources is granted on a per-session basis",
        "4. Access to resources is determined by dynamic policy",
        "5. The enterprise monitors and measures the integrity and security posture of all owned and associated assets",
        "6. All resource authentication and authorization are dynamic and strictly enforced before access is allowed",
        (
            "7. The enterprise collects as much information as possible about the current state of assets, network"
            " infrastructure and communications and uses it to improve its security posture"
        ),
    ),
}


class Row(NamedTuple):
    """An entry of a list, whether it is covered, what answers it, and the cell of its tests."""

    entry: str
    covered: str
    here: str
    tests: str


def rows(heading: str) -> list[Row]:
    """Return the rows of the list under a heading of the page."""
    section = _PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [Row(*cells) for line in section.splitlines() if (cells := re.findall(r"(?<=\| )(.*?)(?= \|)", line))][1:]


@pytest.mark.parametrize("heading", LISTS)
def test_a_list_is_whole(heading: str) -> None:
    """Each entry has a row, by its name and in its place; one that is left out would look like one that is covered."""
    assert LISTS[heading] == tuple(row.entry for row in rows(heading))


@pytest.mark.parametrize("heading", LISTS)
def test_a_row_names_its_tests_or_what_is_missing(heading: str) -> None:
    """What is covered has a test, and what is not, wholly or in part, says so."""
    unproven = [row.entry for row in rows(heading) if row.covered != "no" and not named_in(row.tests)]
    silent = [row.entry for row in rows(heading) if (row.covered == "yes") == ("Not covered: " in row.here)]

    assert ([], []) == (unproven, silent)
    assert {row.covered for row in rows(heading)} <= {"yes", "in part", "no"}


def test_each_attack_names_its_test() -> None:
    """What must happen is a claim, and a test proves it."""
    page = (_ROOT / "SECURITY.md").read_text(encoding="utf-8")
    section = page.partition("\n## Attacks on call tokens and secrets\n")[2].partition("\n## ")[0]
    attacks = [line for line in section.splitlines() if line.startswith("| ")][1:]

    assert len(attacks) > 20
    assert [] == [line for line in attacks if not named_in(line)]


@pytest.mark.parametrize("page", ["SECURITY.md", "pdp/RETENTION.md", "pdp/STANDARDS.md"])
def test_every_named_test_is_there(page: str) -> None:
    """A row whose test is gone is a promise that nobody keeps."""
    named = named_in((_ROOT / page).read_text(encoding="utf-8"))

    assert named
    assert [] == [test for test in named if not exists(test)]
