"""Serve the metrics to Prometheus, which fetches them from a page on an address of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from socket import AF_INET6
from socketserver import TCPServer
from threading import Thread
from typing import Any, Final, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from opentelemetry.sdk.metrics.export import Metric as Collected
from opentelemetry.sdk.metrics.export import MetricsData
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pdp.errors import ConfigurationError
from pdp.telemetry import names
from pdp.telemetry.prometheus import label, series

_TIMEOUT_SECONDS: Final = 5.0
_BY_NAME: Final = {metric.name: metric for metric in names.METRICS}


class PrometheusEndpoint:
    """Serves `/metrics` on its own thread until it is shut down, to one caller after the other.

    `peek` returns all metrics from the beginning and is called for each answer. Raise `ConfigurationError` when the
    address cannot be listened on.
    """

    def __init__(self, peek: Callable[[], MetricsData], *, host: str, port: int) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families(peek))
        kind = _ServerV6 if ":" in host else _Server
        try:
            self._server = kind((host, port), _Handler)
        except (OSError, OverflowError) as error:
            problem = (getattr(error, "strerror", "") or "there is no such port").lower()
            raise ConfigurationError(f"`telemetry.prometheus_address`: `{host}:{port}`: {problem}") from None
        self._server.set_app(make_wsgi_app(registry))
        self._thread = Thread(target=self._server.serve_forever, name="pdp-telemetry-prometheus", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Return the port that it listens on."""
        return int(self._server.server_address[1])

    def shut_down(self, timeout: float) -> bool:
        """Stop answering; return False when the last answer exceeds `timeout` seconds."""
        # It stops between two answers: a caller that does not read delays it for a moment.
        stopping = Thread(target=self._server.shutdown, name="pdp-telemetry-end", daemon=True)
        stopping.start()
        stopping.join(timeout)
        self._server.server_close()
        return not stopping.is_alive()


class _Families(Collector):
    def __init__(self, peek: Callable[[], MetricsData]) -> None:
        self._peek = peek

    def collect(self) -> Iterable[Metric]:
        for resource in self._peek().resource_metrics:
            about = {label(name): str(value) for name, value in resource.resource.attributes.items()}
            yield InfoMetricFamily("target", "What is measured.", about)
            for scope in resource.scope_metrics:
                yield from map(_family, scope.metrics)


def _family(metric: Collected) -> Metric:
    """Return a metric as a Prometheus family, under the name from `prometheus.series`."""
    known = _BY_NAME[metric.name]
    name, keys = series(known)[0], [label(one) for one in known.labels]
    points = [
        ([str((point.attributes or {}).get(one, "")) for one in known.labels], cast("Any", point))
        for point in metric.data.data_points
    ]
    if known.kind == "histogram":
        durations = HistogramMetricFamily(name.removesuffix("_bucket"), known.description, labels=keys)
        for values, point in points:
            buckets = list(_buckets(point.explicit_bounds, point.bucket_counts))
            durations.add_metric(values, buckets=buckets, sum_value=point.sum)
        return durations
    kind = CounterMetricFamily if known.kind == "counter" else GaugeMetricFamily
    family = kind(name, known.description, labels=keys)
    for values, point in points:
        family.add_metric(values, point.value)
    return family


def _buckets(bounds: Iterable[float], counts: Iterable[int]) -> Iterator[tuple[str, float]]:
    """Yield each bucket's upper bound and the sum of the counts up to it."""
    total = 0
    for bound, count in zip((*map(repr, bounds), "+Inf"), counts, strict=True):
        total += count
        yield bound, total


class _Handler(WSGIRequestHandler):
    # For a socket that neither sends nor reads.
    timeout = _TIMEOUT_SECONDS

    def log_message(self, *_: object) -> None:
        """Log nothing: requests are of no interest."""


class _Server(WSGIServer):
    def server_bind(self) -> None:
        """Bind, without a look-up of this machine's name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing when a caller disconnects."""


class _ServerV6(_Server):
    address_family = AF_INET6
