"""How `pdp top` looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pdp.audit.activity import Activity
from pdp.escaping import visible

_MILLISECOND_US = 1000.0


def shown(activity: Activity) -> Group:
    """Return what is printed of an activity."""
    return Group(
        Text(_headline(activity), style="bold"),
        Text(f"outcomes  {_counted(activity.outcomes)}"),
        Text(f"bases     {_counted(activity.bases)}"),
        Text(f"events    {_counted(activity.events)}"),
        _table(
            ("slowest tools", "decisions", "denied", "median", "longest"),
            (
                (
                    f"{one.server}/{one.tool}",
                    str(one.decisions),
                    str(one.denied),
                    _time(one.median_us),
                    _time(one.longest_us),
                )
                for one in activity.slowest
            ),
        ),
        _table(
            ("denied sessions", "user", "agent", "decisions", "denied", "last deny"),
            (
                (
                    one.session_id or "(unknown handle)",
                    one.user,
                    one.agent,
                    str(one.decisions),
                    str(one.denied),
                    f"{one.server}/{one.tool}: {one.basis}",
                )
                for one in activity.denied
            ),
        ),
    )


def _headline(activity: Activity) -> str:
    hits = "no look-ups" if activity.hit_rate is None else f"{activity.hit_rate:.1%} cache hits"
    times = f"median {_time(activity.median_us)}, longest {_time(activity.longest_us)}"
    return f"{activity.per_second:.1f} decisions/s over {activity.seconds:.0f} s  ·  {hits}  ·  {times}"


def _counted(counts: Mapping[str, int]) -> str:
    return "  ".join(f"{visible(name)} {count}" for name, count in counts.items()) or "none"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=place == 0)
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))  # no markup: cells are other people's words
    return table


def _time(microseconds: float) -> str:
    if microseconds < _MILLISECOND_US:
        return f"{microseconds:.0f} µs"
    return f"{microseconds / _MILLISECOND_US:.1f} ms"
