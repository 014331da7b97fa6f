"""The broker beside a server, as its own doctor sees it: in another process, since a server has none of its code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pdp.doctor.finding import Finding, Level, problem

_SECONDS: Final = 120.0
_REMEDY: Final = "see `pdp-broker doctor`, as the broker's user"


def broker(settings: Path) -> Iterator[Finding]:
    """Yield what `pdp-broker doctor` finds about the broker of a file of settings."""
    words = [sys.executable, "-m", "pdp.broker.cli", "doctor", "--settings", str(settings), "--json"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_SECONDS)  # noqa: S603 - this interpreter
    except (OSError, subprocess.TimeoutExpired):
        yield problem("broker", "its doctor cannot be started, or does not answer", _REMEDY)
        return
    if not done.stdout:
        said = done.stderr.splitlines()[-1:] or ["its doctor says nothing"]
        yield problem("broker", f"it cannot be examined: {said[0]}", _REMEDY)
        return
    for one in json.loads(done.stdout)["findings"]:
        level = Level(one["level"])
        remedy = "" if level is Level.OK else _REMEDY
        yield Finding(check=f"broker: {one['check']}", level=level, found=one["found"], remedy=remedy)
