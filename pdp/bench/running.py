"""A whole run: start everything, measure the servers in turns, end everything."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from pdp.bench.doors import envoy_door
from pdp.bench.exchanges import exchanging, size_of
from pdp.bench.failure import WrongAnswerError
from pdp.bench.figures import Figures, milliseconds
from pdp.bench.frameload import frame_load
from pdp.bench.inprocess import InProcess, Order, deciding
from pdp.bench.load import Ask, Sample, closed_loop, median_late, open_loop
from pdp.bench.machine import control_digest, machine
from pdp.bench.plan import (
    BARE,
    CONTROL,
    DOOR,
    FULL,
    FULL_LOOP,
    LOOP,
    LOOP_TLS,
    OBSERVED,
    RECORDED,
    Effort,
    Measurement,
    Shape,
)
from pdp.bench.processes import core_seconds, cores, on_core
from pdp.bench.questions import Workload
from pdp.bench.receiver import receiving
from pdp.bench.results import Finding, Result
from pdp.bench.servers import Target, bare_server, empty_handler, pdp_server
from pdp.testing.inprocess import write_folder

# Decisions a second in process, roughly: to compute how many fill the requested time.
_HITS_A_SECOND, _MISSES_A_SECOND = 10_000, 2_000
# More would overflow the queues of telemetry, and a dropped item costs nothing.
_MOST_DECISIONS = 10_000
_WARMING_SECONDS = 0.1
# How far the share of remembered answers may differ from the intended one.
_MIX_TOLERANCE = 0.05

_WAYS = (LOOP, BARE, OBSERVED)

Progress = Callable[[str, int, int], None]
Starting = Callable[[Path, int | None], AbstractContextManager[Target]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of a run.

    `setups` names the servers besides the control. `others` run further ones, each in a folder and on a core.
    """

    measurements: Sequence[Measurement]
    effort: Effort
    workload: Workload
    setups: Sequence[str] = (BARE, RECORDED, FULL)
    others: Sequence[Starting] = ()


Measuring = Callable[[Plan, Progress], Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resources:
    folder: Path
    endpoint: str
    server_core: int | None
    load_core: int | None


def run(plan: Plan, progress: Progress) -> Result:
    """Measure everything, and return the result.

    `progress` is called with the last measurement's name, how many are over and how many there are. Raise
    `WrongAnswerError` at the first wrong answer.
    """
    server_core, load_core = cores()
    with TemporaryDirectory(prefix="pdp-bench-") as folder, ExitStack() as opened:
        opened.enter_context(on_core(load_core))
        write_folder(Path(folder) / "policies", plan.workload.files)
        resources = _Resources(
            folder=Path(folder),
            endpoint=opened.enter_context(receiving("take")),
            server_core=server_core,
            load_core=load_core,
        )
        bench = _Bench(plan, resources, opened)
        findings = bench.measure(progress)
    return Result(
        at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        yardstick=control_digest(),
        machine=machine(),
        effort=f"{plan.effort.rounds} rounds, {plan.effort.seconds:g} s for each measurement",
        workload=plan.workload.name,
        remarks=[_placement(resources)],
        findings=findings,
    )


class _Bench:
    """All servers and processes of a run."""

    def __init__(self, plan: Plan, resources: _Resources, opened: ExitStack) -> None:
        self._plan = plan
        shapes = {one.shape for one in plan.measurements}
        self._targets: list[Target] = []
        if shapes - {Shape.IN_PROCESS}:
            self._targets += [opened.enter_context(one) for one in _servers(plan, resources)]
        self._inside: InProcess | None = None
        if Shape.IN_PROCESS in shapes:
            scratch = resources.folder / "in-process"
            scratch.mkdir()
            self._inside = opened.enter_context(
                deciding(
                    plan.workload, resources.folder / "policies", scratch, resources.endpoint, resources.server_core
                )
            )

    def measure(self, progress: Progress) -> list[Finding]:
        """Make all measurements in each round, after a warm-up round that does not count."""
        effort, listed = self._plan.effort, self._plan.measurements
        rounds: list[dict[str, list[Figures]]] = [{} for _ in listed]
        total = len(listed) * (effort.rounds + 1)
        for turn in range(effort.rounds + 1):
            for number, measurement in enumerate(listed):
                seconds = effort.seconds if turn else min(_WARMING_SECONDS, effort.seconds)
                for name, figures in self._take_turns(measurement, seconds, turn):
                    if turn:
                        rounds[number].setdefault(name, []).append(figures)
                progress(measurement.title, turn * len(listed) + number + 1, total)
        return [
            Finding(
                title=one.title,
                control=LOOP if one.shape is Shape.IN_PROCESS else CONTROL,
                rounds={name: found[name] for name in self._names(one) if name in found},
            )
            for one, found in zip(listed, rounds, strict=True)
        ]

    def _names(self, measurement: Measurement) -> Sequence[str]:
        return _WAYS if measurement.shape is Shape.IN_PROCESS else [target.name for target in self._targets]

    def _take_turns(self, measurement: Measurement, seconds: float, turn: int) -> Iterator[tuple[str, Figures]]:
        if measurement.shape is Shape.IN_PROCESS:
            yield from self._decide(measurement, seconds)
            return
        # A server must not always follow the same heavy one: each round begins with another.
        first = turn % len(self._targets)
        for target in (*self._targets[first:], *self._targets[:first]):
            if target.dialect.path(measurement.shape) is not None:
                with _named(target.name, measurement):
                    yield target.name, measured(target, measurement, self._plan.workload, seconds)

    def _decide(self, measurement: Measurement, seconds: float) -> Iterator[tuple[str, Figures]]:
        if self._inside is None:
            raise AssertionError("the process runs when it is asked for")
        misses = measurement.misses or 0.0
        many = seconds / ((1 - misses) / _HITS_A_SECOND + misses / _MISSES_A_SECOND)
        decisions = max(1, min(_MOST_DECISIONS, round(many)))
        for way in _WAYS:
            with _named(way, measurement):
                cost = self._inside.measure(Order(way=way, misses=misses, decisions=decisions))
            yield way, Figures(cpu=cost)


def _servers(plan: Plan, resources: _Resources) -> Iterator[AbstractContextManager[Target]]:
    workload, core = plan.workload, resources.server_core
    yield empty_handler(workload, core)
    if BARE in plan.setups:
        yield bare_server(workload, resources.folder, core)
    if RECORDED in plan.setups:
        yield pdp_server(RECORDED, workload, resources.folder, core, {"OTEL_SDK_DISABLED": "true"})
    everything = {"OTEL_EXPORTER_OTLP_ENDPOINT": resources.endpoint}
    for setup, listener in ((FULL, "grpc"), (FULL_LOOP, "loop"), (LOOP_TLS, "loop")):
        if setup in plan.setups:
            tls = setup == LOOP_TLS
            yield pdp_server(setup, workload, resources.folder, core, everything, listener=listener, tls=tls)
    if DOOR in plan.setups:
        yield envoy_door(workload, resources.folder, core, everything)
    yield from (start(resources.folder, core) for start in plan.others)


def measured(target: Target, measurement: Measurement, workload: Workload, seconds: float) -> Figures:
    """Return the figures of one server, asked in one way.

    Raise `WrongAnswerError`, also when the mix is not the intended one.
    """
    ask = _asked_by_frames if measurement.shape is Shape.FRAMES else _asked_by_grpc
    with _hinted(measurement):
        sample, spent = ask(target, measurement, workload, seconds)
    share, meant = sample.remembered / sample.checked, 1 - sample.fresh / sample.checked
    if target.dialect.cached and measurement.misses is not None and abs(share - meant) > _MIX_TOLERANCE:
        raise WrongAnswerError(f"{meant:.0%} of the answers should have been remembered ones, and {share:.0%} were")
    return Figures(
        cpu=spent.server / sample.decisions * 1e6,
        rate=sample.decisions / sample.elapsed,
        latencies=milliseconds(sample.took),
        remembered=share if target.dialect.cached else math.nan,
        late=median_late(sample),
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


def _asked_by_grpc(
    target: Target, measurement: Measurement, workload: Workload, seconds: float
) -> tuple[Sample, _Spent]:
    async def asked() -> tuple[Sample, _Spent]:
        async with exchanging(target.address, target.dialect, measurement, workload) as ask:
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


@contextmanager
def _named(server: str, measurement: Measurement) -> Iterator[None]:
    try:
        yield
    except WrongAnswerError as error:
        raise WrongAnswerError(f"{server}, {measurement.title}: {error}") from None


def _placement(resources: _Resources) -> str:
    if resources.server_core is None:
        return "processes cannot be pinned to cores here: server and load may disturb each other"
    if resources.server_core == resources.load_core:
        return "there is one core: server and load share it, and latencies include both"
    return f"servers on core {resources.server_core}, load and receiver of telemetry on core {resources.load_core}"
