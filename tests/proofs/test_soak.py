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


@pytest.mark.long
def test_the_measurement_of_many_sessions_runs() -> None:
    """With a few hundred sessions, once each; what it finds with 100,000 stands in `benchmarks/README.md`."""
    command = [sys.executable, "-m", "benchmarks.sessions", "--sessions", "300", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    assert (0, "") == (done.returncode, done.stderr)
    assert "| revoke an agent's: all |" in done.stdout
