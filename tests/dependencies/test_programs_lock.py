"""The locks of the programs that npm brings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

FOLDERS = ("tests/doors/mcp/programs", "tests/console/people", "tests/broker/real")


@pytest.mark.parametrize("folder", FOLDERS)
def test_programs_are_locked_by_their_digests(project_root: Path, folder: str) -> None:
    """Each by its own, and none names the place from which it came: any registry may bring it."""
    lock = json.loads((project_root / folder / "package-lock.json").read_bytes())
    packages = {name: one for name, one in lock["packages"].items() if name}

    assert [] == [name for name, one in packages.items() if not one["integrity"].startswith("sha512-")]
    assert [] == [name for name, one in packages.items() if "resolved" in one]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_lock_holds_what_is_asked_for(project_root: Path, folder: str) -> None:
    """In the very versions."""
    wanted = json.loads((project_root / folder / "package.json").read_bytes())["dependencies"]
    packages = json.loads((project_root / folder / "package-lock.json").read_bytes())["packages"]

    assert wanted == packages[""]["dependencies"]
    assert wanted == {name: packages[f"node_modules/{name}"]["version"] for name in wanted}
