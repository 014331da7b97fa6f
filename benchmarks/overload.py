"""Measure goodput at the peak's concurrency and at five times it, closed loop: `python -m benchmarks.overload`.

With the default bound on concurrent calls nothing is refused; with a low one most are, and ask again after a pause.
Every fourth call is one that must be denied; every answer is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.run import Target, pdp_server
from benchmarks.workload import request, write_bundle
from pdp.v1 import authorization_pb2, decision_pb2

_AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
_PEAK, _TIMES, _CONNECTIONS = 16, 5, 4
_UNKNOWN_HANDLE = "pdps_" + "x" * 43
_PAUSE_SECONDS = 0.1
_BOUNDS = ("512", "32")


@dataclass(slots=True)
class Found:
    """What became of the calls: right answers, wrong ones or none at all, refusals."""

    good: int = 0
    wrong: int = 0
    refused: int = 0


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.5, help="how long one measurement lasts")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is repeated, in turns")
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    print("| bound | right answers/s at 16 | at 80 | ratio, median | least | refused | wrong |\n" + "|---" * 7 + "|")
    with tempfile.TemporaryDirectory(prefix="pdp-bench-") as folder:
        write_bundle(Path(folder) / "policies")
        for bound in _BOUNDS:
            settings = {"OTEL_SDK_DISABLED": "true", "PDP_LIMITS__CONCURRENT_CALLS": bound}
            with pdp_server(f"bound {bound}", Path(folder), settings, cores[0]) as target:
                rounds = [_round(target, chosen.seconds) for _ in range(chosen.rounds)]
            _print_row(bound, rounds, chosen.seconds)
    return 0


def _round(target: Target, seconds: float) -> tuple[Found, Found]:
    peak = asyncio.run(_measure(target, _PEAK, seconds))
    return peak, asyncio.run(_measure(target, _PEAK * _TIMES, seconds))


async def _measure(target: Target, concurrency: int, seconds: float) -> Found:
    own = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(target.address, options=own) for _ in range(_CONNECTIONS)]
    found, end = Found(), time.perf_counter() + seconds
    await asyncio.gather(
        *(_ask(channels[number % _CONNECTIONS], target, number, end, found) for number in range(concurrency))
    )
    for channel in channels:
        await channel.close()
    return found


async def _ask(channel: grpc.aio.Channel, target: Target, number: int, end: float, found: Found) -> None:
    allowed = request(target.handle, "same").SerializeToString(), decision_pb2.OUTCOME_ALLOW
    denied = request(_UNKNOWN_HANDLE, "same").SerializeToString(), decision_pb2.OUTCOME_DENY
    call, metadata = channel.unary_unary(_AUTHORIZE), (("authorization", f"Bearer {target.token}"),)
    while time.perf_counter() < end:
        number += 1
        wire, expected = allowed if number % 4 else denied
        try:
            answer = authorization_pb2.AuthorizeResponse.FromString(await call(wire, metadata=metadata, timeout=5))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                found.wrong += 1
                continue
            found.refused += 1
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            right = answer.decision.outcome == expected
            found.good, found.wrong = found.good + right, found.wrong + (not right)


def _print_row(bound: str, rounds: list[tuple[Found, Found]], seconds: float) -> None:
    peak, over = (statistics.median(one[place].good for one in rounds) / seconds for place in (0, 1))
    ratios = [over.good / peak.good for peak, over in rounds]
    refused, wrong = (sum(getattr(found, what) for one in rounds for found in one) for what in ("refused", "wrong"))
    print(
        f"| {bound} | {peak:.0f} | {over:.0f} | {statistics.median(ratios):.2f} | {min(ratios):.2f} "
        f"| {refused} | {wrong} |"
    )


if __name__ == "__main__":
    sys.exit(main())
