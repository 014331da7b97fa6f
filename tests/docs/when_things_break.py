"""Write what happens when something breaks into the page of operators: `python -m tests.docs.when_things_break`.

What is seen stands in the table that the tests hold the server to.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.machinery.faults.breakdowns import ROWS, Row

PAGE = Path(__file__).parents[2] / "pdp" / "deployment" / "README.md"
BEGIN, END = "<!-- when things break: begin -->", "<!-- when things break: end -->"

_HEADER = (
    "what breaks",
    "a call is answered",
    "sessions change",
    "server",
    "`pdp.record`",
    "`pdp.store`",
    "afterwards",
)
_HEALTH = {"SERVING": "serves", "NOT_SERVING": "does not serve", "DEADLINE_EXCEEDED": "does not answer"}


def generated() -> str:
    """Return the table, and below it the tests of each row."""
    return "\n".join((BEGIN, "", *_table(), "", "The tests of these rows:", "", *_tests(), "", END))


def written(page: str) -> str:
    """Return the text of the page with the present table."""
    before, _, rest = page.partition(BEGIN)
    return before + generated() + rest.partition(END)[2]


def _table() -> Iterator[str]:
    yield _line(_HEADER)
    yield "|" + "---|" * len(_HEADER)
    for what, row in ROWS.items():
        yield _line((what, row.seen.calls, row.seen.changes, *_health(row), row.afterwards))


def _health(row: Row) -> tuple[str, ...]:
    return tuple(_HEALTH[one] for one in row.seen.health) or ("", "", "")


def _tests() -> Iterator[str]:
    for what, row in ROWS.items():
        yield f"- {what}: {', '.join(f'`{test}`' for test in row.tests)}"


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
