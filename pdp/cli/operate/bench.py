"""`pdp bench`: measure this server beside one that decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pdp.bench import Judged, Plan, Result, Shape, WrongAnswerError, compare, planned, read_result, run, written
from pdp.bench.plan import (
    ALL_HITS,
    ALL_MISSES,
    BARE,
    BROKER,
    CONNECTIONS,
    DOOR,
    FULL,
    FULL_LOOP,
    LADDER,
    LOOP_TLS,
    MCP_DOOR,
    RATE,
    RECORDED,
    SETUP_OF,
    SHORT,
    SHORT_LADDER,
    USUAL,
    Effort,
)
from pdp.bench.running import Measuring
from pdp.bench.workloads import open_workload
from pdp.cli.operate.benchview import (
    CHANGE_COLUMNS,
    FINDING_COLUMNS,
    change_rows,
    controls,
    finding_rows,
    lateness,
    own_cost,
    quietness,
    refusals,
)
from pdp.cli.output import print_table, replace_file
from pdp.cli.root import NO
from pdp.foundation.extras import DISTRIBUTION

_SHAPES = [shape.value for shape in Shape]
_SETUPS = (BARE, RECORDED, FULL, FULL_LOOP, LOOP_TLS, DOOR, MCP_DOOR, BROKER)
# What a setup needs besides: a library, and the extra that brings it.
_NEEDED = {
    FULL_LOOP: ("ngh2", "loop"),
    LOOP_TLS: ("ngh2", "loop"),
    MCP_DOOR: ("httpcore2", "mcp"),
    BROKER: ("uvicorn", "broker"),
}
_BOUND = 0.2


@click.command(epilog="Example:  pdp bench --short  |  pdp bench --json now.json --compare before.json --bound 0.1")
@click.option("--short", is_flag=True, help="Measure three short rounds at one concurrency, in about a minute.")
@click.option("--rounds", metavar="N", type=click.IntRange(1, 100), help="Measure everything N times. [5; short: 3]")
@click.option(
    "--seconds",
    metavar="S",
    type=click.FloatRange(0.01, 60),
    help="Duration of one measurement, in seconds. [1; short: 0.2]",
)
@click.option(
    "--shape", "shapes", type=click.Choice(_SHAPES), multiple=True, help="Measure only this kind of request. [all]"
)
@click.option(
    "--setup", "setups", type=click.Choice(_SETUPS), multiple=True, help="Measure only this setup of the server. [all]"
)
@click.option("--concurrency", metavar="N,N…", help="Numbers of calls at a time. [1,4,16,64; short: 16]")
@click.option("--connections", metavar="N,N…", help="Numbers of connections that raw frames use. [1,4,16; short: 1]")
@click.option(
    "--rate", metavar="N", type=click.FloatRange(1, 1e6), default=RATE, help="Calls per second of the open loop. [1000]"
)
@click.option("--misses", metavar="SHARE,…", help="Shares of calls that the cache cannot know, from 0 to 1. [0,1]")
@click.option("--workload", metavar="PATH", help="The calls to decide: JSON lines, or the folder of a decision log.")
@click.option("--policies", metavar="DIR", help="The policies for --workload. [they allow every call]")
@click.option("--json", "json_file", metavar="FILE", help="Write the result to FILE.")
@click.option("--compare", "baseline", metavar="FILE", help="Compare with the earlier result in FILE.")
@click.option(
    "--bound", type=click.FloatRange(0, 10), default=_BOUND, help="The smallest regression to report. [0.2: 20 %]"
)
@click.option(
    "--judge", type=click.Choice([one.value for one in Judged]), multiple=True, help="Compare this figure. [cpu]"
)
def bench(
    *,
    short: bool,
    rounds: int | None,
    seconds: float | None,
    shapes: tuple[str, ...],
    setups: tuple[str, ...],
    concurrency: str | None,
    connections: str | None,
    rate: float,
    misses: str | None,
    workload: str | None,
    policies: str | None,
    json_file: str | None,
    baseline: str | None,
    bound: float,
    judge: tuple[str, ...],
    measuring: Measuring = run,
) -> None:
    """Measure this server beside one that decides nothing.

    Starts all servers itself, measures them in turns, checks every answer, and prints medians and ratios. Compare the
    ratios; absolute figures hold only for this machine at this time. A call over MCP is the whole call, beside the same
    call without a door, and a brokered call is beside one with a key of the caller's own.

    Exit code 0: measured. 1: an answer was wrong, or a figure is worse than in the baseline by more than the bound.
    2: nothing could be measured.
    """
    if workload is None and policies is not None:
        raise click.UsageError("--policies needs --workload")
    if workload is not None and misses is not None:
        raise click.UsageError(
            "--misses cannot be combined with --workload: recorded calls repeat as they were recorded"
        )
    left_out = [_needed(one) for one in setups or _SETUPS if one in _NEEDED and not find_spec(_NEEDED[one][0])]
    if setups and left_out:
        raise click.UsageError(left_out[0])
    effort = SHORT if short else USUAL
    mixes: Sequence[float | None] = _shares(misses) or ((ALL_HITS,) if short else (ALL_HITS, ALL_MISSES))
    plan = Plan(
        measurements=planned(
            [Shape(one) for one in shapes or _SHAPES],
            ladder=_steps(concurrency, "--concurrency") or (SHORT_LADDER if short else LADDER),
            connections=_steps(connections, "--connections") or ((1,) if short else CONNECTIONS),
            rate=None if short else rate,
            mixes=mixes if workload is None else (None,),
        ),
        effort=Effort(rounds=rounds or effort.rounds, seconds=seconds or effort.seconds),
        workload=open_workload(workload or "", policies or ""),
        setups=setups or [one for one in _SETUPS if _needed(one) not in left_out],
    )
    if not plan.possible:
        raise click.UsageError(f"`{shapes[0]}` is a way to ask `{SETUP_OF[Shape(shapes[0])]}` alone: see --setup")
    # Report an unreadable baseline before minutes of measuring.
    before = read_result(Path(baseline)) if baseline else None
    try:
        with _progress() as progress:
            result = measuring(plan, progress)
    except WrongAnswerError as error:
        click.echo(f"wrong: {error}", err=True)
        raise click.exceptions.Exit(NO) from None
    result = replace(result, remarks=[*result.remarks, *left_out])
    if json_file:
        replace_file(Path(json_file), written(result))
    _show(result)
    if before is not None and not _compared(before, result, [Judged(one) for one in judge or ("cpu",)], bound):
        raise click.exceptions.Exit(NO)


def _needed(setup: str) -> str:
    """Return what to say of a setup whose library is not installed; empty for one that needs none."""
    if setup not in _NEEDED:
        return ""
    return f"`{setup}` cannot be measured: pip install '{DISTRIBUTION}[{_NEEDED[setup][1]}]'"


def _show(result: Result) -> None:
    about_load = (*quietness(result), *own_cost(result), *lateness(result), *refusals(result))
    head = [f"{result.effort}; workload: {result.workload}", *result.remarks, *controls(result), *about_load]
    click.echo("\n".join(head) + "\n")
    print_table(FINDING_COLUMNS, finding_rows(result))


def _compared(before: Result, now: Result, judged: list[Judged], bound: float) -> bool:
    """Print the changes; return False when something regressed."""
    changes = compare(before, now, judged)
    click.echo(f"\nsince {before.at}, in ratios to the control of the same run:\n")
    print_table(CHANGE_COLUMNS, change_rows(changes, bound))
    regressed = [one for one in changes if one.regressed(bound)]
    for one in regressed:
        click.echo(f"regressed: {one.server}, {one.title}: {one.judged.value} is worse by {one.worse:.0%}", err=True)
    return not regressed


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that shows the progress of the run, on a terminal.

    It redraws only between measurements, never during one.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, auto_refresh=False, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("starting servers", total=None)
        bar.refresh()

        def progress(title: str, done: int, total: int) -> None:
            bar.update(task, description=title, completed=done, total=total, refresh=True)

        yield progress


def _steps(text: str | None, option: str) -> tuple[int, ...]:
    steps = tuple(round(one) for one in _numbers(text, option))
    for step in steps:
        if step < 1:
            raise click.UsageError(f"`{option}` must be 1 or more, not `{step}`")
    return tuple(sorted(steps))


def _shares(text: str | None) -> tuple[float, ...]:
    shares = tuple(_numbers(text, "--misses"))
    for share in shares:
        if not 0 <= share <= 1:
            raise click.UsageError(f"`--misses` must be a number from 0 to 1, not `{share:g}`")
    return shares


def _numbers(text: str | None, option: str) -> Iterator[float]:
    for one in text.split(",") if text is not None else ():
        try:
            yield float(one)
        except ValueError:
            raise click.UsageError(
                f"`{option}` must be numbers separated by commas, and `{one}` is not a number"
            ) from None
