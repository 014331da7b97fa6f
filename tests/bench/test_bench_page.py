"""The page of figures: it shows the result that is committed, and that result is a baseline."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import page
from pdp.bench import read_result
from pdp.bench.machine import control_digest


@pytest.fixture(name="latest")
def committed(project_root: Path) -> Path:
    """Return the file of the result that is committed."""
    return project_root / "benchmarks" / "latest.json"


def test_page_shows_the_committed_result(latest: Path) -> None:
    """Tables of another run than the one in the file would be a claim that cannot be checked."""
    shown = page.PAGE.read_text(encoding="utf-8").partition(page.BEGIN)[2].partition(page.END)[0]

    assert page.rendered(read_result(latest)) == shown


def test_page_shows_pictures_that_exist(latest: Path) -> None:
    """Each picture that the page refers to is committed, in both forms."""
    pictures = latest.parent / "pictures"

    shown = [name for name in ("latency", "throughput", "parts") if f"(pictures/{name}.svg)" in page.PAGE.read_text()]

    assert ["latency", "throughput", "parts"] == shown
    assert [] == [name for name in shown for ending in ("svg", "png") if not (pictures / f"{name}.{ending}").is_file()]


def test_committed_result_was_measured_beside_this_control(latest: Path) -> None:
    """Whoever changes the yardstick measures the baseline again: `make bench`."""
    assert control_digest() == read_result(latest).yardstick


def test_only_what_stands_between_the_marks_changes(
    latest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What people wrote on the page stays as it is."""
    place = tmp_path / "README.md"
    place.write_text(f"before\n{page.BEGIN}old figures\n{page.END}after\n", encoding="utf-8")
    monkeypatch.setattr(page, "PAGE", place)
    monkeypatch.setattr("sys.argv", ["page", str(latest)])

    page.main()

    written = place.read_text(encoding="utf-8")
    assert f"before\n{page.BEGIN}{page.rendered(read_result(latest))}{page.END}after\n" == written
