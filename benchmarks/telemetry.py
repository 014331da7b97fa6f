"""Measure what telemetry and record cost for each decision: `python -m benchmarks.telemetry`.

Remembered decisions of the embedded form, in turns with nothing, with each part alone, with everything, and with the
SDK's own way as control. CPU is that of the whole process, background threads, sending and the end included; the
receiver of OTLP is another process. Figures are medians over rounds of the difference to "nothing" in the same round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pdp.app.embedded import open_embedded
from pdp.bench.bundle import AGENT, SERVER, TOOL, USER, generated_files
from pdp.bench.questions import Asker, arguments
from pdp.bench.receiver import receiving
from pdp.bench.sessions import PEP, open_sessions
from pdp.decision.cache import DecisionCache
from pdp.decision.observers import Observers
from pdp.model import Call, CallRequest, Decision, TraceParent
from pdp.observer import Event, Observer, TraceIds
from pdp.record import DecisionLog, SigningKey
from pdp.telemetry.attributes import decision_attributes
from pdp.telemetry.build import build_telemetry
from pdp.telemetry.settings import TelemetrySettings
from pdp.testing.inprocess import write_folder

_KEY = b"k" * 32
_PARENT = TraceParent(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")

NOTHING, EVERYTHING, CONTROL = "nothing", "everything", "the SDK's own trace (control)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The observer of one measurement's decisions, and the function that ends it."""

    observer: Observer
    trace_ids: TraceIds | None
    end: Callable[[], object]


class SDKWay:
    """The control: a span for each decision, as an application makes it with OpenTelemetry's SDK."""

    def __init__(self) -> None:
        self._tracers = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
        self._tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=100_000))
        self._tracer = self._tracers.get_tracer("pdp")
        self._propagator = TraceContextTextMapPropagator()

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:
        """Make a span."""
        end = round(decision.decided_at * 1_000_000) * 1000
        self._tracer.start_span(
            "pdp.authorize",
            self._propagator.extract({"traceparent": parent.traceparent}),
            kind=SpanKind.SERVER,
            attributes=decision_attributes(decision, _KEY),
            start_time=end - int(decision.duration_us * 1000),
        ).end(end)
        return decision

    def event(self, event: Event) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Send what waits."""
        self._tracers.shutdown()


def main() -> int:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decisions", type=int, default=10_000, help="decisions of one measurement")
    parser.add_argument("--rounds", type=int, default=9, help="how often each is repeated, in turns")
    chosen = parser.parse_args()
    _print_table(measure_all(chosen.rounds, chosen.decisions), chosen.decisions)
    return 0


def measure_all(rounds: int, decisions: int) -> dict[str, list[float]]:
    """Return each part's cost of a decision in each round: µs of CPU of the process."""
    found: dict[str, list[float]] = {name: [] for name in _PARTS}
    with tempfile.TemporaryDirectory(prefix="pdp-bench-") as folder, receiving("take") as endpoint:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        write_folder(Path(folder) / "policies", generated_files())
        for turn in range(rounds + 1):
            for name, make in _PARTS.items():
                scratch = Path(folder) / f"{name.replace(' ', '-')}-{turn}"
                cost = _measure(Path(folder) / "policies", make(scratch), decisions)
                # The first round warms up.
                if turn:
                    found[name].append(cost)
            print(".", end="", flush=True, file=sys.stderr)
        print(file=sys.stderr)
    return found


def more_than_nothing(found: dict[str, list[float]], name: str) -> list[float]:
    """Return the cost that a part adds, round by round."""
    return [value - base for value, base in zip(found[name], found[NOTHING], strict=True)]


def _measure(policies: Path, part: Part, decisions: int) -> float:
    """Return the µs of CPU for each decision, all sending and writing included."""
    pdp = open_embedded(policies, observer=part.observer, trace_ids=part.trace_ids, cache=DecisionCache())
    (handle,) = open_sessions(pdp, [Asker(user=USER, agent=AGENT)], (f"{SERVER}/*",))
    call = Call(session_handle=handle, server=SERVER, tool=TOOL, arguments_json=arguments("same"))
    pdp.authorizer.authorize(CallRequest(call=call), PEP, parent=_PARENT)
    before = time.process_time()
    for number in range(decisions):
        # A gateway's calls differ in their ids.
        name = f"req-{number}"
        if not pdp.authorizer.authorize(CallRequest(call=call, tool_call_id=name), PEP, parent=_PARENT).allowed:
            raise SystemExit("an answer is wrong")
    part.end()
    cost = (time.process_time() - before) / decisions * 1e6
    pdp.close()
    return cost


def _nothing(_: Path) -> Part:
    return Part(observer=Observers(), trace_ids=None, end=lambda: None)


def _sdk(_: Path) -> Part:
    way = SDKWay()
    return Part(observer=way, trace_ids=None, end=way.end)


def _record(folder: Path) -> Part:
    log = DecisionLog(folder, key=_KEY, signer=SigningKey.generate())
    log.start()
    return Part(observer=log, trace_ids=None, end=log.close)


def _telemetry(*signals: str) -> Callable[[Path], Part]:
    def make(_: Path) -> Part:
        wanted = {f"OTEL_{one}_EXPORTER": "otlp" if one in signals else "none" for one in ("TRACES", "METRICS", "LOGS")}
        telemetry = build_telemetry(TelemetrySettings.from_environment({**os.environ, **wanted}), digest_key=_KEY)

        def end() -> None:
            if not telemetry.shutdown(60.0):
                raise SystemExit("not everything was sent")

        return Part(observer=telemetry, trace_ids=telemetry.trace_ids, end=end)

    return make


def _together(*makes: Callable[[Path], Part]) -> Callable[[Path], Part]:
    def make(folder: Path) -> Part:
        parts = [make(folder) for make in makes]

        def end() -> None:
            for part in parts:
                part.end()

        trace_ids = next((part.trace_ids for part in parts if part.trace_ids), None)
        return Part(observer=Observers(*(part.observer for part in parts)), trace_ids=trace_ids, end=end)

    return make


_PARTS: dict[str, Callable[[Path], Part]] = {
    NOTHING: _nothing,
    "trace": _telemetry("TRACES"),
    "metrics": _telemetry("METRICS"),
    "log records": _telemetry("LOGS"),
    "record": _record,
    "trace, metrics and record": _together(_record, _telemetry("TRACES", "METRICS")),
    EVERYTHING: _together(_record, _telemetry("TRACES", "METRICS", "LOGS")),
    CONTROL: _sdk,
}


def _print_table(found: dict[str, list[float]], decisions: int) -> None:
    print(f"{decisions} decisions a measurement, {len(found[NOTHING])} rounds; µs of CPU for each decision\n")
    print("| with | whole process | more than nothing | least and most of it |\n|---|---|---|---|")
    for name, values in found.items():
        more = more_than_nothing(found, name)
        whole, median = statistics.median(values), statistics.median(more)
        print(f"| {name} | {whole:.1f} | {median:.1f} | {min(more):.1f} to {max(more):.1f} |")


if __name__ == "__main__":
    sys.exit(main())
