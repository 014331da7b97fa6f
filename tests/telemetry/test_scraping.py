"""What Prometheus finds when it fetches the metrics itself."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from prometheus_client.parser import text_string_to_metric_families

from pdp.config.reading import load
from pdp.errors import ConfigurationError
from pdp.model import TraceParent
from pdp.telemetry import names
from pdp.telemetry.build import build_telemetry
from pdp.telemetry.metrics import Metrics
from pdp.telemetry.observer import Telemetry
from pdp.telemetry.prometheus import labels, series
from pdp.telemetry.scraping import PrometheusEndpoint, _Handler
from pdp.telemetry.settings import TelemetrySettings
from pdp.testing.decisions import a_decision
from pdp.testing.otlp import OTLPReceiver
from pdp.testing.waiting import wait_until
from tests.machinery.ports import free_port
from tests.telemetry.service import REPORTED, everything, serving

PATIENCE = 60.0


@contextmanager
def shown(metrics: Metrics, host: str = "127.0.0.1") -> Iterator[int]:
    """Show metrics on a port while the block runs."""
    endpoint = PrometheusEndpoint(metrics.peek, host=host, port=0)
    try:
        yield endpoint.port
    finally:
        assert endpoint.shut_down(PATIENCE)


def fetched(port: int, host: str = "127.0.0.1") -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Return what a page of metrics says: the values of each series, by its labels."""
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=PATIENCE) as answer:
        page = answer.read().decode("utf-8")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            given = {name: value for name, value in sample.labels.items() if value}
            found.setdefault(sample.name, {})[tuple(sorted(given.items()))] = sample.value
    return found


def test_every_metric_has_the_name_that_the_page_says(tmp_path: Path) -> None:
    """All metrics of the table are found, under the names and labels of its last column, and no others of ours."""
    port = free_port()
    with OTLPReceiver() as receiver:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_BLRP_SCHEDULE_DELAY": "50",
        }
        with serving(tmp_path, prometheus_address=f"127.0.0.1:{port}", **variables) as service:
            everything(service)
            # What became of spans and log records is counted when they have been sent.
            wait_until(lambda: len([name for name in fetched(port) if name.endswith("_exported_total")]) == 2)
            wait_until(lambda: "pdp_messages_sent_total" in fetched(port))
            found = fetched(port)

    expected = {name: set(labels(metric)) for metric in REPORTED for name in series(metric)}
    assert set(expected) == {name for name in found if name.startswith(("pdp_", "otel_"))}
    for name, known in expected.items():
        assert {label for values in found[name] for label, _ in values} <= known, name
    assert "pdp" in dict(next(iter(found["target_info"])))["service_name"]


def test_counts_are_totals_however_often_they_are_fetched() -> None:
    """A counter and a histogram say what happened from the beginning; buckets add up to the count."""
    metrics = Metrics(Resource({}), "1")
    telemetry = Telemetry(spans=None, metrics=metrics)
    for duration_us in (3.0, 700.0, 2_000_000.0):
        telemetry.decision(a_decision(duration_us=duration_us), TraceParent())

    with shown(metrics) as port:
        first, second = fetched(port), fetched(port)

    assert first == second
    assert [3.0] == list(first["pdp_decisions_total"].values())
    buckets = {dict(key)["le"]: value for key, value in first["pdp_decision_duration_seconds_bucket"].items()}
    assert (1.0, 2.0, 3.0) == (buckets["5e-06"], buckets["0.00128"], buckets["+Inf"])


def test_a_fetch_takes_nothing_from_what_is_sent() -> None:
    """The traces that lead to slow decisions are told to the receiver, whoever looked before."""
    metrics = Metrics(Resource({}), "1")
    Telemetry(spans=lambda _: None, metrics=metrics).decision(a_decision(), TraceParent())

    with shown(metrics) as port:
        fetched(port)

    (data,) = [
        metric.data
        for metric in metrics.collect().resource_metrics[0].scope_metrics[0].metrics
        if metric.name == names.DURATION.name
    ]
    assert [1] == [len(point.exemplars) for point in data.data_points]


def test_a_caller_that_says_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is open and silent is left after a moment, and the next is answered."""
    # The moment is a fiftieth of the product's, which has one. The next caller can be late: the machine may be busy.
    moments, set_up = [_Handler.timeout / 50], _Handler.setup

    def begin(handler: _Handler) -> None:
        vars(handler)["timeout"] = moments.pop() if moments else PATIENCE
        set_up(handler)

    monkeypatch.setattr(_Handler, "setup", begin)

    with shown(Metrics(Resource({}), "1")) as port, socket.create_connection(("127.0.0.1", port)):
        assert "target_info" in fetched(port)


def test_an_address_of_the_sixth_version() -> None:
    """The endpoint listens on `::1` as well, where the machine has it."""
    with suppress(OSError), socket.socket(socket.AF_INET6) as tried:
        tried.bind(("::1", 0))
        with shown(Metrics(Resource({}), "1"), host="::1") as port:
            assert "target_info" in fetched(port, host="[::1]")


def test_each_worker_has_a_port_of_its_own() -> None:
    """The first has the port of the setting, the second the next."""
    first = free_port(2)
    built = [build_telemetry(TelemetrySettings(), worker=worker, scraped=("127.0.0.1", first)) for worker in (1, 2)]

    found = [fetched(first + number)["target_info"] for number in (0, 1)]
    for telemetry in built:
        telemetry.shutdown()

    assert ["1", "2"] == [dict(next(iter(one)))["pdp_worker"] for one in found]


def test_a_port_that_is_taken_is_an_error() -> None:
    """The server does not start, and says which setting it is."""
    with shown(Metrics(Resource({}), "1")) as port, pytest.raises(ConfigurationError, match="prometheus_address"):
        build_telemetry(TelemetrySettings(), scraped=("127.0.0.1", port))


def test_what_is_no_total_is_not_shown() -> None:
    """Metrics that are sent as differences cannot be fetched as well; no thread is left that sends them."""
    wanted, before = TelemetrySettings(metrics="console", temporality="delta"), set(threading.enumerate())

    with pytest.raises(ConfigurationError, match="must be `cumulative`"):
        build_telemetry(wanted, scraped=("127.0.0.1", free_port()))

    assert not [one.name for one in set(threading.enumerate()) - before if one.name.startswith("pdp-telemetry")]


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("0.0.0.0:9464", "can be reached by others"),
        ("metrics.example:9464", "can be reached by others"),
        ("127.0.0.1", "must be `host:port`"),
        ("127.0.0.1:0", "must be `host:port`"),
        ("127.0.0.1:65536", "must be `host:port`"),
    ],
)
def test_metrics_stay_on_this_machine(address: str, problem: str) -> None:
    """Whoever may read the page is not asked who they are: no address that others reach is taken."""
    with pytest.raises(ConfigurationError, match=problem):
        load(environ={"PDP_TELEMETRY__PROMETHEUS_ADDRESS": address})
