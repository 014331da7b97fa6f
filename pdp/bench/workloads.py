"""Which workload a run has."""

from __future__ import annotations

from pdp.bench.questions import Workload, generated_workload


def open_workload(file: str) -> Workload:
    """Return the generated workload, or with a file the recorded one."""
    if file:
        raise NotImplementedError
    return generated_workload()
