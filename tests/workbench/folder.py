"""Write the bundle of `material` as a folder, and run `pdp test` on it."""

from __future__ import annotations

from pathlib import Path

from pdp.testing.bundles import bundle_files
from tests.workbench.material import DIRECTORY, OVERLAY, POLICIES, SESSIONS, TOOLS


def write_bundle(folder: Path, tests: dict[str, str]) -> Path:
    """Write the bundle with some test files, by name; return the folder."""
    files = bundle_files(
        policies=POLICIES, tools=TOOLS, directory=DIRECTORY, overlays={"files": OVERLAY}, sessions=SESSIONS
    )
    for name, content in {**files, **{f"tests/{name}": text.encode() for name, text in tests.items()}}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
