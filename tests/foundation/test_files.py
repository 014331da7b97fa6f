"""Files that are whole or not there, and private where they must be."""

from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pdp.foundation.files import USUAL, draft_of, lock_file, make_file, make_folder, new_file, replacing


def mode_of(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Until the block ends there is the file of before, and nothing else stays behind."""
    path = tmp_path / "one"
    path.write_bytes(b"before")

    with replacing(path) as file:
        file.write(b"after")
        during = path.read_bytes()

    assert (during, path.read_bytes(), mode_of(path)) == (b"before", b"after", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_usual_file_has_the_mode_of_any_other(tmp_path: Path) -> None:
    """The user's mask says who may read it."""
    (tmp_path / "other").touch()

    with replacing(tmp_path / "one", mode=USUAL) as file:
        file.write(b"x")

    assert mode_of(tmp_path / "one") == mode_of(tmp_path / "other")


def test_nothing_is_replaced_by_half_a_file(tmp_path: Path) -> None:
    """What fails leaves the file of before."""
    path = tmp_path / "one"
    path.write_bytes(b"before")

    with pytest.raises(TypeError), replacing(path) as file:
        file.writelines([b"af", None])  # type: ignore[list-item]  # what fails in the middle

    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("one", b"before")]


def test_what_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    """In a container each process may have the number of one that was killed in the middle."""
    for left in (f".key.{os.getpid()}.partial", f"key.{os.getpid()}.partial"):
        (tmp_path / left).write_bytes(b"ha")

    assert make_file(tmp_path / "key", lambda: b"whole")
    assert (tmp_path / "key").read_bytes() == b"whole"


def test_threads_that_replace_the_same_file_do_not_mix(tmp_path: Path) -> None:
    """Each writes a draft of its own, and the file is the whole of the last one."""
    path, both_began = tmp_path / "one", threading.Barrier(2, timeout=30.0)

    def write(content: bytes) -> None:
        with replacing(path) as file:
            both_began.wait()
            file.write(content)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (b"first", b"second")))

    assert path.read_bytes() in (b"first", b"second")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_made_once(tmp_path: Path) -> None:
    """Neither one that was there nor one of a faster process is replaced."""
    path = tmp_path / "key"

    def overtaken() -> bytes:
        path.write_bytes(b"first")
        return b"second"

    assert not make_file(path, overtaken)
    assert not make_file(path, lambda: b"third")
    assert path.read_bytes() == b"first"


def test_a_new_file_goes_when_nothing_came_of_it(tmp_path: Path) -> None:
    """One that was there stays."""
    path = tmp_path / "one"
    with pytest.raises(ValueError, match="no"), new_file(path):
        raise ValueError("no")
    assert not path.exists()

    path.write_bytes(b"before")
    with pytest.raises(FileExistsError), new_file(path):
        pass
    assert path.read_bytes() == b"before"


def test_a_draft_is_private_and_goes(tmp_path: Path) -> None:
    """It lies on the disk of the file that it may become."""
    with draft_of(tmp_path / "one") as draft:
        found = (draft.name, mode_of(draft), mode_of(draft.parent), draft.parent.parent)

    assert found == ("one", 0o600, 0o700, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_names_of_new_folders_are_synced(tmp_path: Path) -> None:
    """Each in the folder above it; none for a folder that is there."""
    synced: list[Path] = []
    folder = tmp_path / "one" / "two"

    make_folder(folder, synced.append)
    make_folder(folder, synced.append)

    assert (sorted(synced), mode_of(folder)) == ([tmp_path, tmp_path / "one"], 0o700)


def test_one_of_two_has_the_lock(tmp_path: Path) -> None:
    """Until the file is closed."""
    first = lock_file(tmp_path / "lock")
    assert first is not None

    assert lock_file(tmp_path / "lock") is None
    os.close(first)
    again = lock_file(tmp_path / "lock")
    assert again is not None
    os.close(again)
