"""What an adapter shows in the agent's own OpenTelemetry, which the agent has set up."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.metrics import _internal as metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from pdp.doors import agentspans
from pdp.doors.admissions import PLAIN, Form
from pdp.doors.core import Door, FrameworkCall
from pdp.telemetry import doornames
from pdp.testing.inprocess import RunningServer
from tests.doors.conformance import AGENT_SET_UP, AGENT_SHOWS, opened
from tests.doors.desk import MAPPED, PREFIX

NOTE = f"{PREFIX}note"


class Steered(Exception):  # noqa: N818 - as frameworks have it
    """Steers a run."""


STEERED: Form[Any] = Form(steering=(Steered,))


@pytest.fixture
def door(server: RunningServer) -> Door:
    """Return a door in a session of its own."""
    return Door(server.client("pep").attach(opened(server)[1]), MAPPED)


def _raising(error: BaseException) -> Callable[[Any], Any]:
    def tool(_: Any) -> Any:
        raise error

    return tool


ENDS: dict[str, tuple[str, Callable[[Any], Any], Form[Any], tuple[str, str, str]]] = {
    "a result": (NOTE, lambda _: "done", PLAIN, ("execute_tool note", "allow", "")),
    "an error of the tool": (NOTE, _raising(ValueError()), PLAIN, ("execute_tool note", "allow", "tool_error")),
    "a step of the framework": (NOTE, _raising(Steered()), STEERED, ("execute_tool note", "allow", "")),
    "a cancellation": (NOTE, _raising(asyncio.CancelledError()), PLAIN, ("execute_tool note", "allow", "no_result")),
    "too large": (f"{PREFIX}big", lambda _: "x" * 11, PLAIN, ("execute_tool big", "withheld", "result_withheld")),
    "a deny": (f"{PREFIX}closed", lambda _: "done", PLAIN, ("execute_tool", "deny", "")),
    "a person": (f"{PREFIX}pay", lambda _: "done", PLAIN, ("execute_tool", "waiting", "")),
    "a tool without an entry": ("elsewhere", lambda _: "done", PLAIN, ("execute_tool", "deny", "")),
}


@pytest.mark.parametrize("end", ENDS)
def test_each_outcome_is_shown(door: Door, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """A deny is an answer, and no error."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", AGENT_SET_UP)
    AGENT_SHOWS.clear()
    name, tool, form, expected = ENDS[end]
    with suppress(BaseException):
        door.run(FrameworkCall(name=name, arguments={}), tool, form)

    (span,) = AGENT_SHOWS.get_finished_spans()
    shown: Any = span.attributes
    assert expected == (span.name, shown["pdp.door.outcome"], shown.get("error.type", ""))
    assert bool(expected[2]) is not span.status.is_unset


def test_calls_are_counted_and_measured(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names and bounds that other doors have."""
    reader = InMemoryMetricReader()
    monkeypatch.setattr(metrics, "_METER_PROVIDER", MeterProvider([reader]))
    agentspans._measures.cache_clear()
    for name in (NOTE, NOTE, "elsewhere"):
        door.run(FrameworkCall(name=name, arguments={}), lambda _: "done")
    read: Any = reader.get_metrics_data()
    agentspans._measures.cache_clear()

    found = {one.name: one for one in read.resource_metrics[0].scope_metrics[0].metrics}
    calls = {
        point.attributes["pdp.door.outcome"]: point.value for point in found[doornames.CALLS.name].data.data_points
    }
    (questions,) = found[doornames.QUESTION.name].data.data_points
    (tools,) = found[doornames.UPSTREAM.name].data.data_points
    assert {"allow": 2, "deny": 1} == calls
    assert (2, 2, doornames.BOUNDS) == (questions.count, tools.count, tuple(questions.explicit_bounds))
    assert all(
        (one.unit, one.description) in {(m.unit, m.description) for m in doornames.METRICS} for one in found.values()
    )


class _Broken:
    def __getattr__(self, _: str) -> Any:
        raise RuntimeError("secret words")


@pytest.mark.parametrize("module", ["opentelemetry.trace", "opentelemetry.metrics"])
def test_what_the_agent_has_set_up_badly_concerns_no_call(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, module: str
) -> None:
    """The call runs, and the log says why it is not shown, without the words of an error."""
    monkeypatch.setitem(sys.modules, module, _Broken())
    said = door.run(FrameworkCall(name=NOTE, arguments={}), lambda _: "done")

    assert "done" == said
    assert "RuntimeError" in caplog.text
    assert "secret words" not in caplog.text
