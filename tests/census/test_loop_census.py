"""What the connections of the loop keep is bounded in bytes, as its page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_connections_of_the_loop_take_what_its_page_says() -> None:
    """A thousand of them with headers that do not end, and then as much unread as all may leave."""
    page = (ROOT / "pdp" / "serving" / "README.md").read_text(encoding="utf-8")
    stated = [int(text) for text in re.findall(r"(\d+) MiB", page.partition("Memory: ")[2])]
    measured = subprocess.run(
        [sys.executable, "-m", "tests.census.loopconnections"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    taken = [float(line) for line in measured.stdout.split()]

    assert [most >= size > most / 2 for most, size in zip(stated, taken, strict=True)] == [True, True]
