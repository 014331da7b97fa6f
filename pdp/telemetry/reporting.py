"""Report metrics at intervals, and once more at the end."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import MetricsData

from pdp.telemetry.pipeline import REJECTED, Sender, Trouble

_CLOSING_SECONDS = 1.0


class MetricReporter:
    """Collects and reports every `interval` seconds, on its own thread, to `sender` or to `write`."""

    def __init__(
        self,
        collect: Callable[[], MetricsData],
        *,
        interval: float,
        sender: Sender | None = None,
        write: Callable[[MetricsData], None] | None = None,
    ) -> None:
        self._collect = collect
        self._sender = sender
        self._write = write
        self._interval = interval
        self._trouble = Trouble("metrics")
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="pdp-telemetry-metrics", daemon=True)
        self._thread.start()

    def shut_down(self, timeout: float) -> bool:
        """Report once more; return False when `timeout` seconds were not enough."""
        if self._sender is not None:
            self._sender.hurry()
        self._stopping.set()
        self._thread.join(timeout)
        in_time = not self._thread.is_alive()
        if self._sender is not None:
            self._sender.close()
        self._thread.join(_CLOSING_SECONDS)
        return in_time

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self._report()
        self._report()

    def _report(self) -> None:
        collected = self._collect()
        if self._write is not None:
            self._write(collected)
        if self._sender is not None:
            # Once a minute: the SDK's encoder is good enough.
            sent = self._sender.send(encode_metrics(collected).SerializeToString())
            self._trouble.say(sent.problem or (REJECTED if sent.rejected else ""))
