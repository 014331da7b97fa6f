"""Measure this server beside a server that decides nothing and beside another decision point, in one run.

`run` measures, `aims` judges, `compare` tells what changed since another run.
"""

from pdp.bench.aims import Aim, aims
from pdp.bench.comparison import Change, Judged, compare
from pdp.bench.failure import WrongAnswerError
from pdp.bench.plan import Effort, Measurement, Shape, planned
from pdp.bench.results import Finding, Result, read_result, written
from pdp.bench.running import Wish, run

__all__ = [
    "Aim",
    "Change",
    "Effort",
    "Finding",
    "Judged",
    "Measurement",
    "Result",
    "Shape",
    "Wish",
    "WrongAnswerError",
    "aims",
    "compare",
    "planned",
    "read_result",
    "run",
    "written",
]
