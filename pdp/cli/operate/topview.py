"""The output of `pdp top`."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group
from rich.text import Text

from pdp.audit.activity import Activity
from pdp.cli.output import table
from pdp.foundation.printable import visible
from pdp.model import Basis

_MILLISECOND_US = 1000.0


def shown(activity: Activity, *, width: int) -> Group:
    """Return the output for an activity on a terminal of `width` characters."""
    frozen = activity.bases.get(Basis.FROZEN.value, 0)
    freeze = f"frozen    calls denied because of a freeze: {frozen}; `pdp freeze list` shows it"
    return Group(
        Text(_headline(activity), style="bold"),
        *([Text(freeze, style="bold")] if frozen else []),
        Text(f"outcomes  {_counted(activity.outcomes)}"),
        Text(f"bases     {_counted(activity.bases)}"),
        Text(f"events    {_counted(activity.events)}"),
        table(
            ("slowest tools", "decisions", "denied", "median", "longest"),
            [
                (
                    visible(f"{one.server}/{one.tool}"),
                    str(one.decisions),
                    str(one.denied),
                    _time(one.median_us),
                    _time(one.longest_us),
                )
                for one in activity.slowest
            ],
            width=width,
        ),
        table(
            ("denied sessions", "user", "agent", "decisions", "denied", "last deny"),
            [
                (
                    visible(one.session_id) or "(unknown handle)",
                    visible(one.user),
                    visible(one.agent),
                    str(one.decisions),
                    str(one.denied),
                    visible(f"{one.server}/{one.tool}: {one.basis}"),
                )
                for one in activity.denied
            ],
            width=width,
        ),
    )


def _headline(activity: Activity) -> str:
    hits = "no cache look-ups" if activity.hit_rate is None else f"{activity.hit_rate:.1%} cache hits"
    times = f"median {_time(activity.median_us)}, longest {_time(activity.longest_us)}"
    return f"{activity.per_second:.1f} decisions/s over {activity.seconds:.0f} s  ·  {hits}  ·  {times}"


def _counted(counts: Mapping[str, int]) -> str:
    return "  ".join(f"{visible(name)} {count}" for name, count in counts.items()) or "none"


def _time(microseconds: float) -> str:
    if microseconds < _MILLISECOND_US:
        return f"{microseconds:.0f} µs"
    return f"{microseconds / _MILLISECOND_US:.1f} ms"
