"""Commands of doors, as somebody runs them who makes a mistake."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
from click.testing import CliRunner, Result

from pdp.cli.root import root


def mistaken(door: str, words: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Run a door's command in a folder that has a `token`; return what it says."""
    monkeypatch.chdir(folder)
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text("sesame-sesame-sesame")
    # The memory of the tests stays readable.
    with patch("pdp.cli.doors.serving.keep_memory_private"):
        return CliRunner().invoke(root, ["door", door, "--data-dir", str(folder), "--plaintext", *words])
