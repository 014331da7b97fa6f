"""The documentation names what is sent."""

from __future__ import annotations

from pathlib import Path

from pdp.observer import CallOutcome, DoorCall, Refusal
from pdp.telemetry import doornames, names
from pdp.telemetry.doorspans import attributes_of
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


def test_every_name_of_a_door_is_in_its_tables(project_root: Path) -> None:
    """Each attribute of a call's span and each metric, and on the page each word of a closed list."""
    texts = {name: "x" for name, kind in DoorCall.__annotations__.items() if kind == "str"}
    seconds = {"began_at": 1.0, "seconds": 1.0, "question_seconds": 1.0, "upstream_seconds": 1.0}
    shown = attributes_of(DoorCall(outcome=CallOutcome.ALLOW, **texts, **seconds))  # type: ignore[arg-type] # by kind
    page = (project_root / "pdp" / "doors" / "TELEMETRY.md").read_text(encoding="utf-8")

    assert [attribute.name for attribute in doornames.ATTRIBUTES] == list(shown)
    assert {found for found in vars(doornames).values() if isinstance(found, names.Metric)} <= set(doornames.METRICS)
    assert [] == [word for word in (*CallOutcome, *Refusal, doornames.EXECUTE_TOOL) if f"`{word}`" not in page]
