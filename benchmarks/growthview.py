"""Show how the CPU of a decision grows: `python -m benchmarks.growthview RESULT FOLDER` draws a file of `growth`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.pictures import Picture, Style, draw, draw_line
from pdp.bench.figures import Figures, cpu, ratios, spread
from pdp.bench.results import Result, read_result
from pdp.cli.operate.benchview import between, number


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One thing that grows: its sizes, the size that others are compared with, and the lines along it."""

    name: str
    sizes: Sequence[int]
    base: int
    lines: Sequence[str]
    what: str

    def title(self, size: int) -> str:
        """Return the name of the measurement at a size."""
        return f"{self.name}: {size}"

    def up_to(self, most: int | None) -> Axis:
        """Return the axis without sizes beyond `most`."""
        return self if most is None else replace(self, sizes=[size for size in self.sizes if size <= most])


AXES = (
    Axis(
        name="policies",
        sizes=(1, 10, 100, 1_000, 10_000),
        base=10,
        lines=("hit", "miss"),
        what="in process, at most ten of the policies about the tool that is called",
    ),
    Axis(
        name="tools",
        sizes=(5, 50, 500, 2_000),
        base=5,
        lines=("hit", "miss"),
        what="in process, ten policies about the tool that is called, one about each other",
    ),
    Axis(
        name="sessions",
        sizes=(10, 100, 1_000, 10_000, 100_000),
        base=10,
        lines=("hit", "miss"),
        what="in process, in SQLite, up to 1,000 of them called",
    ),
    Axis(
        name="callers",
        sizes=(1, 4, 16, 64),
        base=1,
        lines=("one worker", "two workers", "one worker, asked together"),
        what="served, everything on, remembered",
    ),
)


# Of Okabe and Ito, as in the other pictures.
_STYLES: Mapping[str, Style] = {
    "hit": Style("#0072b2", "o", "-"),
    "miss": Style("#d55e00", "s", "--"),
    "one worker": Style("#009e73", "^", "-"),
    "two workers": Style("#cc79a7", "D", "--"),
    "one worker, asked together": Style("#e69f00", "v", ":"),
}


def main() -> int:
    """Draw a result."""
    draw_growth(read_result(Path(sys.argv[1])), Path(sys.argv[2]))
    return 0


def draw_growth(result: Result, folder: Path) -> Sequence[Path]:
    """Draw a result into a folder, and return the files."""
    return draw(result, folder, (GROWTH,))


def growth_tables(result: Result) -> Iterator[str]:
    """Yield the lines of a table for each axis that was measured: medians, and ratios round by round."""
    for axis in AXES:
        found = _measured(result, axis)
        if not found:
            continue
        yield f"\n| {axis.name} | " + " | ".join(f"{line}, µs | ratio | least to most" for line in axis.lines) + " |"
        yield "|---" * (1 + 3 * len(axis.lines)) + "|"
        for size, rounds in found.items():
            cells = (_cells(rounds.get(line, ()), found.get(axis.base, {}).get(line, ())) for line in axis.lines)
            yield f"| {size:,} | " + " | ".join(cells) + " |"


def _cells(rounds: Sequence[Figures], base: Sequence[Figures]) -> str:
    ratio = ratios(rounds, base, cpu) if base else spread(())
    return f"{number(spread(map(cpu, rounds)), digits=1)} | {number(ratio)} | {between(ratio)}"


def _measured(result: Result, axis: Axis) -> Mapping[int, Mapping[str, Sequence[Figures]]]:
    found = {size: result.finding(axis.title(size)) for size in axis.sizes}
    return {size: finding.rounds for size, finding in found.items() if finding is not None}


def _growth(result: Result, drawn: Figure) -> bool:
    """Draw a field for each axis of which there are two sizes: CPU of a decision against size."""
    shown = [(axis, found) for axis in AXES if len(found := _measured(result, axis)) > 1]
    if not shown:
        return False
    drawn.set_size_inches(4.6 * len(shown), 4.4)
    drawn.suptitle("CPU of one decision as what surrounds it grows, median of rounds, least to most", fontsize=12)
    for field, (axis, found) in zip(drawn.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for line in axis.lines:
            values = {size: spread(map(cpu, rounds[line])) for size, rounds in found.items() if line in rounds}
            draw_line(field, _STYLES[line], line, values)
        field.set_xscale("log")
        field.set_xticks(list(found), [f"{size:,}" for size in found])
        field.minorticks_off()
        field.set_ylim(bottom=0)
        field.set_xlabel(axis.name)
        field.set_title(axis.what, fontsize=8)
        field.legend(fontsize=9)
        field.set_ylabel("µs of CPU for one decision")
    return True


GROWTH = Picture(
    "growth",
    "CPU of one decision against the number of policies, tools, sessions and callers",
    _growth,
)


if __name__ == "__main__":
    raise SystemExit(main())
