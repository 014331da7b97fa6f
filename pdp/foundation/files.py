"""Files that are private, and there as a whole or not at all. Everything here raises `OSError`."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# For its owner alone; and whatever the user's mask leaves, as for a file that is simply written.
PRIVATE, USUAL = 0o600, 0o666


def open_private(path: Path) -> int:
    """Open a file for reading and writing; make it first where it is missing."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE)


def open_new(path: Path, *, mode: int = PRIVATE, flags: int = 0) -> int:
    """Open a file for writing that must not exist yet: `FileExistsError`."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW | flags, mode)


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that must not exist yet; it is removed when the `with` block raises."""
    descriptor = open_new(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def replacing(path: Path, *, mode: int = PRIVATE) -> Iterator[IO[bytes]]:
    """Write a file that takes its place in one step at the end of the `with` block, or not when that raises.

    It is on the disk before. Its name is not, without `sync_folder`: after a crash there may be what was there before.
    """
    with _partial(path, mode) as (partial, file):
        yield file
        _sync(file)
        partial.replace(path)


def make_file(path: Path, make: Callable[[], bytes]) -> bool:
    """Write a file with what `make` returns unless there is one; say whether it was written."""
    if path.exists():
        return False
    with _partial(path, PRIVATE) as (partial, file):
        file.write(make())
        _sync(file)
        try:
            # A link, because a rename would replace the file of a process that was faster.
            path.hardlink_to(partial)
        except FileExistsError:
            return False
    return True


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Yield an empty file of the same name in a folder beside it, which is removed at the end of the `with` block."""
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        draft.touch(mode=PRIVATE)
        yield draft


def make_folder(folder: Path, sync: Callable[[Path], None]) -> None:
    """Make a folder and those above it where they are missing, and bring their names to the disk by `sync`."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in made:
        sync(each.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_file(path: Path) -> int | None:
    """Open a file and lock it for as long as this process keeps it open; None when another process has the lock."""
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
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    # Of a process with this number that was killed.
    partial.unlink(missing_ok=True)
    try:
        with os.fdopen(open_new(partial, mode=mode), "wb") as file:
            yield partial, file
    finally:
        partial.unlink(missing_ok=True)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
