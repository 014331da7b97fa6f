"""Measure goodput at the peak's concurrency and at five times it, closed loop: `python -m benchmarks.overload`.

With the default bound on concurrent calls nothing is refused; with a low one most are, and ask again after a pause.
Every fourth call is one that must be denied; every answer is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from pdp.bench.exchanges import Asked, supplied
from pdp.bench.failure import WrongAnswerError
from pdp.bench.plan import ALL_HITS, Shape
from pdp.bench.processes import cores, on_core
from pdp.bench.questions import Workload, generated_workload
from pdp.bench.servers import Target, pdp_server
from pdp.testing.inprocess import write_folder

_PEAK, _TIMES, _CONNECTIONS = 16, 5, 4
_PAUSE_SECONDS = 0.1
_BOUNDS = ("512", "32")


@dataclass(slots=True)
class Found:
    """The results of the calls: right answers, wrong or missing ones, and refusals."""

    good: int = 0
    wrong: int = 0
    refused: int = 0


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.5, help="how long one measurement lasts")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is repeated, in turns")
    chosen = parser.parse_args()
    server_core, load_core = cores()
    workload = generated_workload()
    print("| bound | right answers/s at 16 | at 80 | ratio, median | least | refused | wrong |\n" + "|---" * 7 + "|")
    with tempfile.TemporaryDirectory(prefix="pdp-bench-") as folder, on_core(load_core):
        write_folder(Path(folder) / "policies", workload.files)
        for bound in _BOUNDS:
            settings = {"OTEL_SDK_DISABLED": "true", "PDP_LIMITS__CONCURRENT_CALLS": bound}
            with pdp_server(f"bound {bound}", workload, Path(folder), server_core, settings) as target:
                rounds = [_round(target, workload, chosen.seconds) for _ in range(chosen.rounds)]
            _print_row(bound, rounds, chosen.seconds)
    return 0


def _round(target: Target, workload: Workload, seconds: float) -> tuple[Found, Found]:
    peak = asyncio.run(_measure(target, workload, _PEAK, seconds))
    return peak, asyncio.run(_measure(target, workload, _PEAK * _TIMES, seconds))


async def _measure(target: Target, workload: Workload, concurrency: int, seconds: float) -> Found:
    own = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(target.address, options=own) for _ in range(_CONNECTIONS)]
    supply = supplied(workload, ALL_HITS, lambda asked: target.dialect.encode(Shape.UNARY, asked), size=1)
    found, end = Found(), time.perf_counter() + seconds
    await asyncio.gather(
        *(_ask(channels[number % _CONNECTIONS], target, supply, end, found) for number in range(concurrency))
    )
    for channel in channels:
        await channel.close()
    return found


async def _ask(channel: grpc.aio.Channel, target: Target, supply: Iterator[Asked], end: float, found: Found) -> None:
    call = channel.unary_unary(target.dialect.path(Shape.UNARY))
    while time.perf_counter() < end:
        asked = next(supply)
        try:
            answer = await call(asked.wire, metadata=target.dialect.metadata, timeout=5)
            target.dialect.check(Shape.UNARY, answer, asked.questions)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                found.wrong += 1
                continue
            found.refused += 1
            await asyncio.sleep(_PAUSE_SECONDS)
        except WrongAnswerError:
            found.wrong += 1
        else:
            found.good += 1


def _print_row(bound: str, rounds: list[tuple[Found, Found]], seconds: float) -> None:
    peak, over = (statistics.median(one[index].good for one in rounds) / seconds for index in (0, 1))
    ratios = [over.good / peak.good for peak, over in rounds]
    refused, wrong = (sum(getattr(found, what) for one in rounds for found in one) for what in ("refused", "wrong"))
    print(
        f"| {bound} | {peak:.0f} | {over:.0f} | {statistics.median(ratios):.2f} | {min(ratios):.2f} "
        f"| {refused} | {wrong} |"
    )


if __name__ == "__main__":
    sys.exit(main())
