"""Check the disks of the store and of the record: whether they can be written, and how much is free."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pdp.config.settings import Settings
from pdp.doctor.finding import Deployment, Finding, fine, problem, warning
from pdp.errors import reason_of
from pdp.foundation.diskroom import free_bytes

_CHECK: Final = "disk space"
_COMFORTABLE_SEGMENTS: Final = 8
# The space for a few sessions.
_TEST_BYTES: Final = 256 * 1024
# From file systems that have no unnamed files, or cannot allocate.
_UNSUPPORTED: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENOSYS)
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP: Final = 1024


def disk_space(deployment: Deployment) -> Iterator[Finding]:
    """Check the disk space for the record, and for the sessions if they are elsewhere."""
    settings = deployment.settings
    folders = {nearest(one) for one in (settings.record_folder, Path(settings.data_dir))}
    # One finding for each file system.
    for folder in {one.stat().st_dev: one for one in sorted(folders)}.values():
        free, segment = free_bytes(folder), settings.record.segment_bytes
        found = f"{_size(free)} free for `{folder}`, and one segment of the record takes {_size(segment)}"
        if trouble := _write_trouble(folder):
            yield problem(
                _CHECK, f"cannot write to `{folder}`: {trouble}", "free space: only what ends authority is done"
            )
        elif free < segment:
            remedy = "free space: on a full disk calls are denied, and sessions can only be ended"
            yield problem(_CHECK, found, remedy)
        elif free < segment * _COMFORTABLE_SEGMENTS:
            yield warning(
                _CHECK, found, "free space, or move old segments away; then use `pdp audit verify --missing-start`"
            )
        else:
            yield fine(_CHECK, f"{_size(free)} free for `{folder}`")


def store_trouble(settings: Settings) -> str:
    """Return why the store takes no sessions now, as its disk shows; else empty."""
    folder, reserve = nearest(Path(settings.data_dir)), settings.sessions.reserve_bytes
    free = free_bytes(folder)
    if free < reserve:
        return f"{_size(free)} are left, and the last {_size(reserve)} are reserved for ending sessions"
    return _write_trouble(folder)


def nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(one for one in (folder, *folder.parents) if one.exists())


def _write_trouble(folder: Path) -> str:
    """Return the error of writing a file in a folder; empty for none or no way to try.

    The file has no name, so nothing of it remains. Exhausted quotas and inodes show in no other way.
    """
    try:
        file = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, _TEST_BYTES)
        finally:
            os.close(file)
    except OSError as error:
        return "" if error.errno in _UNSUPPORTED else reason_of(error)
    return ""


def _size(count: float) -> str:
    unit = 0
    while count >= _STEP and unit < len(_UNITS) - 1:
        count, unit = count / _STEP, unit + 1
    return f"{count:.4g} {_UNITS[unit]}"
