"""Open the files of a folder, but follow no link out of it: the folder's author may not read what the server can."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from pdp.errors import BundleError, Problem


def open_inside(folder: Path, path: Path) -> BinaryIO:
    """Open a file of a folder; follow a link only to a file of the same folder.

    Raise `BundleError` for a link that leads elsewhere and for what is not a file, `OSError` for what cannot be read.
    """
    root = Path(os.path.realpath(folder))
    real = require_inside(folder, path)
    try:
        # INVARIANT: no part is a link, and a link that is put there meanwhile is not followed.
        descriptor = os.open(root, os.O_RDONLY)
        for part in real.relative_to(root).parts:
            above, descriptor = descriptor, -1
            try:
                descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=above)
            finally:
                os.close(above)
    except FileNotFoundError:
        raise _problem(folder, path, "is not a file that can be read") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _problem(folder, path, "is not a file that can be read")
    return os.fdopen(descriptor, "rb")


def require_inside(folder: Path, path: Path) -> Path:
    """Return the target of a path in a folder. Raise `BundleError` when it is outside, or in a hidden folder.

    A name that begins with two dots is not hidden: Kubernetes mounts files as links through `..data`.
    """
    root, real = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
    if real.is_relative_to(root):
        parts = real.relative_to(root).parts
        if not any(part.startswith(".") and not part.startswith("..") for part in parts):
            return real
    raise _problem(folder, path, "is a link to something outside the folder, or hidden in it")


def _problem(folder: Path, path: Path, message: str) -> BundleError:
    return BundleError((Problem(path.relative_to(folder).as_posix(), 0, message),))
