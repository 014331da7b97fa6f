"""Private files, and files that are written atomically. Everything here raises `OSError`."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# For the owner alone; and the mode that the user's mask leaves, as for an ordinary file.
PRIVATE, USUAL = 0o600, 0o666


def open_private(path: Path) -> int:
    """Open a file for reading and writing; create it when missing."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE)


def open_new(path: Path, *, mode: int = PRIVATE, flags: int = 0) -> int:
    """Open a new file for writing; raise `FileExistsError` when it exists."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW | flags, mode)


def state_of(path: Path) -> tuple[int, ...]:
    """Return what changes whenever a file does: its place, times, size and mode; empty when it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_mode


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a new file; remove it when the `with` block raises."""
    descriptor = open_new(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def replacing(path: Path, *, mode: int = PRIVATE) -> Iterator[IO[bytes]]:
    """Write a file that replaces the old one at the end of the `with` block, unless that raises.

    Its data is on the disk first. Its name is not, without `sync_folder`: after a crash the old file may be there.
    """
    with _partial(path, mode) as (partial, file):
        yield file
        _sync(file)
        partial.replace(path)


def make_file(path: Path, make: Callable[[], bytes]) -> bool:
    """Write the bytes that `make` returns to a file unless it exists. Say whether it was written."""
    if path.exists():
        return False
    with _partial(path, PRIVATE) as (partial, file):
        file.write(make())
        _sync(file)
        try:
            # A link, because a rename would replace the file of a faster process.
            path.hardlink_to(partial)
        except FileExistsError:
            return False
    return True


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Yield an empty file of the same name in a new folder beside it. Remove the folder after the `with` block."""
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        draft.touch(mode=PRIVATE)
        yield draft


def make_folder(folder: Path, sync: Callable[[Path], None]) -> None:
    """Create a folder and the missing ones above it, and sync their names to disk with `sync`."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in made:
        sync(each.parent)


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_file(path: Path) -> int | None:
    """Open a file and lock it while this process keeps it open. Return None when another has the lock."""
    import fcntl  # noqa: PLC0415 - not every system has it

    descriptor = open_private(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _partial(path: Path, mode: int) -> Iterator[tuple[Path, IO[bytes]]]:
    # Random, because other threads, and processes of the same number in other containers, may write the same file.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with os.fdopen(open_new(partial, mode=mode), "wb") as file:
            yield partial, file
    finally:
        partial.unlink(missing_ok=True)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
