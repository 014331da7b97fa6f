"""What a newcomer reads when a test is wrong: each kind of slip has a golden file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from pdp.cli.root import root
from tests.workbench.folder import write_bundle

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("kind", sorted(path.stem for path in GOLDEN.glob("*.yaml")))
def test_message_is_the_golden_one(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`KIND.yaml` holds one wrong test, and `KIND.txt` all that `pdp test` says about it."""
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "policies", {"files_test.yaml": (GOLDEN / f"{kind}.yaml").read_text(encoding="utf-8")})

    done = CliRunner().invoke(root, ["test", "policies"], prog_name="pdp")

    said = re.sub(r"\(\d+\.\d+ s\)", "(… s)", done.output) + f"exit code {done.exit_code}\n"
    assert (GOLDEN / f"{kind}.txt").read_text(encoding="utf-8") == said
