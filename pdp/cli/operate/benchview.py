"""A benchmark's result as text: cells of tables, the same on a terminal and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pdp.bench import Change, Result
from pdp.bench.figures import Spread, cpu, p50, p99, rate, spread
from pdp.bench.plan import CONTROL
from pdp.bench.results import BUSY

FINDING_COLUMNS = (
    "measurement",
    "server",
    "decisions/s",
    "p50 ms",
    "p99 ms",
    "remembered",
    "CPU µs",
    "times the control",
    "least to most",
)
CHANGE_COLUMNS = ("measurement", "server", "what", "times the control, before", "now", "change", "")

NOTHING = "-"
_SMALL = 10.0
_LATE_MS = 1.0


def quietness(result: Result) -> Iterator[str]:
    """Yield the other work on the servers' core, where it is known."""
    if result.others.known:
        median, most = result.others.median, result.others.most
        yield f"other processes used {median:.0%} of the servers' core, {most:.0%} at most" + (
            ": throughput and latencies are those of a busy machine" if median > BUSY else ""
        )


def controls(result: Result) -> Iterator[str]:
    """Yield the kinds of requests that have a control of their own: their ratios are like no others."""
    own = {one.title.partition(",")[0]: one.control for one in result.findings if one.control != CONTROL}
    if own:
        yield "measurements with a control of their own, which compare with no others: " + ", ".join(
            f"{kind} (`{control}`)" for kind, control in own.items()
        )


def lateness(result: Result) -> Iterator[str]:
    """Yield the load's own delay, if it is large enough to matter for the latencies."""
    for finding in result.findings:
        for server in finding.rounds:
            late = finding.value(server, lambda one: one.late)
            if late.known and late.median > _LATE_MS:
                yield f"{finding.title}, {server}: half of the calls started at least {late.median:.1f} ms late"


def refusals(result: Result) -> Iterator[str]:
    """Yield how many calls were asked again because the server had refused them unread, if any."""
    for finding in result.findings:
        for server, rounds in finding.rounds.items():
            if again := sum(one.again for one in rounds):
                yield f"{finding.title}, {server}: refused calls were asked again {again} times, and their time ran on"


def own_cost(result: Result) -> Iterator[str]:
    """Yield the load's own CPU for each kind of request, where it is known: what costs a server less, it cannot see."""
    costs: dict[str, list[float]] = {}
    for finding in result.findings:
        kind = finding.title.partition(",")[0]
        costs.setdefault(kind, []).extend(one.load for rounds in finding.rounds.values() for one in rounds)
    known = [f"{kind} {cost.median:.0f} µs" for kind, values in costs.items() if (cost := spread(values)).known]
    if known:
        yield f"the load's own CPU for each decision: {', '.join(known)}"


def finding_rows(result: Result) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the measurements: medians over rounds, ratios round by round."""
    for finding in result.findings:
        for server in finding.rounds:
            ratio = finding.ratio(server, cpu)
            yield (
                finding.title,
                server,
                number(finding.value(server, rate), digits=0),
                number(finding.value(server, p50)),
                number(finding.value(server, p99)),
                _share(finding.value(server, lambda one: one.remembered)),
                number(finding.value(server, cpu), digits=1),
                number(ratio),
                between(ratio),
            )


def change_rows(changes: Sequence[Change], bound: float) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a comparison, the worst first."""
    for change in sorted(changes, key=lambda one: -one.worse):
        yield (
            change.title,
            change.server,
            change.judged.value,
            number(change.before),
            number(change.after),
            f"{change.after.median / change.before.median - 1:+.0%}",
            f"worse by more than {bound:.0%}" if change.regressed(bound) else "",
        )


def number(value: Spread, *, digits: int | None = None) -> str:
    """Return the median as a cell, with `digits` after the point.

    The default is two below ten, and else one.
    """
    if not value.known:
        return NOTHING
    return f"{value.median:.{_digits(value.median) if digits is None else digits}f}"


def between(value: Spread) -> str:
    """Return the least and the most as a cell."""
    return f"{value.least:.2f} to {value.most:.2f}" if value.known else NOTHING


def _share(value: Spread) -> str:
    return f"{value.median:.0%}" if value.known else NOTHING


def _digits(median: float) -> int:
    return 2 if math.fabs(median) < _SMALL else 1
