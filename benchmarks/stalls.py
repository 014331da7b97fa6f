"""Measure remembered calls while others wait for something slow: `python -m benchmarks.stalls`.

One server with `server.listener: loop` and everything on gets a thousand calls a second on a schedule, all of them
remembered: with nothing else, then beside callers who wait for a store that another process has locked, beside callers
whose policies take long, and while the disk of the record takes no sync. On the server's core, a control that does
nothing wakes every millisecond; how late it wakes is the machine's own. Every answer is checked.

Where other programs use the processor too, latencies are theirs. So the server also notes what its other threads take
of the processor during each turn of the loop: as long waits the loop for them on a core that nothing else uses.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import NamedTuple

import apsw
import grpc

from benchmarks.stallserver import STALLED, TURNS
from benchmarks.wakes import Wakes, waking
from pdp.bench.bundle import SERVER, generated_files
from pdp.bench.dialects import PDPDialect
from pdp.bench.figures import Figures, percentile
from pdp.bench.measuring import measured
from pdp.bench.plan import Measurement, Shape
from pdp.bench.processes import cores, listening, on_core, running
from pdp.bench.questions import Workload, generated_workload
from pdp.bench.receiver import receiving
from pdp.bench.servers import Target
from pdp.client import Client
from pdp.testing.inprocess import write_folder
from pdp.v1.authorization_pb2 import AuthorizeRequest
from pdp.v1.decision_pb2 import Call

_RATE = 1000.0
_CALLERS = 8
_AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
# Tools of the generated bundle that the measured calls do not use.
_MANY, _MARKING = "b", "c"
_OF_A_FILE = 2000
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The server, the folder of its data, and what its other callers send with each call.

    `session` opens a session and returns its handle; `handle` is that of one.
    """

    target: Target
    data: Path
    session: Callable[[], str]
    handle: str
    token: str
    # Of the whole run: what was asked in an earlier round is remembered.
    numbers: Iterator[int] = field(default_factory=count)

    @contextmanager
    def asked(self, tool: str, handles: Sequence[str], freed: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Have callers ask about a tool until the `with` block ends: new calls of a session each, one after another.

        `freed` is called then, before their last calls are waited for.
        """
        over = threading.Event()
        with grpc.insecure_channel(self.target.address) as channel:
            call = channel.unary_unary(_AUTHORIZE)
            metadata = (("authorization", f"Bearer {self.token}"),)

            def ask(handle: str) -> None:
                while not over.is_set():
                    arguments = json.dumps({"item": f"fresh-{next(self.numbers)}"}).encode()
                    asked = Call(session_handle=handle, server=SERVER, tool=tool, arguments_json=arguments)
                    wire = AuthorizeRequest(call=asked).SerializeToString()
                    # What they are told, a deny or that the store is silent, is not what is measured.
                    call.future(wire, metadata=metadata, timeout=_PATIENCE_SECONDS).exception()

            threads = [threading.Thread(target=ask, args=(handle,)) for handle in handles]
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                over.set()
                freed()
                for thread in threads:
                    thread.join()


class Row(NamedTuple):
    """One measurement: the remembered calls, the control beside them, and its begin and end in monotonic seconds."""

    calls: Figures
    control: Wakes
    began: float
    ended: float


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often each is repeated, in turns")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long one measurement lasts")
    parser.add_argument("--policies", type=int, default=10_000, help="policies about the tool that takes long")
    chosen = parser.parse_args()
    found: dict[str, list[Row]] = {name: [] for name in _TROUBLES}
    measurement = Measurement(shape=Shape.FRAMES, rate=_RATE)
    workload = replace(generated_workload(), files=files(chosen.policies))
    with ExitStack() as opened:
        server_core, load_core = cores()
        opened.enter_context(on_core(load_core))
        world = opened.enter_context(_world(workload, server_core))
        wakes = opened.enter_context(waking(server_core))
        for turn in range(chosen.rounds + 1):
            for name, trouble in _TROUBLES.items():
                with trouble(world):
                    wakes()
                    began = time.monotonic()
                    calls = measured(world.target, measurement, workload, chosen.seconds)
                    control, ended = wakes(), time.monotonic()
                # The first round fills caches, and parses the many policies.
                if turn:
                    found[name].append(Row(calls, control, began, ended))
            print(".", end="", flush=True, file=sys.stderr)
        turns = _turns(world.data)
    print(file=sys.stderr)
    _print_table(found, turns)
    return 0


def files(policies: int) -> Mapping[str, bytes]:
    """Return the generated bundle, with so many policies about one tool more, and a tool that adds a label."""
    given = generated_files()
    return given | {
        **{f"many{place}.cedar": _never(place, policies) for place in range(0, policies, _OF_A_FILE)},
        "bundle.yaml": given["bundle.yaml"] + b"labels: {marked: {meaning: was marked}}\n",
        f"tools/{SERVER}.yaml": f"risk: read_only\ntools: {{{_MARKING}: {{adds_labels: [marked]}}}}\n".encode(),
    }


def _never(place: int, policies: int) -> bytes:
    """Return the policies of one file, which begin with the one at a place: none matches any call."""
    texts = [
        f'@id("many{place}/{number}") forbid (principal, action == Action::"{SERVER}/{_MANY}", resource) '
        f'when {{ context.input.item == "never-{number}" }};\n'
        for number in range(place, min(policies, place + _OF_A_FILE))
    ]
    return "".join(texts).encode()


@contextmanager
def _world(workload: Workload, core: int | None) -> Iterator[World]:
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="pdp-bench-")))
        write_folder(folder / "policies", workload.files)
        data = folder / "data"
        serve = ["serve", "--server-address=127.0.0.1:0", "--server-plaintext=true", "--server-listener=loop"]
        # So often that some syncs are under way in each measurement.
        serve += ["--record-checkpoint-seconds=0.2", "--policies-watch=false"]
        serve += [f"--data-dir={data}", f"--policies-folder={folder / 'policies'}"]
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": opened.enter_context(receiving("take"))}
        command = [sys.executable, "-m", "benchmarks.stallserver", str(data), *serve]
        process = opened.enter_context(running(command, core=core, environment=environment))
        address = listening(process, "pdp serve")
        tokens = data / "tokens"
        pep = opened.enter_context(Client(address, token_file=tokens / "pep.token", plaintext=True))
        approver = opened.enter_context(Client(address, token_file=tokens / "approver.token", plaintext=True))
        (asker,) = workload.askers

        def session() -> str:
            asked = pep.request_session(
                user=asker.user, agent=asker.agent, purpose="benchmark", tools=workload.tool_patterns, duration=7200
            )
            shown = asked.session
            approver.approve_session(shown.session_id, request_digest=shown.request_digest)
            return asked.session_handle

        token = (tokens / "pep.token").read_text(encoding="ascii").strip()
        dialect = PDPDialect([session()], token)
        target = Target(name="loop", address=address, pid=process.pid, core=core, dialect=dialect)
        # Theirs is another session: a label changes all answers of the session that has it.
        yield World(target=target, data=data, session=session, handle=session(), token=token)


@contextmanager
def _nothing(_: World) -> Iterator[None]:
    yield


@contextmanager
def _store_locked(world: World) -> Iterator[None]:
    """Lock the store, as another process that writes for long does, while callers add the first label of a session."""
    handles = [world.session() for _ in range(_CALLERS)]
    with closing(apsw.Connection(str(world.data / "sessions.sqlite"))) as other:
        other.execute("BEGIN IMMEDIATE")
        with world.asked(_MARKING, handles, freed=lambda: other.execute("ROLLBACK")):
            yield


@contextmanager
def _threads_busy(world: World) -> Iterator[None]:
    """Have callers ask what threads answer, as it may add a label, which their session has: they wait for nothing."""
    with world.asked(_MARKING, [world.handle] * _CALLERS):
        yield


@contextmanager
def _many_policies(world: World) -> Iterator[None]:
    """Have callers ask what was never asked, about a tool with a large slice."""
    with world.asked(_MANY, [world.handle] * _CALLERS):
        yield


@contextmanager
def _disk_stalled(world: World) -> Iterator[None]:
    """Let no sync of the record end."""
    stalled = world.data / STALLED
    stalled.touch()
    try:
        yield
    finally:
        stalled.unlink()


_TROUBLES: Mapping[str, Callable[[World], AbstractContextManager[None]]] = {
    "nothing else": _nothing,
    "the store is locked": _store_locked,
    "new calls need threads": _threads_busy,
    "new calls of the large slice": _many_policies,
    "the disk takes no sync": _disk_stalled,
}


def _turns(data: Path) -> Sequence[tuple[float, float]]:
    """Return when each turn of the loop ended, in monotonic seconds, and its wait for others, in milliseconds."""
    numbers = array("d", (data / TURNS).read_bytes())
    # Of two clocks that are read one after the other, the later can be ahead by a hair.
    return [(ended, max(0.0, waited) * 1000) for ended, waited in zip(numbers[::2], numbers[1::2], strict=True)]


def _print_table(found: Mapping[str, list[Row]], turns: Sequence[tuple[float, float]]) -> None:
    heads = ("while", "p50, ms", "p99, ms", "least and most", "99.9 %", "the control's p99, ms", "its longest")
    print("|".join(["", *(f" {head} " for head in (*heads, "a turn waits for other threads, ms: p50", "p99")), ""]))
    print("|---" * (len(heads) + 2) + "|")
    for name, rows in found.items():
        p99 = [row.calls.p99 for row in rows]
        waits = sorted(wait for ended, wait in turns if any(row.began < ended < row.ended for row in rows))
        middle = statistics.median
        print(
            f"| {name} | {middle(row.calls.p50 for row in rows):.2f} | {middle(p99):.2f} "
            f"| {min(p99):.2f} to {max(p99):.2f} | {middle(row.calls.latencies[-1] for row in rows):.2f} "
            f"| {middle(row.control.p99 for row in rows):.2f} | {max(row.control.longest for row in rows):.2f} "
            f"| {percentile(waits, 50.0):.2f} | {percentile(waits, 99.0):.2f} |"
        )


if __name__ == "__main__":
    sys.exit(main())
