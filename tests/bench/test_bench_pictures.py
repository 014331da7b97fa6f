"""Pictures of a run: which are drawn, and that they hold every server."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks.cerbos import CERBOS
from benchmarks.pictures import draw
from pdp.bench import Finding, Measurement, Result, Shape
from pdp.bench.figures import Figures
from pdp.bench.plan import ALL_MISSES, BARE, CONTROL, FULL, FULL_LOOP, LOOP_TLS, RECORDED

SERVERS = (CONTROL, BARE, RECORDED, FULL, FULL_LOOP, LOOP_TLS, CERBOS)


def result(*measurements: Measurement, others: float = 0.0) -> Result:
    """Return a run of three rounds, in which each server costs more than the one before."""
    return Result(
        at="2026-01-01T00:00:00Z",
        yardstick="sha256:a",
        machine={},
        effort="3 rounds",
        workload="generated",
        remarks=[],
        findings=[Finding(title=one.title, control=CONTROL, rounds=dict(rounds(others))) for one in measurements],
    )


def rounds(others: float) -> Iterable[tuple[str, list[Figures]]]:
    """Yield three rounds for each server."""
    for place, server in enumerate(SERVERS, start=1):
        latencies = tuple(place * one for one in (0.3, 0.4, 0.6, 0.8, 2.0, 9.0))
        yield (
            server,
            [
                Figures(cpu=40.0 * place + turn, rate=5000.0 / place, latencies=latencies, others=others)
                for turn in range(3)
            ],
        )


def ladder(*steps: int) -> list[Measurement]:
    """Return measurements by raw frames, one for each step."""
    return [Measurement(shape=Shape.FRAMES, concurrency=step) for step in steps]


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the pictures of a ladder of two steps, measured on a quiet machine."""
    folder = tmp_path_factory.mktemp("pictures")
    draw(result(*ladder(1, 16), others=0.01), folder)
    return folder


def test_a_whole_run_gives_every_picture_in_both_forms(tmp_path: Path) -> None:
    """Latency, throughput and parts come as SVG, which pages show, and PNG, which everything shows."""
    misses = Measurement(shape=Shape.FRAMES, concurrency=16, misses=ALL_MISSES)
    whole = result(*ladder(1, 4, 16, 64), misses, Measurement(shape=Shape.FRAMES, rate=2000.0))

    written = draw(whole, tmp_path / "pictures")

    names = [f"{name}.{ending}" for name in ("latency", "throughput", "parts") for ending in ("svg", "png")]
    assert names == [path.name for path in written]
    assert {".svg": {b"<?xml"}, ".png": {b"\x89PNG\r"}} == {
        ending: {path.read_bytes()[:5] for path in written if path.suffix == ending} for ending in (".svg", ".png")
    }


def test_every_server_stands_in_the_legend(two_steps: Path) -> None:
    """A line without a name says nothing."""
    shown = {name: (two_steps / f"{name}.svg").read_text(encoding="utf-8") for name in ("latency", "throughput")}
    assert {name: [True] * len(SERVERS) for name in shown} == {
        name: [f">{server}</text>" in text for server in SERVERS] for name, text in shown.items()
    }


def test_a_picture_of_a_busy_machine_says_so(tmp_path: Path, two_steps: Path) -> None:
    """A picture travels without its page, so it holds the warning itself."""
    draw(result(*ladder(1, 16), others=0.5), tmp_path)

    assert [True, False] == [
        "NOT A QUIET MACHINE" in (folder / "throughput.svg").read_text(encoding="utf-8")
        for folder in (tmp_path, two_steps)
    ]


def test_one_step_is_no_line(tmp_path: Path) -> None:
    """Without a ladder there is no picture of throughput, and the others are drawn."""
    written = draw(result(*ladder(16)), tmp_path)

    assert {"latency", "parts"} == {path.stem for path in written}


def test_a_run_without_latencies_gives_no_picture(tmp_path: Path) -> None:
    """Nothing is drawn of what was not measured."""
    assert [] == draw(result(), tmp_path)


def test_equal_figures_are_equal_pictures(tmp_path: Path, two_steps: Path) -> None:
    """A page changes when the figures do, and not with every run of the same file."""
    again = draw(result(*ladder(1, 16)), tmp_path)

    assert [(two_steps / path.name).read_bytes() for path in again] == [path.read_bytes() for path in again]
