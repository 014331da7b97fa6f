"""Measure this server beside a server that decides nothing, in one run.

`run` measures, `compare` reports changes since another run.
"""

from pdp.bench.comparison import Change, Judged, compare
from pdp.bench.failure import WrongAnswerError
from pdp.bench.plan import Effort, Measurement, Shape, planned
from pdp.bench.results import Finding, Result, read_result, written
from pdp.bench.running import Plan, run

__all__ = [
    "Change",
    "Effort",
    "Finding",
    "Judged",
    "Measurement",
    "Plan",
    "Result",
    "Shape",
    "WrongAnswerError",
    "compare",
    "planned",
    "read_result",
    "run",
    "written",
]
