"""Measure callers that ask together beside the same callers each by itself, in turns: `python -m benchmarks.together`.

With `--far 5`, client and server are 5 ms apart, by a proxy; the figures are those of tasks that share a client.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.inturns import SHOWN, quartiles
from pdp.bench.figures import Figures
from pdp.bench.measuring import measured
from pdp.bench.plan import Measurement, Shape
from pdp.bench.processes import cores, listening, on_core, running
from pdp.bench.questions import generated_workload
from pdp.bench.receiver import receiving
from pdp.bench.servers import pdp_server
from pdp.testing.inprocess import write_folder


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--far", type=float, default=0.0, metavar="MS", help="how much longer an answer takes")
    parser.add_argument("--callers", type=int, action="append", help="how many at a time; by default 1, 4, 16 and 64")
    parser.add_argument("--listener", choices=("loop", "grpc"), default="loop", help="of the server")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured, in turns")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long one measurement lasts")
    chosen = parser.parse_args()
    workload, callers = generated_workload(), chosen.callers or [1, 4, 16, 64]
    server_core, load_core = cores()
    found: dict[tuple[int, Shape], list[Figures]] = {}
    with ExitStack() as opened, TemporaryDirectory(prefix="pdp-bench-") as folder:
        opened.enter_context(on_core(load_core))
        write_folder(Path(folder) / "policies", workload.files)
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": opened.enter_context(receiving("take"))}
        option = f"--server-listener={chosen.listener}"
        near = opened.enter_context(pdp_server("pdp", workload, Path(folder), server_core, environment, option))
        target = replace(near, address=opened.enter_context(_far(near.address, chosen.far / 1000, server_core)))
        # The first round warms up.
        for turn in range(chosen.rounds + 1):
            shapes = (Shape.CLIENT_ALONE, Shape.CLIENT_TOGETHER)
            for many in callers:
                for shape in shapes if turn % 2 else reversed(shapes):
                    one = measured(target, Measurement(shape=shape, concurrency=many), workload, chosen.seconds)
                    if turn:
                        found.setdefault((many, shape), []).append(one)
            print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    _print_table(callers, found)
    return 0


@contextmanager
def _far(address: str, seconds: float, core: int | None) -> Iterator[str]:
    """Yield the address of a proxy through which answers take longer; without seconds, that of the server."""
    if not seconds:
        yield address
        return
    port = address.rpartition(":")[2]
    program = Path(__file__).with_name("farproxy.py")
    with running([sys.executable, str(program), port, str(seconds)], core=core) as process:
        yield listening(process, "the proxy")


def _print_table(callers: Sequence[int], found: dict[tuple[int, Shape], list[Figures]]) -> None:
    print("| callers | figure | each by itself | together | ratio: quartiles |")
    print("|---|---|---|---|---|")
    for many in callers:
        alone, together = (found[many, shape] for shape in (Shape.CLIENT_ALONE, Shape.CLIENT_TOGETHER))
        for name, what in SHOWN:
            print(
                f"| {many} | {name} | {median(map(what, alone)):.3g} | {median(map(what, together)):.3g} "
                f"| {quartiles(together, alone, what)} |"
            )


if __name__ == "__main__":
    sys.exit(main())
