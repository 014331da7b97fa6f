"""A whole run: start everything, measure the servers in turns, end everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from pdp.bench.brokering import brokers
from pdp.bench.doors import envoy_door
from pdp.bench.failure import WrongAnswerError
from pdp.bench.figures import Figures
from pdp.bench.inprocess import InProcess, Order, deciding
from pdp.bench.machine import control_digest, machine
from pdp.bench.mcpdoor import mcp_door, tool_server
from pdp.bench.measuring import measured
from pdp.bench.plan import (
    BARE,
    DOOR,
    FULL,
    FULL_LOOP,
    LOOP,
    LOOP_TLS,
    OBSERVED,
    RECORDED,
    SETUP_OF,
    Effort,
    Measurement,
    Shape,
)
from pdp.bench.processes import cores, on_core
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
_WAYS = (LOOP, BARE, OBSERVED)

Progress = Callable[[str, int, int], None]
Starting = Callable[[Path, int | None], AbstractContextManager[Target]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of a run.

    `setups` names the servers besides the controls. `others` run further ones, each in a folder and on a core.
    """

    measurements: Sequence[Measurement]
    effort: Effort
    workload: Workload
    setups: Sequence[str] = (BARE, RECORDED, FULL)
    others: Sequence[Starting] = ()

    @property
    def possible(self) -> Sequence[Measurement]:
        """Return the measurements but those that ask a setup alone that is not there."""
        return [one for one in self.measurements if SETUP_OF.get(one.shape) in {None, *self.setups}]

    @property
    def shapes(self) -> frozenset[Shape]:
        """Return the shapes of what is measured."""
        return frozenset(one.shape for one in self.possible)


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
        self._targets = [*_started(plan, resources, opened)]
        self._inside: InProcess | None = None
        if Shape.IN_PROCESS in plan.shapes:
            scratch = resources.folder / "in-process"
            scratch.mkdir()
            self._inside = opened.enter_context(
                deciding(
                    plan.workload, resources.folder / "policies", scratch, resources.endpoint, resources.server_core
                )
            )

    def measure(self, progress: Progress) -> list[Finding]:
        """Make all measurements in each round, after a warm-up round that does not count."""
        effort, listed = self._plan.effort, self._plan.possible
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
                control=one.control,
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
        asked = [target for target in self._targets if target.dialect.path(measurement.shape) is not None]
        # A server must not always follow the same heavy one: each round begins with another.
        first = turn % len(asked)
        for target in (*asked[first:], *asked[:first]):
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


def _started(plan: Plan, resources: _Resources, opened: ExitStack) -> Iterator[Target]:
    """Start the servers that are asked, and yield them."""
    workload, folder, core, start = plan.workload, resources.folder, resources.server_core, opened.enter_context
    everything = {"OTEL_EXPORTER_OTLP_ENDPOINT": resources.endpoint}
    if plan.shapes - {Shape.IN_PROCESS, *SETUP_OF}:
        yield start(empty_handler(workload, core))
        if BARE in plan.setups:
            yield start(bare_server(workload, folder, core))
        if RECORDED in plan.setups:
            yield start(pdp_server(RECORDED, workload, folder, core, {"OTEL_SDK_DISABLED": "true"}))
        for setup, listener in ((FULL, "grpc"), (FULL_LOOP, "loop"), (LOOP_TLS, "loop")):
            if setup in plan.setups:
                options, tls = f"--server-listener={listener}", setup == LOOP_TLS
                yield start(pdp_server(setup, workload, folder, core, everything, options, tls=tls))
        if DOOR in plan.setups:
            yield start(envoy_door(workload, folder, core, everything))
        yield from (start(other(folder, core)) for other in plan.others)
    if Shape.MCP in plan.shapes:
        yield start(tool_server(workload, folder, core))
        yield start(mcp_door(workload, folder, core, everything))
    if Shape.BROKERED in plan.shapes:
        yield from start(brokers(folder, core, everything))


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
