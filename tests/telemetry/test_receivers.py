"""A receiver that is dead, hangs or refuses: no decision is lost or waits, and what is dropped is counted."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from benchmarks.telemetry import CONTROL, EVERYTHING, measure_all, more_than_nothing
from pdp.bench.bundle import SERVER, generated_files
from pdp.bench.dialects import PDPDialect
from pdp.bench.plan import Shape
from pdp.bench.processes import cpu_seconds
from pdp.bench.questions import generated_workload
from pdp.bench.receiver import receiving
from pdp.client import Client, ToolCall
from pdp.client.connection import Connection
from pdp.record import read_records
from pdp.testing.inprocess import write_folder
from pdp.testing.otlp import OTLPReceiver, attributes_of
from pdp.v1 import authorization_pb2, decision_pb2
from tests.telemetry.service import serving

TROUBLES = ("dead", "hang", "refuse")
DECISIONS = 2_000
ROUNDS, CALLS = 9, 2_500


@contextmanager
def endpoint_of(kind: str) -> Iterator[str]:
    """Yield the endpoint of a receiver of this kind; nobody listens at that of a dead one."""
    if kind == "dead":
        # It is bound, so that no other process gets the port meanwhile.
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{unused.getsockname()[1]}"
    else:
        with receiving(kind) as endpoint:
            yield endpoint


@pytest.mark.parametrize("trouble", TROUBLES)
def test_every_decision_is_answered_and_recorded(tmp_path: Path, trouble: str) -> None:
    """All decisions are answered and in the log, the queues stay within their bound, and all drops are counted."""
    with endpoint_of(trouble) as endpoint, OTLPReceiver() as receiver:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": receiver.endpoint,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "200",
            "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "60000",
            "OTEL_BSP_MAX_QUEUE_SIZE": "600",
            "OTEL_BLRP_MAX_QUEUE_SIZE": "600",
        }
        with serving(tmp_path, **variables) as service:
            call = ToolCall(
                server="desk", tool="read", arguments={"what": "plan"}, session_handle=service.session.handle
            )
            answers = [answer for _ in range(DECISIONS // 100) for answer in service.pep.batch([call] * 100)]

        processed = {signal: _counts(receiver, f"otel.sdk.processor.{signal}.processed") for signal in ("span", "log")}
        exported = {signal: _counts(receiver, f"otel.sdk.exporter.{signal}.exported") for signal in ("span", "log")}

    records = [located.record for located in read_records(tmp_path / "data" / "record")]
    assert all(answers)
    assert {answer.decision_id for answer in answers} == {one["id"] for one in records if one["kind"] == "decision"}
    asked = sum(one["kind"] == "session.decided" for one in records)
    assert [DECISIONS + asked, DECISIONS] == [sum(counts.values()) for counts in processed.values()]
    assert all(counts.keys() <= {"", "queue_full", "already_shutdown"} for counts in processed.values())
    assert all("" not in counts for counts in exported.values())


def _counts(receiver: OTLPReceiver, name: str) -> dict[str, int]:
    return {
        str(attributes_of(point).get("error.type", "")): point.as_int
        for point in receiver.metrics[name].sum.data_points
    }


class Figures(NamedTuple):
    """What one measurement found, in seconds: the median time of a call, and the server's CPU for each."""

    latency: float
    cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server in a process of its own, with a channel and one well-formed question."""

    pid: int
    channel: grpc.Channel
    metadata: tuple[tuple[str, str], ...]
    question: bytes

    def measure(self) -> Figures:
        """Ask one call after the other; every answer must be an allow."""
        ask = self.channel.unary_unary("/pdp.v1.AuthorizationService/Authorize")
        took = []
        before = cpu_seconds(self.pid)
        for _ in range(CALLS):
            begun = time.perf_counter()
            answer = ask(self.question, metadata=self.metadata)
            took.append(time.perf_counter() - begun)
            decided = authorization_pb2.AuthorizeResponse.FromString(answer).decision
            assert decided.outcome == decision_pb2.OUTCOME_ALLOW
        return Figures(latency=statistics.median(took), cpu=(cpu_seconds(self.pid) - before) / CALLS)


@pytest.mark.long
def test_trouble_costs_less_than_a_tenth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Over nine paired rounds, median latency and CPU for each decision move by less than 10 % with any trouble."""
    write_folder(tmp_path / "policies", generated_files())
    with ExitStack() as opened:
        targets = {
            kind: opened.enter_context(_target(tmp_path, kind, opened.enter_context(endpoint_of(kind))))
            for kind in ("take", *TROUBLES)
        }
        for target in targets.values():
            target.measure()
        rounds = [{kind: target.measure() for kind, target in targets.items()} for _ in range(ROUNDS)]

    moved = {
        kind: Figures(
            latency=statistics.median(one[kind].latency / one["take"].latency for one in rounds),
            cpu=statistics.median(one[kind].cpu / one["take"].cpu for one in rounds),
        )
        for kind in TROUBLES
    }
    with capsys.disabled():
        for kind, figures in moved.items():
            print(f"\n{kind}: latency x {figures.latency:.3f}, CPU x {figures.cpu:.3f}", end="")  # noqa: T201 - the proof's figures
    assert {kind: figures for kind, figures in moved.items() if any(abs(one - 1) >= 0.1 for one in figures)} == {}


@pytest.mark.long
def test_everything_costs_at_most_forty_microseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace, log record, metrics and record together cost at most 40 µs, and half of what the SDK takes."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://set-by-the-benchmark:4317")

    found = measure_all(ROUNDS, DECISIONS)

    everything, control = (statistics.median(more_than_nothing(found, name)) for name in (EVERYTHING, CONTROL))
    assert everything <= 40
    assert everything <= control / 2


@contextmanager
def _target(folder: Path, kind: str, endpoint: str) -> Iterator[Target]:
    data = folder / kind
    command = [sys.executable, "-m", "pdp.cli", "serve", "--server-address", "127.0.0.1:0", "--server-workers", "1"]
    command += ["--data-dir", str(data), "--policies-folder", str(folder / "policies")]
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().removeprefix("listening on ").strip()
            token = (data / "tokens" / "pep.token").read_text(encoding="ascii").strip()
            dialect = PDPDialect((_handle(address, data),), token)
            with Connection.to(address, data_dir=data).open(grpc) as channel:
                yield Target(
                    pid=process.pid,
                    channel=channel,
                    metadata=dialect.metadata,
                    question=dialect.encode(Shape.UNARY, generated_workload().repeated[:1]),
                )
        finally:
            process.terminate()


def _handle(address: str, data: Path) -> str:
    with (
        Client(address, token_file=data / "tokens" / "pep.token", data_dir=data) as pep,
        Client(address, token_file=data / "tokens" / "approver.token", data_dir=data) as approver,
    ):
        opened = pep.request_session(user="alice", agent="worker", purpose="proof", tools=[f"{SERVER}/*"])
        approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
        return opened.session_handle
