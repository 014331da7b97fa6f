"""The dashboard and the alerts ask for what the server sends, and for nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import yaml
from click.testing import CliRunner

from pdp.cli.root import root
from pdp.model import Basis, CacheResult, Outcome
from pdp.sessions.lease import FencedBy
from pdp.telemetry import names
from pdp.telemetry.dashboards import alert_rules, dashboard
from pdp.telemetry.prometheus import label, labels, series
from tests.telemetry.promql import FUNCTIONS, Query, read_query

# What Prometheus makes of the resource.
RESOURCE = {"job", "instance"}
SERIES = {name: set(labels(metric)) for metric in names.METRICS for name in series(metric)}
VALUES = {
    label(names.OUTCOME): {one.value for one in Outcome},
    label(names.BASIS): {one.value for one in Basis},
    label(names.CACHE): {one.value for one in CacheResult},
    label(names.RPC_STATUS): {one.name for one in grpc.StatusCode},
    label(names.ERROR_TYPE): {""},
    label(names.FENCED_BY): {one.value for one in FencedBy},
    "job": {"$job"},
}


def _panels() -> Iterator[tuple[str, str]]:
    for panel in json.loads(dashboard())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def _rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(alert_rules())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


QUERIES = [*_panels(), *((rule["alert"], rule["expr"]) for rule in _rules())]


@pytest.mark.parametrize(("title", "text"), QUERIES, ids=[title for title, _ in QUERIES])
def test_a_query_reads_what_is_sent(title: str, text: str) -> None:  # noqa: ARG001 - the id
    """Each metric, label and value of a query exists; `test_telemetry_service.py` shows that the server sends them."""
    query = read_query(text)

    assert query.matched
    assert set() == _unknown(query)
    assert query.functions <= FUNCTIONS


def _unknown(query: Query) -> set[str]:
    """Return the metrics, labels and values of a query that do not exist."""
    own = {one for name in query.matched for one in SERIES.get(name, set())}
    wrong = {name for name in query.matched if name not in SERIES}
    wrong |= {one for one in query.grouped if one not in own | RESOURCE}
    for name, matches in query.matched.items():
        for matched, texts in matches.items():
            wrong |= {matched} - SERIES.get(name, set()) - RESOURCE
            wrong |= {text for value in texts for text in value.split("|")} - VALUES[matched]
    return wrong


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("rate(pdp_decisions[5m])", {"pdp_decisions"}),
        ("sum by (outcome) (rate(pdp_decisions_total[5m]))", {"outcome"}),
        ('pdp_cache_lookups_total{pdp_cache="warm"}', {"warm"}),
        ('pdp_sessions{pdp_cache="hit"} / 2', {"pdp_cache"}),
        ("pdp_sessions or nothing", {"nothing"}),
        ("max(pdp_sessions) > 0.5", set()),
    ],
)
def test_a_wrong_query_is_noticed(text: str, unknown: set[str]) -> None:
    """The check itself finds metrics, labels and values that do not exist."""
    assert unknown == _unknown(read_query(text))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (names.DECISIONS, ("pdp_decisions_total",)),
        (
            names.DURATION,
            (
                "pdp_decision_duration_seconds_bucket",
                "pdp_decision_duration_seconds_count",
                "pdp_decision_duration_seconds_sum",
            ),
        ),
        (names.SESSIONS, ("pdp_sessions",)),
        (names.SPAN_QUEUE, ("otel_sdk_processor_span_queue_size",)),
        (names.BUNDLE_FAILURES, ("pdp_bundle_reload_failures_total",)),
    ],
)
def test_names_in_prometheus(metric: names.Metric, expected: tuple[str, ...]) -> None:
    """The translation is the one that the specification's rules give."""
    assert expected == series(metric)


def test_every_metric_is_on_the_dashboard() -> None:
    """A metric that nobody looks at would not be worth sending."""
    shown = {name for _, text in _panels() for name in read_query(text).matched}

    assert [metric.name for metric in names.METRICS if not shown & set(series(metric))] == []


def test_the_dashboard_can_be_imported() -> None:
    """Panels have ids of their own and do not overlap; every variable that queries use is declared."""
    board = json.loads(dashboard())
    panels = board["panels"]
    cells = [
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(panels) == len({panel["id"] for panel in panels})
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    used = set(re.findall(r"\$\{?(\w+)\}?", dashboard())) - {"__rate_interval", "__all"}
    assert used == {variable["name"] for variable in board["templating"]["list"]}


@pytest.mark.parametrize(
    "alert",
    [
        "PDPPolicyErrors",
        "PDPReloadFailures",
        "PDPDenySpike",
        "PDPRecordFailures",
        "PDPRecordLag",
        "PDPCacheHitRateLow",
        "PDPSlow",
    ],
)
def test_what_needs_somebody_has_an_alert(alert: str) -> None:
    """Each has a severity, a summary, and says what to do."""
    (rule,) = [rule for rule in _rules() if rule["alert"] == alert]

    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "description"}


@pytest.mark.parametrize(
    ("command", "printed"), [("dashboard", dashboard()), ("alerts", alert_rules())], ids=["dashboard", "alerts"]
)
def test_they_are_printed_as_they_are(command: str, printed: str) -> None:
    """What the command prints can be imported as it is."""
    done = CliRunner().invoke(root, ["telemetry", command], catch_exceptions=False, standalone_mode=False)

    assert printed == done.stdout
