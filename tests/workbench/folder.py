"""Write the bundle of `material` as a folder, and run `pdp test` on it."""

from __future__ import annotations

from pathlib import Path

from tests.workbench.material import material_files


def write_bundle(folder: Path, tests: dict[str, str]) -> Path:
    """Write the bundle with some test files, by name; return the folder."""
    for name, content in {
        **material_files(),
        **{f"tests/{name}": text.encode() for name, text in tests.items()},
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
