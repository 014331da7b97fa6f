"""Build telemetry from its settings."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from pdp import __version__
from pdp.errors import ConfigurationError
from pdp.telemetry import names, wire
from pdp.telemetry.encoder import Item, RecordEncoder, SpanEncoder
from pdp.telemetry.observer import Closing, Sink, Telemetry
from pdp.telemetry.pipeline import Pipeline, QueueSettings
from pdp.telemetry.settings import Signal, TelemetrySettings

if TYPE_CHECKING:
    from pdp.telemetry.metrics import Metrics
    from pdp.telemetry.transport import RetryingSender

_SERVICE = "pdp"


def build_telemetry(
    settings: TelemetrySettings, *, digest_key: bytes = b"", worker: int = 0, scraped: tuple[str, int] | None = None
) -> Telemetry:
    """Build telemetry with its own threads; call it in each process, after forking.

    `digest_key` keys the digests of values that must not be guessed; without a key they are left out. `worker`
    identifies one of several processes. `scraped` is the host and port where Prometheus finds the metrics of the first
    worker; each further worker uses the next port. Raise `ConfigurationError` for certificates that cannot be used, for
    a port that is taken, and where metrics that are not totals would be scraped.
    """
    parts = _Parts(settings, digest_key, worker, scraped)
    return Telemetry(
        spans=parts.spans(),
        records=parts.records(),
        metrics=parts.metrics,
        ahead=tuple(parts.ahead),
        # The metrics close last: their last report counts the last spans. The endpoint may be refused, and nobody would
        # stop a reporter that runs by then.
        closing=(tuple(parts.closing), (*parts.endpoint(), *parts.reporter())),
    )


class _Parts:
    """The parts of telemetry for some settings.

    What only one of them needs is imported where it is built: a server that sends nothing starts without it.
    """

    def __init__(
        self, settings: TelemetrySettings, digest_key: bytes, worker: int, scraped: tuple[str, int] | None
    ) -> None:
        self._settings = settings
        self._worker, self._scraped = worker, scraped
        self._digest_key = digest_key
        self._resource = resource_of(_SERVICE, worker)
        self._source = wire.source(self._resource.attributes, names.SCOPE, __version__)
        self.ahead: list[Callable[[], None]] = []
        self.closing: list[Closing] = []
        self.metrics = self._metrics()

    def spans(self) -> Sink | None:
        """Return the sink that shows decisions and refused requests as spans."""
        settings, key = self._settings, self._digest_key
        if settings.traces == "console":
            from pdp.telemetry.console import span_writer  # noqa: PLC0415 - see above

            return span_writer(key, settings.span_limits, self._resource)
        if settings.traces == "otlp":
            return self._queue("traces", "spans", SpanEncoder(key, settings.span_limits), settings.span_queue)
        return None

    def records(self) -> Sink | None:
        """Return the sink that shows decisions as log records."""
        settings, key = self._settings, self._digest_key
        if settings.logs == "console":
            from pdp.telemetry.console import record_writer  # noqa: PLC0415 - see above

            return record_writer(key, settings.log_limits)
        if settings.logs == "otlp":
            return self._queue("logs", "log records", RecordEncoder(key, settings.log_limits), settings.log_queue)
        return None

    def reporter(self) -> tuple[Closing, ...]:
        """Return the reporter of the metrics, if it is wanted."""
        if self.metrics is None or self._settings.metrics == "none":
            return ()
        from pdp.telemetry.console import write_metrics  # noqa: PLC0415 - see above
        from pdp.telemetry.reporting import MetricReporter  # noqa: PLC0415 - see above

        sent = self._settings.metrics == "otlp"
        return (
            MetricReporter(
                self.metrics.collect,
                interval=self._settings.metric_interval,
                sender=self._sender("metrics") if sent else None,
                write=None if sent else write_metrics,
            ),
        )

    def endpoint(self) -> tuple[Closing, ...]:
        """Return the endpoint that shows the metrics to Prometheus, if it is wanted."""
        if self.metrics is None or self._scraped is None:
            return ()
        if self._settings.metrics != "none" and self._settings.temporality != "cumulative":
            raise ConfigurationError(
                "`telemetry.prometheus_address` needs totals: with it, "
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE must be `cumulative`"
            )
        from pdp.telemetry.scraping import PrometheusEndpoint  # noqa: PLC0415 - see above

        host, first = self._scraped
        return (PrometheusEndpoint(self.metrics.peek, host=host, port=first + max(self._worker - 1, 0)),)

    def _metrics(self) -> Metrics | None:
        settings = self._settings
        if settings.metrics == "none" and self._scraped is None:
            return None
        from pdp.telemetry.metrics import Metrics  # noqa: PLC0415 - see above

        return Metrics(self._resource, __version__, temporality=settings.temporality, exemplars=settings.exemplars)

    def _sender(self, signal: Signal) -> RetryingSender:
        from pdp.telemetry.transport import open_sender  # noqa: PLC0415 - see above

        return open_sender(self._settings.endpoints[signal])

    def _queue(self, signal: Signal, what: str, encode: Callable[[Item], bytes], queue: QueueSettings) -> Sink:
        pipeline = Pipeline(what, encode, self._source, self._sender(signal), queue)
        self.ahead.append(pipeline.encode_ahead)
        self.closing.append(pipeline)
        if self.metrics is not None:
            self.metrics.watch_flow(signal, pipeline.flow)
        return pipeline.put


def resource_of(service: str, worker: int = 0) -> Resource:
    """Return who sends: a process of this service, unless the operator says otherwise, and the number of a worker."""
    ours = {
        "service.name": service,
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),
    }
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, which the operator sets, take precedence.
    chosen = dict(OTELResourceDetector().detect().attributes)
    if worker and "service.instance.id" in chosen:
        # INVARIANT: each process has its own, or receivers would merge the counters of two processes.
        chosen["service.instance.id"] = f"{chosen['service.instance.id']}/{worker}"
    return Resource.create({**ours, **({names.WORKER: worker} if worker else {}), **chosen})
