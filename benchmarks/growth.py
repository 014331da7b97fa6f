"""Measure the CPU of a decision as what surrounds it grows: `python -m benchmarks.growth`.

Along each axis one thing grows, and all its sizes take turns within each round: policies and tools in process, tracing
and record off, with sessions in memory; sessions in process, in a store of SQLite; callers served, with everything on.
Every answer is checked. A result is a file in the form of `pdp bench --json`, which `benchmarks.growthview` draws.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from benchmarks import workers
from benchmarks.growthbundle import growth_files
from benchmarks.growthview import AXES, Axis, draw_growth, growth_tables
from benchmarks.sessions import Deployment
from pdp.app.embedded import Embedded, open_embedded
from pdp.bench.byclient import by_client
from pdp.bench.figures import Figures
from pdp.bench.load import closed_loop
from pdp.bench.machine import control_digest, machine
from pdp.bench.plan import Measurement, Shape
from pdp.bench.processes import cores
from pdp.bench.questions import Asker, Workload, generated_workload
from pdp.bench.receiver import receiving
from pdp.bench.results import Finding, Result, written
from pdp.bench.servers import Target, pdp_server
from pdp.bench.sessions import PEP, open_sessions
from pdp.model import Call, CallRequest
from pdp.testing.bundles import compile_here
from pdp.testing.inprocess import write_folder

# Sessions that are called in one round: more would measure how entities are parsed, which is kept for 4,096.
_CALLED = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """The length of a run: how many rounds, calls in process of a kind, and seconds of a served measurement."""

    rounds: int = 7
    calls: int = 3_000
    seconds: float = 1.0


# µs of CPU for a decision, by the name of the line in the picture. Each call of it is a round.
Point = Callable[[], Mapping[str, float]]
Opening = Callable[[Axis, Effort, Path, ExitStack], Mapping[int, Point]]


def main() -> int:
    """Measure, print the tables, and write what is asked for."""
    usual = Effort()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axis", action="append", choices=[axis.name for axis in AXES], help="what grows; all of it")
    parser.add_argument("--most", type=int, help="leave out larger sizes, to see that it works")
    parser.add_argument("--rounds", type=int, default=usual.rounds, help="how often each is repeated, in turns")
    parser.add_argument("--calls", type=int, default=usual.calls, help="calls of a measurement in process")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="length of a served measurement")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--pictures", type=Path, help="draw it in this folder")
    chosen = parser.parse_args()
    axes = [axis.up_to(chosen.most) for axis in AXES if axis.name in (chosen.axis or [axis.name])]
    result = measure(axes, Effort(rounds=chosen.rounds, calls=chosen.calls, seconds=chosen.seconds))
    print("\n".join(growth_tables(result)))
    if chosen.json:
        chosen.json.write_bytes(written(result))
    if chosen.pictures:
        draw_growth(result, chosen.pictures)
    return 0


def measure(axes: Sequence[Axis], effort: Effort) -> Result:
    """Measure along some axes, one after another, and return the result."""
    findings: list[Finding] = []
    for axis in axes:
        with TemporaryDirectory(prefix="pdp-bench-") as folder, ExitStack() as opened:
            points = _OPENINGS[axis.name](axis, effort, Path(folder), opened)
            rounds: dict[int, dict[str, list[Figures]]] = {size: {} for size in points}
            # The first round warms up and does not count.
            for turn in range(effort.rounds + 1):
                for size, point in points.items():
                    for line, cost in point().items():
                        if turn:
                            rounds[size].setdefault(line, []).append(Figures(cpu=cost))
        findings += [
            Finding(title=axis.title(size), control=axis.lines[0], rounds=found) for size, found in rounds.items()
        ]
    return Result(
        at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        yardstick=control_digest(),
        machine=machine(),
        effort=f"{effort.rounds} rounds, {effort.calls} calls or {effort.seconds:g} s for each measurement",
        workload="generated",
        remarks=[],
        findings=findings,
    )


def _policies(axis: Axis, effort: Effort, folder: Path, opened: ExitStack) -> Mapping[int, Point]:
    # As many tools as give each of the others twenty policies.
    return {size: _in_memory(size, max(5, size // 20), effort, folder / str(size), opened) for size in axis.sizes}


def _tools(axis: Axis, effort: Effort, folder: Path, opened: ExitStack) -> Mapping[int, Point]:
    # One policy about each tool beside the ten of the tool that is called.
    return {size: _in_memory(9 + size, size, effort, folder / str(size), opened) for size in axis.sizes}


def _in_memory(policies: int, tools: int, effort: Effort, folder: Path, opened: ExitStack) -> Point:
    write_folder(folder, growth_files(policies, tools))
    pdp = opened.enter_context(closing(open_embedded(folder, compile_files=compile_here)))
    handles = open_sessions(pdp, [Asker(user="alice", agent="worker")], ("s0/*",))
    fresh = map(str, count())
    return lambda: _hits_and_misses(_Asking(pdp, "s0", "t0", "path"), handles, fresh, effort)


def _sessions(axis: Axis, effort: Effort, folder: Path, opened: ExitStack) -> Mapping[int, Point]:
    return {size: _in_store(size, effort, folder / str(size), opened) for size in axis.sizes}


def _in_store(size: int, effort: Effort, folder: Path, opened: ExitStack) -> Point:
    deployment = Deployment(folder, size)
    pdp = opened.enter_context(deployment.embedded())
    random, fresh = Random(size), map(str, count())  # noqa: S311 - a load, not a secret

    def point() -> Mapping[str, float]:
        handles = random.sample(deployment.handles, min(_CALLED, size))
        return _hits_and_misses(_Asking(pdp, "bench", "read_item", "item"), handles, fresh, effort)

    return point


@dataclass(frozen=True, slots=True)
class _Asking:
    """Asks a PDP in this process about calls of one tool, each of which must be allowed."""

    pdp: Embedded
    server: str
    tool: str
    parameter: str

    def __call__(self, handle: str, value: str) -> None:
        arguments = b'{"%b": "%b"}' % (self.parameter.encode(), value.encode())
        call = Call(session_handle=handle, server=self.server, tool=self.tool, arguments_json=arguments)
        if not self.pdp.authorizer.authorize(CallRequest(call=call), PEP).allowed:
            raise SystemExit("an answer is wrong")


def _hits_and_misses(ask: _Asking, handles: Sequence[str], fresh: Iterator[str], effort: Effort) -> Mapping[str, float]:
    """Return the CPU of a remembered call and of a new one, of sessions that have called before."""
    # An answer gets a key of its own with its first repetition.
    for handle in (*handles, *handles):
        ask(handle, "same")
    called = [handles[number % len(handles)] for number in range(effort.calls)]
    return {
        "hit": _microseconds(ask, [(handle, "same") for handle in called]),
        "miss": _microseconds(ask, [(handle, next(fresh)) for handle in called]),
    }


def _microseconds(ask: _Asking, asked: Sequence[tuple[str, str]]) -> float:
    """Return the CPU time of one call; wall-clock time would include other processes."""
    started = time.thread_time()
    for handle, value in asked:
        ask(handle, value)
    return (time.thread_time() - started) / len(asked) * 1e6


def _callers(axis: Axis, effort: Effort, folder: Path, opened: ExitStack) -> Mapping[int, Point]:
    first, last = cores()
    if first is None or last is None or first == last:
        raise SystemExit("callers need two cores, and a system that pins processes to them")
    workload = generated_workload()
    write_folder(folder / "policies", workload.files)
    everything = {"OTEL_EXPORTER_OTLP_ENDPOINT": opened.enter_context(receiving("take"))}
    one = opened.enter_context(pdp_server("one", workload, folder, first, everything))
    # Several workers choose their cores themselves.
    two = opened.enter_context(pdp_server("two", workload, folder, None, everything, workers=2))

    def point(callers: int) -> Mapping[str, float]:
        # The load runs on the workers' cores, so that none of them has an advantage.
        workers.run_on({first})
        alone = asyncio.run(workers.measure(one, workload, callers, effort.seconds))
        together = asyncio.run(_together(one, workload, callers, effort.seconds))
        workers.run_on({first, last})
        both = asyncio.run(workers.measure(two, workload, callers, effort.seconds))
        return {"one worker": alone, "two workers": both, "one worker, asked together": together}

    return {size: lambda size=size: point(size) for size in axis.sizes}  # type: ignore[misc]  # mypy cannot infer it


async def _together(target: Target, workload: Workload, callers: int, seconds: float) -> float:
    """Return the CPU of a decision of a server whose callers share a client."""
    measurement = Measurement(shape=Shape.CLIENT_TOGETHER, concurrency=callers)
    async with by_client(target.address, target.dialect, measurement, workload) as ask:
        for _ in workload.repeated:
            await ask()
        before = workers.spent(target)
        sample = await closed_loop(ask, concurrency=callers, seconds=seconds)
        return (workers.spent(target) - before) / sample.decisions * 1e6


_OPENINGS: Mapping[str, Opening] = {
    "policies": _policies,
    "tools": _tools,
    "sessions": _sessions,
    "callers": _callers,
}


if __name__ == "__main__":
    raise SystemExit(main())
