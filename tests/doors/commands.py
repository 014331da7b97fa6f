"""Commands of doors: as programs, and as somebody runs them who makes a mistake."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from click.testing import CliRunner, Result

from pdp.cli.root import root
from pdp.testing.otlp import OTLPReceiver

# The command line as a program of its own, which waits for a busy machine: for answers, and in the end for receivers.
_PROGRAM = """
from pdp.cli import main
from pdp.cli.doors import observing
from pdp.client import AsyncClient
from pdp.doors import session
from pdp.doors.mcp import stdio
AsyncClient.__init__.__kwdefaults__["timeout"] = 60.0
observing._END_SECONDS = session._MOST_START_SECONDS = session._MOST_END_SECONDS = 60.0
"""
PDP = (sys.executable, "-c", f"{_PROGRAM}main()")
# The same, for tools that end by themselves when their proxy does: it waits for them, too.
PDP_THAT_WAITS = (sys.executable, "-c", f"{_PROGRAM}stdio._END_SECONDS = 60.0; main()")


def environment_of_door(receiver: OTLPReceiver) -> dict[str, str]:
    """Return the environment in which a door's command sends to a receiver, which has got nothing yet."""
    receiver.requests.clear()
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PDP_", "OTEL_"))}
    return {**own, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}


def mistaken(door: str, words: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Run a door's command in a folder that has a `token`; return what it says."""
    monkeypatch.chdir(folder)
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text("sesame-sesame-sesame")
    # The memory of the tests stays readable.
    with patch("pdp.cli.doors.serving.keep_memory_private"):
        return CliRunner().invoke(root, ["door", door, "--data-dir", str(folder), "--plaintext", *words])
