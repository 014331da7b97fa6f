"""Write the latest result into `benchmarks/README.md`: `python -m benchmarks.page RESULT`.

RESULT is a file of `python -m benchmarks.beside --json`. Only the part between the two marks of the page changes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.aims import AIM_COLUMNS, aim_rows
from benchmarks.pictures import PICTURES, draw
from pdp.bench import Result, read_result
from pdp.cli.operate.benchview import FINDING_COLUMNS, controls, finding_rows, lateness, own_cost, quietness, refusals

PAGE = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- results: written by `make bench` -->\n", "<!-- end of results -->\n"


def main() -> int:
    """Write the page, and the pictures beside it."""
    result = read_result(Path(sys.argv[1]))
    draw(result, PAGE.parent / "pictures")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + rendered(result) + END + after, encoding="utf-8")
    return 0


def rendered(result: Result) -> str:
    """Return a result in the form of the page."""
    return "\n".join(_lines(result)) + "\n"


def _lines(result: Result) -> Iterator[str]:
    machine = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    yield ""
    about_load = (*quietness(result), *own_cost(result), *lateness(result), *refusals(result))
    remarks = "; ".join([*result.remarks, *controls(result), *about_load])
    yield f"Measured {result.at[:10]}: {result.effort}; {remarks}."
    yield f"The machine: {machine}."
    yield "\nThe aims:\n"
    yield from _table(AIM_COLUMNS, aim_rows(result))
    for picture in PICTURES:
        yield f"\n![{picture.text}](pictures/{picture.name}.svg)"
    yield "\nEverything that was measured:\n"
    yield from _table(FINDING_COLUMNS, finding_rows(result))
    yield ""


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    raise SystemExit(main())
