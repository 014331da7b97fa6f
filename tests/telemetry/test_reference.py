"""The documentation names what is sent."""

from __future__ import annotations

from pathlib import Path

from pdp.telemetry import names
from pdp.telemetry.reference import door_reference, reference


def test_the_tables_are_current(project_root: Path) -> None:
    """The page beside the code holds the tables that follow from it."""
    page = (project_root / "pdp" / "telemetry" / "README.md").read_text(encoding="utf-8")

    doors = (project_root / "pdp" / "doors" / "TELEMETRY.md").read_text(encoding="utf-8")
    assert reference() in page
    assert door_reference() in doors


def test_every_name_is_in_the_tables() -> None:
    """No attribute has a name that the tables do not explain."""
    spoken = {name for name in vars(names) if name.isupper() and isinstance(getattr(names, name), str)}
    others = {
        "SCOPE",
        "SPAN_DECISION",
        "SPAN_REFUSED",
        "SPAN_SESSION",
        "EVENT_DECISION",
        "PHASE_PREFIX",
        "PHASE_SUFFIX",
        "OTHER",
    }
    others |= {"DECIDED", "LOGGED", "REFUSED_REQUEST", "SESSION_DECIDED", "SENDER"}
    labels = {label for metric in names.METRICS for label in metric.labels}

    explained = {attribute.name for attribute in names.ATTRIBUTES} | labels
    assert {getattr(names, name) for name in spoken - others} <= explained


def test_every_metric_is_in_the_table() -> None:
    """The table of metrics holds all metrics of the module."""
    assert {found for found in vars(names).values() if isinstance(found, names.Metric)} == set(names.METRICS)
