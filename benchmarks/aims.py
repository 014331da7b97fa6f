"""The aims: a run's required figures, each beside its control, and the verdict: `python -m benchmarks.aims RESULT`.

RESULT is a file of `pdp bench --json`, or of `python -m benchmarks.beside --json`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cerbos import CERBOS
from pdp.bench.figures import Figures, Spread, What, cpu, p50, p99, rate, spread
from pdp.bench.plan import (
    ALL_HITS,
    ALL_MISSES,
    BARE,
    CONTROL,
    FULL,
    FULL_LOOP,
    LOOP,
    LOOP_TLS,
    OBSERVED,
    RATE,
    RECORDED,
    Measurement,
    Shape,
)
from pdp.bench.results import Result, read_result
from pdp.cli.operate.benchview import NOTHING, between, number
from pdp.cli.output import print_table

AIM_COLUMNS = ("aim", "measured", "control", "ratio", "limit", "reached")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """One aim beside its measurement.

    `measured` and `control` are in `unit`; `judged` is compared with `limit`: the ratio, or without a control the
    figure itself. `upper` means that the limit must not be exceeded; else it must be reached. `busy`: the aim is about
    time, and other work used the servers' core meanwhile.
    """

    what: str
    unit: str
    measured: Spread
    control_name: str
    control: Spread
    judged: Spread
    limit: float
    upper: bool
    in_ratio: bool
    busy: bool

    @property
    def known(self) -> bool:
        """Say whether the run measured this."""
        return self.judged.known

    @property
    def reached(self) -> bool:
        """Say whether the median is within the limit; not when it is unknown."""
        return self.known and (self.judged.median <= self.limit if self.upper else self.judged.median >= self.limit)


def main() -> int:
    """Print the aims beside a run's figures."""
    print_table(AIM_COLUMNS, aim_rows(read_result(Path(sys.argv[1]))))
    return 0


def aims(result: Result) -> Sequence[Aim]:
    """Return every aim that this kind of run can judge; unmeasured ones are unknown."""
    return [make(result) for make in _AIMS]


def aim_rows(result: Result) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the aims."""
    for aim in aims(result):
        sign = "≤" if aim.upper else "≥"
        yield (
            aim.what,
            _measured(aim.measured, aim.unit),
            f"{_measured(aim.control, aim.unit)} ({aim.control_name})",
            f"{number(aim.judged)} ({between(aim.judged)})" if aim.in_ratio and aim.known else NOTHING,
            f"{sign} {aim.limit:g}{' times' if aim.in_ratio else f' {aim.unit}'}",
            _verdict(aim),
        )


def _verdict(aim: Aim) -> str:
    if not aim.known:
        return "not measured"
    return ("yes" if aim.reached else "no") + (", on a busy machine" if aim.busy else "")


def _measured(value: Spread, unit: str) -> str:
    return f"{number(value, digits=0 if unit == '/s' else None)} {unit}" if value.known else NOTHING


_Make = Callable[[Result], Aim]

_STEP = 16
_HITS_INSIDE = Measurement(shape=Shape.IN_PROCESS, misses=ALL_HITS).title
_MISSES_INSIDE = Measurement(shape=Shape.IN_PROCESS, misses=ALL_MISSES).title
_UNARY_ALONE = Measurement(shape=Shape.UNARY, concurrency=1).title
_UNARY = Measurement(shape=Shape.UNARY, concurrency=_STEP).title
_SCHEDULED = Measurement(shape=Shape.UNARY, rate=RATE).title
_STREAM_ALONE = Measurement(shape=Shape.STREAM, concurrency=1).title
_STREAM = Measurement(shape=Shape.STREAM, concurrency=_STEP).title
_BATCH = Measurement(shape=Shape.BATCH).title
_FRAMES_ALONE = Measurement(shape=Shape.FRAMES, concurrency=1).title
_FRAMES = Measurement(shape=Shape.FRAMES, concurrency=_STEP).title
_FRAMES_APART = Measurement(shape=Shape.FRAMES, concurrency=_STEP, connections=_STEP).title
_FRAMES_SCHEDULED = Measurement(shape=Shape.FRAMES, rate=RATE).title
_FRAMES_MISSES = Measurement(shape=Shape.FRAMES, concurrency=_STEP, misses=ALL_MISSES).title
# The most that the server's CPU may be where callers share a client, as a ratio to calls by themselves.
_TOGETHER = {1: 1.02, 4: 0.65, 16: 0.35, 64: 0.3}
# The same for latencies, at each number of callers.
_TOGETHER_LATENCY = 1.1


def _beside(
    what: str,
    unit: str,
    server: tuple[str, str],
    control: tuple[str, str],
    figure: What,
    limit: float,
    *,
    upper: bool = True,
    in_ratio: bool = True,
) -> _Make:
    """Make an aim about a figure beside that of a control.

    Each is given as measurement and server.
    """

    def make(result: Result) -> Aim:
        rounds, base = _rounds(result, *server), _rounds(result, *control)
        measured = spread(map(figure, rounds))
        ratio = spread(figure(one) / figure(other) for one, other in zip(rounds, base, strict=False))
        return Aim(
            what=what,
            unit=unit,
            measured=measured,
            control_name=control[1] if control[0] == server[0] else f"{control[0]}, {control[1]}",
            control=spread(map(figure, base)),
            judged=ratio if in_ratio else measured,
            limit=limit,
            upper=upper,
            in_ratio=in_ratio,
            busy=figure is not cpu and (_busy(result, *server) or _busy(result, *control)),
        )

    return make


def _more(what: str, title: str, server: str, base: str, limit: float) -> _Make:
    """Make an aim about the CPU that one part adds to a decision."""

    def make(result: Result) -> Aim:
        rounds, without = _rounds(result, title, server), _rounds(result, title, base)
        added = spread(one.cpu - other.cpu for one, other in zip(rounds, without, strict=False))
        return Aim(
            what=what,
            unit="µs",
            measured=added,
            control_name=base,
            control=spread(map(cpu, without)),
            judged=added,
            limit=limit,
            upper=True,
            in_ratio=False,
            busy=False,
        )

    return make


def _busy(result: Result, title: str, server: str) -> bool:
    finding = result.finding(title)
    return finding is not None and finding.busy(server)


def _rounds(result: Result, title: str, server: str) -> Sequence[Figures]:
    finding = result.finding(title)
    return finding.rounds.get(server, ()) if finding else ()


def _together(what: str, unit: str, callers: int, figure: What, limit: float) -> _Make:
    """Make an aim about callers who share a client and ask together, beside each by itself."""
    together, alone = (
        Measurement(shape=shape, concurrency=callers).title for shape in (Shape.CLIENT_TOGETHER, Shape.CLIENT_ALONE)
    )
    return _beside(f"{callers} together, {what}", unit, (together, FULL), (alone, FULL), figure, limit)


_AIMS: Sequence[_Make] = (
    _beside("in process, hit", "µs", (_HITS_INSIDE, BARE), (_HITS_INSIDE, LOOP), cpu, 10, in_ratio=False),
    _beside("in process, miss", "µs", (_MISSES_INSIDE, BARE), (_MISSES_INSIDE, LOOP), cpu, 60, in_ratio=False),
    _beside("unary hit, CPU without tracing", "µs", (_UNARY, RECORDED), (_UNARY, CONTROL), cpu, 1.3),
    _beside("unary hit, CPU with everything", "µs", (_UNARY, FULL), (_UNARY, CONTROL), cpu, 1.6),
    _beside("unary hit, calls/s", "/s", (_UNARY, FULL), (_UNARY, CERBOS), rate, 1.25, upper=False),
    _beside("unary hit, p99 at 16 at a time", "ms", (_UNARY, FULL), (_UNARY, CERBOS), p99, 0.6),
    _beside("unary hit, p99 on a schedule", "ms", (_SCHEDULED, FULL), (_SCHEDULED, CERBOS), p99, 0.6),
    _beside("stream, p50", "ms", (_STREAM_ALONE, FULL), (_UNARY_ALONE, FULL), p50, 0.7),
    _beside("stream, messages/s", "/s", (_STREAM, FULL), (_UNARY, FULL), rate, 1.3, upper=False),
    _beside("batch of 50, nothing observed", "µs", (_BATCH, BARE), (_BATCH, CONTROL), cpu, 15, in_ratio=False),
    _beside("batch of 50, with everything", "µs", (_BATCH, FULL), (_BATCH, CONTROL), cpu, 55, in_ratio=False),
    _more("trace, metrics and record, in process", _HITS_INSIDE, OBSERVED, BARE, 40),
    _beside("loop, hit, CPU at 16 at a time", "µs", (_FRAMES, FULL_LOOP), (_FRAMES, CERBOS), cpu, 0.38),
    _beside("loop, hit, CPU on 16 connections", "µs", (_FRAMES_APART, FULL_LOOP), (_FRAMES_APART, CERBOS), cpu, 0.5),
    _beside("loop, hit, CPU one at a time", "µs", (_FRAMES_ALONE, FULL_LOOP), (_FRAMES_ALONE, CERBOS), cpu, 0.5),
    _beside("loop, hit, calls/s", "/s", (_FRAMES, FULL_LOOP), (_FRAMES, CERBOS), rate, 2.5, upper=False),
    _beside(
        "loop, hit, calls/s on 16 connections",
        "/s",
        (_FRAMES_APART, FULL_LOOP),
        (_FRAMES_APART, CERBOS),
        rate,
        2.0,
        upper=False,
    ),
    _beside("loop, hit, p99 at 16 at a time", "ms", (_FRAMES, FULL_LOOP), (_FRAMES, CERBOS), p99, 0.6),
    _beside(
        "loop, hit, p99 on a schedule", "ms", (_FRAMES_SCHEDULED, FULL_LOOP), (_FRAMES_SCHEDULED, CERBOS), p99, 0.4
    ),
    _beside("loop, hit, CPU with TLS", "µs", (_FRAMES, LOOP_TLS), (_FRAMES, FULL_LOOP), cpu, 1.25),
    _beside("loop, miss, CPU", "µs", (_FRAMES_MISSES, FULL_LOOP), (_FRAMES_MISSES, CERBOS), cpu, 1.15),
    *[_together("CPU", "µs", callers, cpu, limit) for callers, limit in _TOGETHER.items()],
    *[_together("p50", "ms", callers, p50, _TOGETHER_LATENCY) for callers in _TOGETHER],
    *[_together("p99", "ms", callers, p99, _TOGETHER_LATENCY) for callers in _TOGETHER],
)


if __name__ == "__main__":
    raise SystemExit(main())
