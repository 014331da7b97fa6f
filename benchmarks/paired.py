"""Measure this checkout beside another one, in turns: `python -m benchmarks.paired OTHER`.

OTHER is the folder of a checkout of the project, for example of the commit before a change. Both servers run with this
checkout's packages and everything on, on one core; the load is that of this checkout. The other one runs twice: how
much it differs from itself is what the measurement cannot tell.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.inturns import SHOWN, quartiles
from pdp.bench.figures import Figures
from pdp.bench.measuring import measured
from pdp.bench.plan import ALL_MISSES, Measurement, Shape
from pdp.bench.processes import cores, on_core
from pdp.bench.questions import generated_workload
from pdp.bench.receiver import receiving
from pdp.bench.servers import pdp_server
from pdp.testing.inprocess import write_folder

_OTHER, _THIS, _AGAIN = "the other", "this", "the other again"
_MEASUREMENTS: Final = {
    "16": Measurement(shape=Shape.FRAMES, concurrency=16),
    "apart": Measurement(shape=Shape.FRAMES, concurrency=16, connections=16),
    "1": Measurement(shape=Shape.FRAMES, concurrency=1),
    "misses": Measurement(shape=Shape.FRAMES, concurrency=16, misses=ALL_MISSES),
    "schedule": Measurement(shape=Shape.FRAMES, rate=1000.0),
    **{f"together{many}": Measurement(shape=Shape.CLIENT_TOGETHER, concurrency=many) for many in (1, 4, 16, 64)},
}
_USUAL: Final = ("16", "1")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="the folder of the other checkout")
    parser.add_argument("--ask", action="append", choices=_MEASUREMENTS, help=f"in which way; by default {_USUAL}")
    parser.add_argument("--listener", choices=("loop", "grpc"), default="loop", help="of both servers")
    parser.add_argument("--rounds", type=int, default=20, help="how often each is measured, in turns")
    parser.add_argument("--seconds", type=float, default=0.3, help="how long one measurement lasts")
    chosen = parser.parse_args()
    if not (chosen.other / "pdp" / "cli").is_dir():
        parser.error(f"{chosen.other} is no checkout of the project")
    asked = [_MEASUREMENTS[name] for name in chosen.ask or _USUAL]
    found = _found(chosen.other.resolve(), asked, chosen.listener, chosen.rounds, chosen.seconds)
    _print_table(asked, found)
    return 0


def _found(
    other: Path, asked: Sequence[Measurement], listener: str, rounds: int, seconds: float
) -> list[dict[str, list[Figures]]]:
    """Return the figures of each measurement, by server."""
    found: list[dict[str, list[Figures]]] = [{name: [] for name in (_OTHER, _THIS, _AGAIN)} for _ in asked]
    workload = generated_workload()
    server_core, load_core = cores()
    with ExitStack() as opened, TemporaryDirectory(prefix="pdp-bench-") as folder:
        opened.enter_context(on_core(load_core))
        write_folder(Path(folder) / "policies", workload.files)
        endpoint = opened.enter_context(receiving("take"))
        targets = []
        for name, root in ((_OTHER, other), (_THIS, Path(__file__).parents[1]), (_AGAIN, other)):
            environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "PYTHONPATH": str(root)}
            option = f"--server-listener={listener}"
            server = pdp_server(name, workload, Path(folder), server_core, environment, option)
            targets.append(opened.enter_context(server))
        # The first round warms up.
        for turn in range(rounds + 1):
            first = turn % len(targets)
            for measurement, figures in zip(asked, found, strict=True):
                for target in (*targets[first:], *targets[:first]):
                    one = measured(target, measurement, workload, seconds)
                    if turn:
                        figures[target.name].append(one)
            print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    return found


def _print_table(asked: Sequence[Measurement], found: Sequence[dict[str, list[Figures]]]) -> None:
    print("| | figure | the other | this | this to the other: quartiles | the other again to itself |")
    print("|---|---|---|---|---|---|")
    for measurement, figures in zip(asked, found, strict=True):
        other, this, again = (figures[name] for name in (_OTHER, _THIS, _AGAIN))
        for name, what in SHOWN:
            print(
                f"| {measurement.title} | {name} | {median(map(what, other)):.3g} | {median(map(what, this)):.3g} "
                f"| {quartiles(this, other, what)} | {quartiles(again, other, what)} |"
            )


if __name__ == "__main__":
    sys.exit(main())
