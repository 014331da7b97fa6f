"""How a benchmark's result looks as text: cells of tables, the same on a terminal and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from pdp.bench import Aim, Change, Result
from pdp.bench.aims import cpu, p50, p99, rate
from pdp.bench.figures import Spread
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
AIM_COLUMNS = ("aim", "measured", "control", "ratio", "limit", "reached")
CHANGE_COLUMNS = ("measurement", "server", "what", "times the control, before", "now", "change", "")

_NOTHING = "-"
_SMALL = 10.0
_LATE_MS = 1.0


def quietness(result: Result) -> Iterator[str]:
    """Yield what others did on the servers' core, where that is known."""
    if result.others.known:
        median, most = result.others.median, result.others.most
        yield f"others used {median:.0%} of the servers' core, {most:.0%} at most" + (
            ": throughput and latencies are those of a busy machine" if median > BUSY else ""
        )


def lateness(result: Result) -> Iterator[str]:
    """Yield how late the load itself was, where it was late enough to matter: that is part of the latencies."""
    for finding in result.findings:
        for server in finding.rounds:
            late = finding.value(server, lambda one: one.late)
            if late.known and late.median > _LATE_MS:
                yield f"{finding.title}, {server}: half of the calls were begun {late.median:.1f} ms late or more"


def finding_rows(result: Result) -> Iterator[tuple[str, ...]]:
    """Yield the rows of what was measured: medians over rounds, ratios taken round by round."""
    for finding in result.findings:
        for server in finding.rounds:
            ratio = finding.ratio(server, cpu)
            yield (
                finding.title,
                server,
                _number(finding.value(server, rate), digits=0),
                _number(finding.value(server, p50)),
                _number(finding.value(server, p99)),
                _share(finding.value(server, lambda one: one.remembered)),
                _number(finding.value(server, cpu), digits=1),
                _number(ratio),
                _between(ratio),
            )


def aim_rows(aims: Iterable[Aim]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the aims."""
    for aim in aims:
        sign = "≤" if aim.upper else "≥"
        yield (
            aim.what,
            _measured(aim.measured, aim.unit),
            f"{_measured(aim.control, aim.unit)} ({aim.control_name})",
            f"{_number(aim.judged)} ({_between(aim.judged)})" if aim.in_ratio and aim.known else _NOTHING,
            f"{sign} {aim.limit:g}{' times' if aim.in_ratio else f' {aim.unit}'}",
            _verdict(aim),
        )


def change_rows(changes: Sequence[Change], bound: float) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a comparison, the worst first."""
    for change in sorted(changes, key=lambda one: -one.worse):
        yield (
            change.title,
            change.server,
            change.judged.value,
            _number(change.before),
            _number(change.after),
            f"{change.after.median / change.before.median - 1:+.0%}",
            f"worse by more than {bound:.0%}" if change.regressed(bound) else "",
        )


def _verdict(aim: Aim) -> str:
    if not aim.known:
        return "not measured"
    return ("yes" if aim.reached else "no") + (", on a busy machine" if aim.busy else "")


def _measured(value: Spread, unit: str) -> str:
    return f"{_number(value, digits=0 if unit == '/s' else None)} {unit}" if value.known else _NOTHING


def _number(value: Spread, *, digits: int | None = None) -> str:
    if not value.known:
        return _NOTHING
    return f"{value.median:.{_digits(value.median) if digits is None else digits}f}"


def _share(value: Spread) -> str:
    return f"{value.median:.0%}" if value.known else _NOTHING


def _between(value: Spread) -> str:
    return f"{value.least:.2f} to {value.most:.2f}" if value.known else _NOTHING


def _digits(number: float) -> int:
    return 2 if math.fabs(number) < _SMALL else 1
