"""Measure CPU per decision of two workers beside one: `python -m benchmarks.workers`.

Closed loop, unary, hits, record and spans on, over several connections. CPU is that of all processes of a server, the
parent included, from the kernel. The servers take turns within each round, and each ratio is of one round.

The load runs on the cores of the workers, each of which it then shares with one: a core that is shared makes everything
on it cost more, and the one worker must not have an easier time than the two. So throughput says nothing here.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc

from pdp.bench.exchanges import Asked, supplied
from pdp.bench.plan import ALL_HITS, Shape
from pdp.bench.processes import cores, cpu_seconds
from pdp.bench.questions import Workload, generated_workload
from pdp.bench.servers import Target, pdp_server
from pdp.testing.inprocess import write_folder

_CONNECTIONS = 16
_CONCURRENCIES = (4, 16)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.5, help="how long one measurement lasts")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is repeated, in turns")
    chosen = parser.parse_args()
    workload = generated_workload()
    first, last = cores()
    if first is None or last is None or first == last:
        raise SystemExit("this needs two cores, and a system that pins processes to them")
    print("| at a time for each worker | CPU µs, 1 worker | 2 workers | ratio, median | least | most |")
    print("|---" * 6 + "|")
    with tempfile.TemporaryDirectory(prefix="pdp-bench-") as name, ExitStack() as running:
        folder = Path(name)
        write_folder(folder / "policies", workload.files)
        one = running.enter_context(pdp_server("one", workload, folder, first, {}))
        # Several workers choose their cores themselves.
        two = running.enter_context(pdp_server("two", workload, folder, None, {}, workers=2))
        servers = (one, {first}, 1), (two, {first, last}, 2)
        for many in _CONCURRENCIES:
            rounds = []
            for _ in range(chosen.rounds):
                found = []
                for target, shared, workers in servers:
                    run_on(shared)
                    found.append(asyncio.run(measure(target, workload, many * workers, chosen.seconds)))
                rounds.append(found)
            _print_row(many, rounds)
    return 0


def run_on(shared: set[int]) -> None:
    """Run all threads of this process on these cores."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), shared)


async def measure(target: Target, workload: Workload, many: int, seconds: float) -> float:
    """Ask a server `many` questions at a time, over several connections; return µs of its CPU for each decision."""
    own = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(target.address, options=own) for _ in range(_CONNECTIONS)]
    supply = supplied(workload, ALL_HITS, lambda asked: target.dialect.encode(Shape.UNARY, asked), size=1)
    # Connections are open, and caches are warm.
    await asyncio.gather(*(_ask(channel, target, supply, 0.0, len(workload.repeated)) for channel in channels))
    before, end = spent(target), time.perf_counter() + seconds
    asking = (_ask(channels[one % _CONNECTIONS], target, supply, end) for one in range(many))
    asked = sum(await asyncio.gather(*asking))
    took = spent(target) - before
    for channel in channels:
        await channel.close()
    return took * 1e6 / asked


async def _ask(channel: grpc.aio.Channel, target: Target, supply: Iterator[Asked], end: float, least: int = 0) -> int:
    """Ask until `end`, and at least `least` times; return the number."""
    call, done = channel.unary_unary(target.dialect.path(Shape.UNARY)), 0
    while done < least or time.perf_counter() < end:
        asked = next(supply)
        answer = await call(asked.wire, metadata=target.dialect.metadata, timeout=30)
        target.dialect.check(Shape.UNARY, answer, asked.questions)
        done += 1
    return done


def spent(target: Target) -> float:
    """Return the seconds of CPU of a server's process and of its workers so far."""
    return sum(map(cpu_seconds, processes(target.pid or 0)))


def processes(parent: int) -> list[int]:
    """Return a server's process and those of its workers."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii")
    return [parent, *map(int, children.split())]


def _print_row(many: int, rounds: list[list[float]]) -> None:
    ratios = [two / one for one, two in rounds]
    one, two = (statistics.median(found[index] for found in rounds) for index in (0, 1))
    print(
        f"| {many} | {one:.0f} | {two:.0f} | {statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
