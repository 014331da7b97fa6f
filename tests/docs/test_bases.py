"""The lists of bases, in the page of the API and in the schema of test files."""

from __future__ import annotations

from tests.docs.bases import PAGE, SCHEMA, page_with_bases, schema_with_bases


def test_the_page_of_the_api_is_current() -> None:
    """It lists the advice of each deny; `make proto` writes it again."""
    page = PAGE.read_text(encoding="utf-8")

    assert page_with_bases(page) == page


def test_the_schema_of_test_files_is_current() -> None:
    """It lists each basis that a test can expect; `make proto` writes it again."""
    schema = SCHEMA.read_text(encoding="utf-8")

    assert schema_with_bases(schema) == schema
