"""Run the server for long at half its peak, with everything on: `python -m benchmarks.soak`.

A real server process with the record, and telemetry to a real receiver. Meanwhile sessions are opened, approved, ended
and revoked, the bundle is reloaded, sessions that are over leave the store. Every answer is checked. Memory, file
descriptors, threads and the store are looked at each second; what they did after the first third is judged, by a line
through the readings: flat is less than three per cent up in that time. Exit code 1 when an answer was wrong or
something grew. The load runs on another core and gives way to others.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from array import array
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from benchmarks.soakworld import FORBIDDEN, KEPT_SECONDS, SERVER, TOO_BUSY, TOOL, Keeper, Known, World, write
from pdp.bench.processes import cores, on_core
from pdp.bench.receiver import receiving
from pdp.bench.servers import serving
from pdp.v1 import authorization_pb2, decision_pb2

_PATH = "/pdp.v1.AuthorizationService/Authorize"
_PEAK_SECONDS = 4.0
_AT_ONCE, _CONNECTIONS = 16, 4
_MOST_AT_ONCE = 256
# Below this, caches still fill: growth is not judged.
_JUDGED_SECONDS = 600.0
_GROWTH = 0.03
# One thread more or less is no growth.
_LEAST = 1.5
_QUANTILES = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))


@dataclass(slots=True)
class Tally:
    """The results of the calls, and the duration of each, in seconds."""

    answers: Counter[str] = field(default_factory=Counter)
    took: array[float] = field(default_factory=lambda: array("d"))
    wrong: list[str] = field(default_factory=list)


class Load:
    """Asks about calls of live sessions, and of some closed ones."""

    def __init__(self, address: str, token: str, world: World) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        self._channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(_CONNECTIONS)]
        self._calls = [channel.unary_unary(_PATH) for channel in self._channels]
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._world = world
        self._random = random.Random(2)  # noqa: S311 - a load, not a secret
        self.tally = Tally()

    async def ask(self, number: int) -> None:
        """Ask one question and check the answer.

        One of five differs from all before, one of twenty is forbidden.
        """
        known, forbidden = self._world.pick(self._random), number % 20 == 0
        item = f"{FORBIDDEN if forbidden else 'item'}-{number if number % 5 == 0 else number % 7}"
        call = decision_pb2.Call(
            session_handle=known.handle, server=SERVER, tool=TOOL, arguments_json=b'{"item": "%s"}' % item.encode()
        )
        wire = authorization_pb2.AuthorizeRequest(call=call).SerializeToString()
        before, started = known.state, time.perf_counter()
        try:
            answer = await self._calls[number % _CONNECTIONS](wire, metadata=self._metadata, timeout=10)
        except grpc.aio.AioRpcError as error:
            name = error.code().name.lower()
            self.tally.answers[f"no answer, {name}"] += 1
            if error.code() not in TOO_BUSY:
                self.tally.wrong.append(f"{name}: {error.details()}")
            return
        self.tally.took.append(time.perf_counter() - started)
        self._check(answer, known, before, forbidden=forbidden)

    def _check(self, answer: bytes, known: Known, before: str, *, forbidden: bool) -> None:
        decision = authorization_pb2.AuthorizeResponse.FromString(answer).decision
        basis = decision_pb2.Basis.Name(decision.basis)
        self.tally.answers[basis.removeprefix("BASIS_").lower()] += 1
        allowed = decision.outcome == decision_pb2.OUTCOME_ALLOW
        right = known.right(decision.basis, before=before, forbidden=forbidden)
        if not right or allowed != (decision.basis == decision_pb2.BASIS_PERMIT):
            self.tally.wrong.append(f"{basis} in a session that was {before} and is {known.state}")

    async def flat_out(self, seconds: float) -> float:
        """Ask as fast as answers come, and return the rate per second."""
        numbers, end = iter(range(1, 10**9)), time.perf_counter() + seconds

        async def work() -> int:
            done = 0
            while time.perf_counter() < end:
                await self.ask(next(numbers))
                done += 1
            return done

        return sum(await asyncio.gather(*(work() for _ in range(_AT_ONCE)))) / seconds

    async def steady(self, rate: float, seconds: float) -> None:
        """Ask `rate` times a second; each call begins when due, whatever earlier ones do."""
        begun, number, pending = time.perf_counter(), 0, set[asyncio.Task[None]]()
        while (passed := time.perf_counter() - begun) < seconds:
            while number < passed * rate and len(pending) < _MOST_AT_ONCE:
                number += 1
                task = asyncio.create_task(self.ask(number))
                pending.add(task)
                task.add_done_callback(pending.discard)
            await asyncio.sleep(0.005)
        await asyncio.gather(*pending)

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()


def main() -> int:
    """Run the soak, print the readings, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1200.0, help="how long the load goes on")
    parser.add_argument("--rate", type=float, default=0.0, help="calls per second; by default half of the peak")
    parser.add_argument("--live", type=int, default=500, help="how many sessions are live at any time")
    parser.add_argument("--pace", type=float, default=10.0, help="sessions that are opened and closed in a second")
    parser.add_argument("--reload", type=float, default=30.0, help="seconds between two reloads")
    chosen = parser.parse_args()
    server_core, load_core = cores()
    with tempfile.TemporaryDirectory(prefix="pdp-soak-") as folder, ExitStack() as opened, on_core(load_core):
        data, policies = Path(folder) / "data", Path(folder) / "policies"
        write(policies)
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": opened.enter_context(receiving("take"))}
        flags = "--server-workers=1", "--policies-watch=false", f"--sessions-keep-ended-seconds={KEPT_SECONDS}"
        server = serving(data, policies, *flags, core=server_core, environment=environment)
        address, pid = opened.enter_context(server)
        # Other work may need the machine during a soak; the server runs as usual.
        os.nice(5)
        return _soak(address, pid, data, policies, chosen)


def _soak(address: str, pid: int, data: Path, policies: Path, chosen: argparse.Namespace) -> int:
    world, stopped, readings = World(), threading.Event(), list[Mapping[str, float]]()
    keeper = Keeper(address, data, policies, world, live=chosen.live, pace=chosen.pace)
    keeper.fill()
    token = (data / "tokens" / "pep.token").read_text(encoding="ascii").strip()
    failures: list[BaseException] = []

    def keep() -> None:
        try:
            keeper.run(stopped, chosen.reload)
        except BaseException as error:  # noqa: BLE001 - told at the end, with everything else
            failures.append(error)

    def watch() -> None:
        while not stopped.wait(1.0):
            readings.append(_reading(pid, data))

    async def load() -> tuple[float, Tally]:
        asking = Load(address, token, world)
        rate = chosen.rate or await asking.flat_out(_PEAK_SECONDS) / 2
        print(f"{rate:.0f} calls a second for {chosen.seconds:g} seconds", file=sys.stderr, flush=True)
        threads = [threading.Thread(target=work) for work in (keep, watch)]
        for thread in threads:
            thread.start()
        try:
            await asking.steady(rate, chosen.seconds)
        finally:
            stopped.set()
            for thread in threads:
                thread.join()
            await asking.close()
        return rate, asking.tally

    rate, tally = asyncio.run(load())
    keeper.close()
    failures += [RuntimeError(text) for text in tally.wrong]
    _print_calls(rate, tally, world)
    grown = _print_readings(readings, judged=chosen.seconds >= _JUDGED_SECONDS)
    for failure in failures[:10]:
        print(f"wrong: {failure}")
    print(f"\n{len(failures)} wrong; " + (f"grown: {', '.join(grown)}" if grown else "nothing grew"))
    return 1 if failures or grown else 0


def _reading(pid: int, data: Path) -> dict[str, float]:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    facts = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    files = [data / f"sessions.sqlite{end}" for end in ("", "-wal", "-shm", "-signal")]
    return {
        "memory, MB": int(facts["VmRSS"].split()[0]) / 1024,
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208 - counted, not looked at
        "threads": int(facts["Threads"]),
        "store, MB": sum(file.stat().st_size for file in files if file.exists()) / 2**20,
    }


def _print_calls(rate: float, tally: Tally, world: World) -> None:
    took = sorted(tally.took)
    parts = ", ".join(f"{name} {took[int(len(took) * part)] * 1e3:.1f} ms" for name, part in _QUANTILES if took)
    print(f"{len(took)} answers at {rate:.0f} a second: {parts}")
    closed = world.opened - len(world.live)
    print(f"{world.opened} sessions opened, {closed} closed, {world.reloads} reloads, {world.refused} refused")
    print(", ".join(f"{name} {count}" for name, count in tally.answers.most_common()))


def _print_readings(readings: list[Mapping[str, float]], *, judged: bool) -> list[str]:
    """Print the course of each reading, and return those that grew."""
    later = readings[len(readings) // 3 :]
    grown = []
    print("\n| what | at first | after a third | at last | most | slope, an hour |\n" + "|---" * 6 + "|")
    for name in readings[0]:
        values = [reading[name] for reading in later]
        # Readings are a second apart.
        slope = statistics.linear_regression(range(len(values)), values).slope
        ends = (readings[0][name], values[0], values[-1], max(values))
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in ends) + f" | {slope * 3600:+.2f} |")
        if judged and slope * len(values) > max(_GROWTH * statistics.mean(values), _LEAST):
            grown.append(name)
    return grown


if __name__ == "__main__":
    sys.exit(main())
