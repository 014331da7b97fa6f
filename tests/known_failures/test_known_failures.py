"""The table of known failures elsewhere: every row of SAFETY has tests here, and every test is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.known_failures.table import TESTS


def rows(text: str) -> list[str]:
    """Return what went wrong, from each row of the table in SAFETY."""
    section = text.split("## Known failures elsewhere")[1].split("\n## ", maxsplit=1)[0]
    cells = [line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if line.startswith("| ")]
    return [cell.strip() for cell in cells[1:]]


def test_every_row_has_tests(test_data: Path) -> None:
    """The rows are those of SAFETY, word for word, so that a new one cannot be forgotten."""
    safety = test_data.parent / "SAFETY.md"
    if not safety.is_file():
        pytest.skip("SAFETY is absent")

    assert rows(safety.read_text(encoding="utf-8")) == list(TESTS)
    assert all(TESTS.values())


def test_every_named_test_exists(project_root: Path) -> None:
    """Pytest finds each test that the table names, the long ones too."""
    wanted = sorted({test for tests in TESTS.values() for test in tests})
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "long or not long",
    ]
    done = subprocess.run([*command, *wanted], cwd=project_root, capture_output=True, text=True, check=False)
    found = {re.sub(r"\[.*", "", line) for line in done.stdout.splitlines() if "::" in line}

    assert (0, wanted) == (done.returncode, sorted(found)), done.stdout[-2000:]
