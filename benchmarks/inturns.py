"""What a measurement in turns shows: its figures, and their ratios to a control, round by round."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import quantiles
from typing import Final

from pdp.bench.figures import Figures, What, cpu, p50, p99, rate

SHOWN: Final[Sequence[tuple[str, What]]] = (("CPU, µs", cpu), ("calls/s", rate), ("p50, ms", p50), ("p99, ms", p99))


def quartiles(measured: Sequence[Figures], control: Sequence[Figures], what: What) -> str:
    """Return the median of the ratios, and the other quartiles in brackets; of one round, its ratio alone."""
    ratios = [what(one) / what(other) for one, other in zip(measured, control, strict=True)]
    if len(ratios) == 1:
        return f"{ratios[0]:.3f}"
    low, middle, high = quantiles(ratios)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"
