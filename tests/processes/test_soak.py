"""The soak runs: sessions come and go, the bundle changes, and every answer is right."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.long
def test_a_short_soak_has_no_wrong_answer() -> None:
    """For twenty seconds at a modest rate; whether anything grows shows in a long one (`benchmarks/README.md`)."""
    command = [sys.executable, "-m", "benchmarks.soak", "--seconds", "20", "--rate", "200", "--live", "50"]
    done = subprocess.run([*command, "--reload", "4"], capture_output=True, text=True, check=False, timeout=300)

    assert "\n0 wrong" in done.stdout
    assert (0, True) == (done.returncode, "session_ended" in done.stdout), done.stdout
