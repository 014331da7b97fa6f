"""Pictures of a run, each as SVG and PNG: `python -m benchmarks.pictures RESULT FOLDER`.

Colours are those of Okabe and Ito, which people with any kind of colour vision can distinguish; marks and hatches
repeat the distinction.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from benchmarks.cerbos import CERBOS
from pdp.bench.figures import PERCENTILES, Spread, cpu, rate, spread
from pdp.bench.plan import BARE, CONTROL, FULL, FULL_LOOP, LOOP_TLS, RECORDED
from pdp.bench.results import BUSY, Finding, Result, read_result

_DOTS_PER_INCH = 110
_SETTINGS: dict[RcKeyType, object] = {
    "svg.hashsalt": "pdp",
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


# The load that sees the most: its own CPU is the least.
_LADDER = "raw frames, hits"


class Style(NamedTuple):
    """How the line of one server, or of one measurement, is drawn."""

    colour: str
    mark: str
    line: str


_STYLES: Mapping[str, Style] = {
    CONTROL: Style("#7f7f7f", "o", ":"),
    BARE: Style("#009e73", "^", "-"),
    RECORDED: Style("#56b4e9", "s", "-"),
    FULL: Style("#0072b2", "D", "-"),
    FULL_LOOP: Style("#cc79a7", "P", "-"),
    LOOP_TLS: Style("#cc79a7", "X", "--"),
    CERBOS: Style("#d55e00", "v", "--"),
}
# The servers whose bars have one part, and its hatch.
_WHOLE: Mapping[str, str] = {FULL_LOOP: "...", CERBOS: "\\\\\\"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A part of a bar: its name, and the servers with and without it."""

    name: str
    has: str
    lacks: str
    colour: str
    hatch: str


_PARTS = (
    _Part(name="transport (empty handler)", has=CONTROL, lacks="", colour="#bbbbbb", hatch=""),
    _Part(name="decision: caller, gate, cache, policies", has=BARE, lacks=CONTROL, colour="#009e73", hatch="///"),
    _Part(name="record", has=RECORDED, lacks=BARE, colour="#e69f00", hatch="|||"),
    _Part(name="spans, log records, metrics", has=FULL, lacks=RECORDED, colour="#56b4e9", hatch="---"),
)


def main() -> int:
    """Draw a result."""
    draw(read_result(Path(sys.argv[1])), Path(sys.argv[2]))
    return 0


def draw(result: Result, folder: Path, pictures: Sequence[Picture] | None = None) -> Sequence[Path]:
    """Write the pictures that the run has figures for into a folder, and return them: without any, those below."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context(_SETTINGS):
        for picture in PICTURES if pictures is None else pictures:
            drawn = Figure(layout="constrained")
            if picture.make(result, drawn):
                for ending in ("svg", "png"):
                    path = folder / f"{picture.name}.{ending}"
                    # Without the date, equal figures are equal bytes.
                    drawn.savefig(path, dpi=_DOTS_PER_INCH, metadata={"Date": None} if ending == "svg" else None)
                    written.append(path)
    return written


def _latencies(result: Result, drawn: Figure) -> bool:
    """Draw latency at percentiles on a log axis: calls on a schedule, and many at a time."""
    shown = [one for one in result.findings if one.title.startswith(_LADDER) and _has_latencies(one)]
    scheduled = [one for one in shown if one.title.endswith("calls/s")]
    ladder = [one for one in shown if not one.title.endswith("calls/s")]
    chosen = [*scheduled[:1], *ladder[-2:-1], *ladder[-1:]][:2]
    if not chosen:
        return False
    drawn.set_size_inches(5.2 * len(chosen) + 0.6, 4.6)
    _title(drawn, "Latency of one call, every answer a remembered decision", result)
    axes = drawn.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
    for axis, finding in zip(axes, chosen, strict=True):
        for server in finding.rounds:
            style = _STYLES[server]
            spreads = [_latency(finding, server, index) for index in range(len(PERCENTILES))]
            places = range(len(PERCENTILES))
            axis.fill_between(
                places,
                [one.least for one in spreads],
                [one.most for one in spreads],
                color=style.colour,
                alpha=0.12,
                lw=0,
            )
            axis.plot(
                places,
                [one.median for one in spreads],
                color=style.colour,
                marker=style.mark,
                linestyle=style.line,
                markersize=5,
                label=server,
            )
        axis.set_title(_when(finding.title), fontsize=10)
        axis.set_yscale("log")
        axis.set_xticks(range(len(PERCENTILES)), [f"p{percent:g}" for percent in PERCENTILES])
        axis.set_xlabel("percentile of calls")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[0].set_ylabel("milliseconds, log scale")
    _legend(drawn, axes[0], "lines: median of rounds; bands: least to most")
    return True


def _throughput(result: Result, drawn: Figure) -> bool:
    """Draw decisions a second against calls at a time."""
    ladder = {
        int(one.title.split(", ")[2].removesuffix(" at a time")): one
        for one in result.findings
        if one.title.startswith(_LADDER) and one.title.endswith(" at a time")
    }
    if len(ladder) < 2:  # noqa: PLR2004 - a line has two ends
        return False
    drawn.set_size_inches(6.8, 4.6)
    _title(drawn, "Throughput on one server core, remembered decisions", result)
    axis = drawn.subplots()
    steps = sorted(ladder)
    for server in ladder[steps[0]].rounds:
        draw_line(axis, _STYLES[server], server, {step: ladder[step].value(server, rate) for step in steps})
    axis.set_xscale("log", base=2)
    axis.set_xticks(steps, [str(step) for step in steps])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.set_xlabel("calls at a time")
    axis.set_ylabel("calls answered per second")
    _legend(drawn, axis, "median of rounds; bars: least to most", columns=3)
    return True


def _parts(result: Result, drawn: Figure) -> bool:
    """Draw where the server's CPU goes for one decision, as stacked bars."""
    bars = [one for one in result.findings if _is_bar(one)]
    if not bars:
        return False
    rows = [(one, server) for one in bars for server in (FULL, *_WHOLE) if server in one.rounds]
    drawn.set_size_inches(9.2, 1.7 + 0.42 * len(rows))
    drawn.suptitle("Where the server's CPU goes, for one decision", fontsize=12)
    axis = drawn.subplots()
    for index, (finding, server) in enumerate(rows):
        total = finding.value(server, cpu).median
        left = 0.0
        for name, width, colour, hatch in _stack(finding, server):
            axis.barh(index, width, left=left, color=colour, hatch=hatch, edgecolor="white", height=0.68, label=name)
            left += width
        axis.text(max(left, total), index, f"  {total:.0f} µs", va="center", fontsize=9)
    axis.set_yticks(range(len(rows)), [one.title if server == FULL else f"the same, {server}" for one, server in rows])
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.margins(x=0.1)
    axis.set_xlabel("µs of server CPU for one decision, median of rounds")
    _legend(drawn, axis, "", columns=3)
    return True


def draw_line(axis: Axes, style: Style, label: str, values: Mapping[int, Spread]) -> None:
    """Draw a line through medians, each with a bar from the least to the most."""
    found = list(values.values())
    axis.errorbar(
        list(values),
        [one.median for one in found],
        yerr=[[one.median - one.least for one in found], [one.most - one.median for one in found]],
        color=style.colour,
        marker=style.mark,
        linestyle=style.line,
        markersize=5,
        capsize=3,
        elinewidth=1,
        label=label,
    )


def _title(drawn: Figure, text: str, result: Result) -> None:
    # A picture is shared without the page that warns of it.
    warning = (
        "\nNOT A QUIET MACHINE: others used the core, servers cannot be compared" if result.others.median > BUSY else ""
    )
    drawn.suptitle(text + warning, fontsize=12)


def _is_bar(finding: Finding) -> bool:
    """Say whether a measurement is in the picture of parts.

    These are the closed loops that were measured with everything.
    """
    complete = all(part.has in finding.rounds for part in _PARTS)
    return complete and finding.title.endswith((" 16 at a time", " 1 at a time"))


def _stack(finding: Finding, server: str) -> Iterator[tuple[str, float, str, str]]:
    if server in _WHOLE:
        yield f"{server}, the whole", finding.value(server, cpu).median, _STYLES[server].colour, _WHOLE[server]
        return
    for part in _PARTS:
        lacking = finding.rounds[part.lacks] if part.lacks else None
        rounds = finding.rounds[part.has]
        more = [one.cpu - (lacking[turn].cpu if lacking else 0.0) for turn, one in enumerate(rounds)]
        # Values below zero are noise.
        yield part.name, max(0.0, spread(more).median), part.colour, part.hatch


def _latency(finding: Finding, server: str, index: int) -> Spread:
    return finding.value(server, lambda figures: figures.latencies[index])


def _has_latencies(finding: Finding) -> bool:
    return all(figures.latencies for rounds in finding.rounds.values() for figures in rounds)


def _when(title: str) -> str:
    last = title.rsplit(", ", maxsplit=1)[-1]
    return f"on a schedule of {last}, waiting counts" if last.endswith("calls/s") else f"{last}, as fast as answered"


def _legend(drawn: Figure, axis: Axes, remark: str, columns: int = 0) -> None:
    found = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    drawn.legend(
        found.values(),
        found.keys(),
        loc="outside lower center",
        ncols=columns or len(found),
        fontsize=9,
        title=remark,
        title_fontsize=8,
    )


class Picture(NamedTuple):
    """A picture: its file's stem, its description, and the function that draws it and says whether it has data."""

    name: str
    text: str
    make: Callable[[Result, Figure], bool]


PICTURES = (
    Picture(
        "latency",
        "Latency percentiles of each server on a log axis, on a schedule and with 16 calls at a time",
        _latencies,
    ),
    Picture("throughput", "Calls answered per second against calls at a time, for each server", _throughput),
    Picture(
        "parts",
        "Server CPU of one decision, stacked: transport, decision, record, telemetry; Cerbos beside it",
        _parts,
    ),
)


if __name__ == "__main__":
    raise SystemExit(main())
