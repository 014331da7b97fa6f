"""The result of a run, and its file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdp.bench.figures import UNKNOWN, Figures, Spread, What, ratios, spread
from pdp.errors import ConfigurationError

_FORMAT = 1
_KNOWN = ("cpu", "rate", "remembered", "late", "load", "others")
# Beyond this share of the servers' core, throughput and latencies are those of a busy machine.
BUSY = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One measurement: for each server its figures, one for each round; `control` names the server to compare with."""

    title: str
    control: str
    rounds: Mapping[str, Sequence[Figures]]

    def value(self, server: str, what: What) -> Spread:
        """Return a figure of a server over all rounds; unknown when it was not measured."""
        return spread(what(one) for one in self.rounds.get(server, ()))

    def busy(self, server: str) -> bool:
        """Say whether other work used too much of a server's core for its times to count."""
        return self.value(server, lambda one: one.others).median > BUSY

    def ratio(self, server: str, what: What, other: str = "") -> Spread:
        """Return the ratio of a figure to that of the control or `other`, round by round."""
        rounds, base = self.rounds.get(server), self.rounds.get(other or self.control)
        return ratios(rounds, base, what) if rounds and base else UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A whole run. `yardstick` is the digest of the control's code; `remarks` are for readers of the figures."""

    at: str
    yardstick: str
    machine: Mapping[str, str]
    effort: str
    workload: str
    remarks: Sequence[str]
    findings: Sequence[Finding]

    @property
    def others(self) -> Spread:
        """Return the share of the servers' core that others used, over all measurements."""
        return spread(figures.others for one in self.findings for rounds in one.rounds.values() for figures in rounds)

    def finding(self, title: str) -> Finding | None:
        """Return the measurement with a title, or None when it was not made."""
        return next((one for one in self.findings if one.title == title), None)


def written(result: Result) -> bytes:
    """Return a result as the content of a file."""
    content = {
        "format": _FORMAT,
        "at": result.at,
        "yardstick": result.yardstick,
        "machine": dict(result.machine),
        "effort": result.effort,
        "workload": result.workload,
        "remarks": list(result.remarks),
        "findings": [
            {
                "title": one.title,
                "control": one.control,
                "rounds": {name: [_plain(figures) for figures in listed] for name, listed in one.rounds.items()},
            }
            for one in result.findings
        ],
    }
    # One line per measurement: a change of one measurement is a change of one line.
    lines = ",\n".join(f"{json.dumps(name)}: {_lines(value)}" for name, value in content.items())
    return f"{{\n{lines}\n}}\n".encode()


def _lines(value: object) -> str:
    if isinstance(value, list):
        return "[\n" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in value) + "\n]"
    return json.dumps(value, ensure_ascii=False)


def read_result(file: Path) -> Result:
    """Return the result in a file. Raise `ConfigurationError` when it holds none."""
    try:
        content = json.loads(file.read_bytes())
        if content["format"] != _FORMAT:
            raise ConfigurationError(f"`{file}` has format `{content['format']}`, and this version reads `{_FORMAT}`")
        return Result(
            at=content["at"],
            yardstick=content["yardstick"],
            machine=content["machine"],
            effort=content["effort"],
            workload=content["workload"],
            remarks=content["remarks"],
            findings=[
                Finding(
                    title=one["title"],
                    control=one["control"],
                    rounds={name: [_figures(row) for row in listed] for name, listed in one["rounds"].items()},
                )
                for one in content["findings"]
            ],
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"`{file}` is not a result of `pdp bench --json`") from None


def _plain(figures: Figures) -> dict[str, Any]:
    # JSON has no NaN: unknown values are left out.
    known = {name: round(getattr(figures, name), 4) for name in _KNOWN if not math.isnan(getattr(figures, name))}
    again = {"again": figures.again} if figures.again else {}
    return {**known, **again, "latencies": [round(one, 4) for one in figures.latencies]}


def _figures(row: Mapping[str, Any]) -> Figures:
    return Figures(**{**row, "latencies": tuple(row["latencies"])})
