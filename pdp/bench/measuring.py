"""One measurement of one server: its loop, the CPU that it took, and the figures."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pdp.bench.brokered import brokered_calls
from pdp.bench.byclient import by_client
from pdp.bench.exchanges import exchanging, size_of
from pdp.bench.failure import WrongAnswerError
from pdp.bench.figures import Figures, milliseconds
from pdp.bench.frameload import frame_load
from pdp.bench.load import Ask, Sample, closed_loop, median_late, open_loop
from pdp.bench.overhttp import over_http
from pdp.bench.plan import Measurement, Shape
from pdp.bench.processes import core_seconds
from pdp.bench.questions import Workload
from pdp.bench.servers import Target

# How far the share of remembered answers may differ from the intended one.
_MIX_TOLERANCE = 0.05

# What opens connections and yields the function that asks; for all other shapes that is a client of gRPC.
_OPENED = {
    Shape.CLIENT_ALONE: by_client,
    Shape.CLIENT_TOGETHER: by_client,
    Shape.MCP: over_http,
    Shape.BROKERED: brokered_calls,
}


def measured(target: Target, measurement: Measurement, workload: Workload, seconds: float) -> Figures:
    """Return the figures of one server, asked in one way.

    Raise `WrongAnswerError`, also when the mix is not the intended one.
    """
    load = _asked_by_frames if measurement.shape is Shape.FRAMES else _asked_in_tasks
    with _hinted(measurement):
        sample, spent = load(target, measurement, workload, seconds)
    share, meant = sample.remembered / sample.checked, 1 - sample.fresh / sample.checked
    if target.dialect.cached and measurement.misses is not None and abs(share - meant) > _MIX_TOLERANCE:
        raise WrongAnswerError(f"{meant:.0%} of the answers should have been remembered ones, and {share:.0%} were")
    return Figures(
        cpu=spent.server / sample.decisions * 1e6,
        rate=sample.decisions / sample.elapsed,
        latencies=milliseconds(sample.took),
        remembered=share if target.dialect.cached else math.nan,
        late=median_late(sample),
        again=sample.again,
        load=spent.load / sample.decisions * 1e6,
        # The kernel counts a core's time in steps, so a short measurement can give more than the whole.
        others=min(1.0, max(0.0, spent.core - spent.server) / sample.elapsed),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spent:
    """Seconds of CPU: of the server, of its core, and of this process, which is the load."""

    server: float
    core: float
    load: float

    @classmethod
    def until_now(cls, target: Target) -> _Spent:
        return cls(server=target.cpu_seconds, core=core_seconds(target.core), load=time.process_time())

    def since(self, before: _Spent) -> _Spent:
        return _Spent(server=self.server - before.server, core=self.core - before.core, load=self.load - before.load)


def _asked_by_frames(
    target: Target, measurement: Measurement, workload: Workload, seconds: float
) -> tuple[Sample, _Spent]:
    with frame_load(target, measurement, workload, seconds) as load:
        load.ask_each(_once(measurement, workload))
        before = _Spent.until_now(target)
        return load.run(measurement, seconds), _Spent.until_now(target).since(before)


def _asked_in_tasks(
    target: Target, measurement: Measurement, workload: Workload, seconds: float
) -> tuple[Sample, _Spent]:
    async def asked() -> tuple[Sample, _Spent]:
        opened = _OPENED.get(measurement.shape, exchanging)
        async with opened(target.address, target.dialect, measurement, workload) as ask:
            for _ in range(_once(measurement, workload)):
                await ask()
            before = _Spent.until_now(target)
            return await _load(ask, measurement, seconds), _Spent.until_now(target).since(before)

    return asyncio.run(asked())


def _once(measurement: Measurement, workload: Workload) -> int:
    """Return how many messages ask every repeated question once, so that its answer is remembered.

    One, where the share of remembered answers is unknown, as it is for recorded calls.
    """
    return -(-len(workload.repeated) // size_of(measurement.shape)) if measurement.misses is not None else 1


async def _load(ask: Ask, measurement: Measurement, seconds: float) -> Sample:
    if measurement.rate is not None:
        return await open_loop(ask, rate=measurement.rate, seconds=seconds)
    return await closed_loop(ask, concurrency=measurement.concurrency, seconds=seconds)


@contextmanager
def _hinted(measurement: Measurement) -> Iterator[None]:
    """Raise the first error of a loop, with what to do about it where that is known."""
    try:
        yield
    except* WrongAnswerError as group:
        found: BaseException = group
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        hint = (
            "; if the machine cannot answer this many calls per second now, pass a lower `--rate`"
            if measurement.rate
            else ""
        )
        raise WrongAnswerError(f"{found}{hint}") from None
