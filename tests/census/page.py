"""Write what a worker keeps in memory into the page of operators: `python -m tests.census.page`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.census.containers import CONTAINERS

PAGE = Path(__file__).parents[2] / "pdp" / "deployment" / "README.md"
BEGIN, END = "<!-- what is kept: begin -->", "<!-- what is kept: end -->"


def written(page: str) -> str:
    """Return the text of the page with the present table."""
    before, _, rest = page.partition(BEGIN)
    return before + "\n".join((BEGIN, "", *_table(), "", END)) + rest.partition(END)[2]


def _table() -> Iterator[str]:
    yield "| a worker keeps | bounded by | at most |"
    yield "|---|---|---|"
    for one in CONTAINERS:
        yield f"| {one.keeps} | {one.bound} | {one.most} MiB |"
    yield f"| all of it | | {sum(one.most for one in CONTAINERS)} MiB |"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
