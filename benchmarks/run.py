"""Measure the PDP beside a server that decides nothing, in one run: `python -m benchmarks.run`.

Servers run one after the other in turns, pinned to one core; the load runs on another. CPU is the server process's
own, from the kernel. Every answer is checked. Figures are medians over rounds; compare ratios, not machines.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.workload import SERVER, TOOL, arguments, request, write_bundle
from pdp.app import open_embedded
from pdp.client import Client
from pdp.model import Call, Caller, Role
from pdp.registrar import SessionRequest
from pdp.testing.otlp import OTLPReceiver
from pdp.v1 import authorization_pb2, decision_pb2

_SERVICE = "/pdp.v1.AuthorizationService/"
_BATCH = 50
_CONTROL = "empty handler"

Ask = Callable[[int], Awaitable[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A running server: where it listens, its process, and what a caller needs."""

    name: str
    address: str
    pid: int
    token: str = ""
    handle: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement: decisions a second, latency in milliseconds, CPU of the server in µs for each decision."""

    rate: float
    p50: float
    p99: float
    cpu: float


def main() -> int:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="how long one measurement lasts")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is repeated, in turns")
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    print(f"server on core {cores[0]}, load on core {cores[-1]}; {chosen.rounds} rounds of {chosen.seconds:g} s\n")
    with tempfile.TemporaryDirectory(prefix="pdp-bench-") as folder, ExitStack() as opened:
        write_bundle(Path(folder) / "policies")
        _print_embedded(Path(folder) / "policies", chosen.rounds)
        receiver = opened.enter_context(OTLPReceiver())
        targets = [
            opened.enter_context(_control(cores[0])),
            opened.enter_context(pdp_server("tracing off", Path(folder), {"OTEL_SDK_DISABLED": "true"}, cores[0])),
            opened.enter_context(
                pdp_server("everything on", Path(folder), {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}, cores[0])
            ),
        ]
        found = asyncio.run(_measure_all(targets, chosen.seconds, chosen.rounds))
    _print_table(found, [target.name for target in targets])
    return 0


# In process.


def _print_embedded(policies: Path, rounds: int) -> None:
    """Time whole decisions in this process, tracing and record off."""
    pdp = open_embedded(policies)
    pep = Caller(id="pep", kind="embedded", roles=frozenset({Role.PEP}))
    approver = Caller(id="approver", kind="embedded", roles=frozenset({Role.APPROVER}))
    wanted = SessionRequest(user="alice", agent="worker", purpose="benchmark", tool_patterns=(f"{SERVER}/*",))
    view, handle = pdp.registrar.request(wanted, pep)
    pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=approver)
    fresh = itertools.count()

    def ask(item: str) -> None:
        call = Call(session_handle=handle, server=SERVER, tool=TOOL, arguments_json=arguments(item))
        if not pdp.authorizer.authorize(call, pep).allowed:
            raise SystemExit("an answer is wrong")

    def build(item: str) -> None:
        Call(session_handle=handle, server=SERVER, tool=TOOL, arguments_json=arguments(item))

    figures: dict[str, list[float]] = {"building the call (control)": [], "hit": [], "miss": []}
    for _ in range(rounds):
        figures["building the call (control)"].append(_microseconds(lambda: build("same"), 20000))
        figures["hit"].append(_microseconds(lambda: ask("same"), 20000))
        figures["miss"].append(_microseconds(lambda: ask(f"item-{next(fresh)}"), 4000))
    control = statistics.median(figures["building the call (control)"])
    print("in process, ten policies in the slice, tracing and record off; µs for each decision\n")
    print("| what | µs | less the control |\n|---|---|---|")
    for name, values in figures.items():
        print(f"| {name} | {statistics.median(values):.1f} | {statistics.median(values) - control:.1f} |")
    print()


def _microseconds(work: Callable[[], None], times: int) -> float:
    work()
    started = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - started) / times * 1e6


# Over loopback.


async def _measure_all(targets: list[Target], seconds: float, rounds: int) -> dict[tuple[str, str], list[Row]]:
    shapes = [("unary", 1), ("unary", 16), ("unary", 64), ("stream", 1), ("stream", 16), ("batch", 1), ("batch", 16)]
    found: dict[tuple[str, str], list[Row]] = {}
    for _ in range(rounds):
        for shape, concurrency in shapes:
            for target in targets:
                row = await _measure(target, shape, concurrency, seconds)
                found.setdefault((f"{shape}, {concurrency} at a time", target.name), []).append(row)
        print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    return found


async def _measure(target: Target, shape: str, concurrency: int, seconds: float) -> Row:
    metadata = (("authorization", f"Bearer {target.token}"),) if target.token else ()
    async with grpc.aio.insecure_channel(target.address) as channel:
        asks = [_ask(channel, shape, target, metadata) for _ in range(concurrency)]
        await asyncio.gather(*(ask(0) for ask in asks))
        took: list[float] = []
        decisions = 0
        before, started = _cpu(target.pid), time.perf_counter()

        async def work(ask: Ask) -> None:
            nonlocal decisions
            while (begun := time.perf_counter()) - started < seconds:
                answered = await ask(1)
                decisions += answered
                took.append(time.perf_counter() - begun)

        await asyncio.gather(*(work(ask) for ask in asks))
        elapsed = time.perf_counter() - started
        cpu = _cpu(target.pid) - before
    took.sort()
    return Row(
        rate=decisions / elapsed,
        p50=took[len(took) // 2] * 1e3,
        p99=took[int(len(took) * 0.99)] * 1e3,
        cpu=cpu / decisions * 1e6,
    )


def _ask(channel: grpc.aio.Channel, shape: str, target: Target, metadata: tuple[tuple[str, str], ...]) -> Ask:
    one = request(target.handle, "same")
    if shape == "stream":
        message = authorization_pb2.AuthorizeStreamRequest(request=one).SerializeToString()
        stream = channel.stream_stream(_SERVICE + "AuthorizeStream")(metadata=metadata)

        async def exchange(_: int) -> int:
            await stream.write(message)
            answer = authorization_pb2.AuthorizeStreamResponse.FromString(await stream.read())
            return _checked([answer.decision])

        return exchange
    if shape == "batch":
        message = authorization_pb2.BatchAuthorizeRequest(requests=[one] * _BATCH).SerializeToString()
        batch = channel.unary_unary(_SERVICE + "BatchAuthorize")

        async def ask_batch(_: int) -> int:
            answer = authorization_pb2.BatchAuthorizeResponse.FromString(await batch(message, metadata=metadata))
            return _checked(list(answer.decisions), _BATCH)

        return ask_batch
    message = one.SerializeToString()
    unary = channel.unary_unary(_SERVICE + "Authorize")

    async def ask(_: int) -> int:
        answer = authorization_pb2.AuthorizeResponse.FromString(await unary(message, metadata=metadata))
        return _checked([answer.decision])

    return ask


def _checked(decisions: list[decision_pb2.Decision], wanted: int = 1) -> int:
    if len(decisions) != wanted or any(one.outcome != decision_pb2.OUTCOME_ALLOW for one in decisions):
        raise SystemExit("an answer is wrong")
    return wanted


# Servers.


@contextmanager
def _control(core: int) -> Iterator[Target]:
    with _process([sys.executable, "-m", "benchmarks.control"], {}, core) as (process, address):
        yield Target(name=_CONTROL, address=address, pid=process.pid)


@contextmanager
def pdp_server(name: str, folder: Path, environment: dict[str, str], core: int) -> Iterator[Target]:
    """Run the PDP as one process on a core, with an approved session."""
    data = folder / name.replace(" ", "-")
    command = [sys.executable, "-m", "pdp.cli", "serve", "--server-address", "127.0.0.1:0", "--server-workers", "1"]
    command += ["--data-dir", str(data), "--policies-folder", str(folder / "policies")]
    with _process(command, environment, core) as (process, address):
        tokens = data / "tokens"
        with Client(address, token_file=tokens / "pep.token") as pep:
            opened = pep.request_session(
                user="alice", agent="worker", purpose="benchmark", tools=[f"{SERVER}/*"], duration=7200
            )
        with Client(address, token_file=tokens / "approver.token") as approver:
            approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
        yield Target(
            name=name,
            address=address,
            pid=process.pid,
            token=(tokens / "pep.token").read_text(encoding="ascii").strip(),
            handle=opened.session_handle,
        )


@contextmanager
def _process(command: list[str], environment: dict[str, str], core: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    os.sched_setaffinity(process.pid, {core})
    try:
        for line in process.stdout or ():
            if line.startswith("listening on "):
                yield process, line.removeprefix("listening on ").strip()
                return
        raise SystemExit(f"`{' '.join(command[1:4])}` did not start")
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _print_table(found: dict[tuple[str, str], list[Row]], names: list[str]) -> None:
    print("over loopback, hits; medians over rounds; the ratio is CPU against the empty handler of the same rounds\n")
    print("| shape | server | decisions/s | p50 ms | p99 ms | server CPU µs | ratio |\n|---|---|---|---|---|---|---|")
    for shape in dict.fromkeys(shape for shape, _ in found):
        control = found[shape, _CONTROL]
        for name in names:
            rows = found[shape, name]
            times = statistics.median(row.cpu / base.cpu for row, base in zip(rows, control, strict=True))
            rate, p50, p99, cpu = (
                statistics.median(getattr(row, field) for row in rows) for field in ("rate", "p50", "p99", "cpu")
            )
            print(f"| {shape} | {name} | {rate:.0f} | {p50:.2f} | {p99:.2f} | {cpu:.0f} | {times:.2f} |")


if __name__ == "__main__":
    sys.exit(main())
