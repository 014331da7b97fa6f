"""All tests that speak to servers pass on the loop as they do on gRPC."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pdp.serving.transports import LOOP
from tests.machinery.servers.transports import VARIABLE


@pytest.mark.long
@pytest.mark.parametrize(
    "tests", ["server", "serving", "identity", "workers", "faults", "client", "audit", "decision/test_cases.py"]
)
def test_the_suite_passes_on_the_loop(project_root: Path, tests: str) -> None:
    """Roles, TLS, limits, statuses, streams, floods, kills, drains and decisions: the same tests, on the other one."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"tests/{tests}"],
        cwd=project_root,
        env=os.environ | {VARIABLE: LOOP},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-4000:]
