"""The table of what happens when something breaks, in the page of operators."""

from __future__ import annotations

from pathlib import Path

from tests.docs.when_things_break import PAGE, written
from tests.machinery.faults.breakdowns import ROWS
from tests.machinery.namedtests import exists, names_in

_ROOT = Path(__file__).parents[2]


def test_the_table_is_current() -> None:
    """Whoever changes what happens has `python -m tests.docs.when_things_break` write the page again."""
    page = PAGE.read_text(encoding="utf-8")

    assert written(page) == page


def test_every_row_names_tests_that_there_are() -> None:
    """A row without a test, or with one that is gone, is a promise that nobody keeps."""
    missing = [
        f"{what}: {test}" for what, row in ROWS.items() for test in row.tests or ("no test",) if not exists(test)
    ]

    assert missing == []


def test_every_test_of_a_fault_stands_in_a_row() -> None:
    """What is tested of a server that breaks is told to those who run it."""
    named = {test for row in ROWS.values() for test in row.tests}
    written_tests = {
        f"tests/faults/{file.name}::{name}"
        for file in (_ROOT / "tests" / "faults").glob("test_*_faults.py")
        for name in names_in(file)
    }

    assert written_tests - named == set()
