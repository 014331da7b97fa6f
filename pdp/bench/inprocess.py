"""Decisions in a process of their own, without a server.

Run as `python -m pdp.bench.inprocess POLICIES SCRATCH ENDPOINT FILE`. Reads one order a line and answers each with a
line of JSON: µs of CPU of the whole process for one decision, including the work of threads that write and send.
Every decision is checked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from pdp.app.embedded import Embedded, compile_once, open_embedded
from pdp.bench.failure import WrongAnswerError
from pdp.bench.plan import BARE, LOOP
from pdp.bench.processes import module_process
from pdp.bench.questions import Question, Workload
from pdp.bench.sessions import PEP, open_sessions
from pdp.bench.workloads import open_workload
from pdp.decision.cache import DecisionCache
from pdp.decision.observers import Observers
from pdp.model import Call, CallRequest
from pdp.observer import Observer, TraceIds
from pdp.record import DecisionLog, SigningKey
from pdp.telemetry.build import build_telemetry
from pdp.telemetry.settings import TelemetrySettings

_KEY = b"k" * 32
_SENDING_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A measurement to make: the number of questions, the share of new ones, and one of three ways to decide."""

    way: str
    misses: float
    decisions: int


class InProcess:
    """The ordering side: gives orders to the process that decides. `deciding` makes one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def measure(self, order: Order) -> float:
        """Return µs of CPU for one decision. Raise `WrongAnswerError` for a wrong one."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("the process has pipes")
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise WrongAnswerError("the process that decides has ended")
        answer = json.loads(line)
        if "wrong" in answer:
            raise WrongAnswerError(answer["wrong"])
        return float(answer["cpu"])


@contextmanager
def deciding(workload: Workload, policies: Path, scratch: Path, endpoint: str, core: int | None) -> Iterator[InProcess]:
    """Run the process on a core while the `with` block runs."""
    arguments = [str(policies), str(scratch), endpoint, workload.file]
    with module_process("pdp.bench.inprocess", arguments, core=core) as process:
        yield InProcess(process)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setup:
    observer: Observer
    trace_ids: TraceIds | None
    end: Callable[[], None]


class _Decider:
    """Carries out orders."""

    def __init__(self, workload: Workload, policies: Path, scratch: Path) -> None:
        self._workload = workload
        self._policies = policies
        self._scratch = scratch
        self._turn = 0
        self._compiled: dict[str, Any] | None = None

    def measure(self, order: Order) -> float:
        """Return µs of CPU of this process for one decision, writing and sending included."""
        questions = self._questions(order)
        if order.way == LOOP:
            return _cost(lambda: _parse_and_digest(questions), order.decisions)
        setup = self._set_up(order.way)
        pdp = open_embedded(
            self._policies,
            observer=setup.observer,
            trace_ids=setup.trace_ids,
            cache=DecisionCache(),
            compile_files=self._compile,
        )
        handles = open_sessions(pdp, self._workload.askers, self._workload.tool_patterns)

        def decide() -> None:
            _decide(pdp, asked)
            setup.end()

        _decide(pdp, _calls(self._workload.repeated, handles))
        asked = _calls(questions, handles)
        try:
            return _cost(decide, order.decisions)
        finally:
            pdp.close()

    def _compile(self, job: Mapping[str, Any]) -> dict[str, Any]:
        # There is one bundle, and a child process for each order would take longer than the order.
        if self._compiled is None:
            self._compiled = compile_once()(job)
        return self._compiled

    def _questions(self, order: Order) -> Sequence[Question]:
        listed = list(islice(cycle(self._workload.repeated), order.decisions))
        if self._workload.fresh is not None:
            fresh = round(order.decisions * order.misses)
            for number in range(fresh):
                listed[number * order.decisions // fresh] = self._workload.fresh()
        return listed

    def _set_up(self, way: str) -> _Setup:
        if way == BARE:
            return _Setup(observer=Observers(), trace_ids=None, end=lambda: None)
        self._turn += 1
        log = DecisionLog(self._scratch / f"record-{self._turn}", key=_KEY, signer=SigningKey.generate())
        log.start()
        signals = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "none"}
        telemetry = build_telemetry(TelemetrySettings.from_environment({**os.environ, **signals}), digest_key=_KEY)

        def end() -> None:
            log.close()
            if not telemetry.shutdown(_SENDING_SECONDS):
                raise WrongAnswerError("not everything was sent to the receiver of telemetry")

        return _Setup(observer=Observers(telemetry, record=log), trace_ids=telemetry.trace_ids, end=end)


def _calls(questions: Sequence[Question], handles: Sequence[str]) -> list[tuple[CallRequest, bool]]:
    # Each has its own bytes: nothing that Python remembers about an object may help.
    return [
        (
            CallRequest(
                call=Call(
                    session_handle=handles[one.asker],
                    server=one.server,
                    tool=one.tool,
                    arguments_json=bytes(bytearray(one.arguments_json)),
                )
            ),
            one.allowed,
        )
        for one in questions
    ]


def _decide(pdp: Embedded, asked: Sequence[tuple[CallRequest, bool]]) -> None:
    authorize = pdp.authorizer.authorize
    for request, allowed in asked:
        if authorize(request, PEP).allowed is not allowed:
            raise WrongAnswerError(f"`{request.call.action}` must be {'allowed' if allowed else 'denied'}")


def _parse_and_digest(questions: Sequence[Question]) -> None:
    for one in questions:
        json.loads(one.arguments_json)
        sha256(one.arguments_json).digest()


def _cost(work: Callable[[], None], times: int) -> float:
    before = time.process_time()
    work()
    return (time.process_time() - before) / times * 1e6


def main() -> None:
    """Carry out orders until standard input ends."""
    policies, scratch, endpoint, file = sys.argv[1:]
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    decider = _Decider(open_workload(file, policies), Path(policies), Path(scratch))
    for line in sys.stdin:
        try:
            answer: dict[str, object] = {"cpu": decider.measure(Order(**json.loads(line)))}
        except WrongAnswerError as error:
            answer = {"wrong": str(error)}
        print(json.dumps(answer), flush=True)  # noqa: T201 - the answer to an order


if __name__ == "__main__":
    main()
