"""Watching a policy folder: a change counts when it has settled."""

from __future__ import annotations

from pathlib import Path
from threading import Event

from pdp.bundles.watching import FolderWatch, Settling, signature

OLD, HALF, NEW = (("a", 1, 1, 1),), (("a", 2, 2, 2),), (("a", 3, 3, 3),)


def test_change_counts_when_two_scans_agree() -> None:
    """A half-copied folder is not taken; the settled one is, once."""
    settling = Settling(OLD)

    assert [False, False, False, True, False] == [settling.settled(scan) for scan in (OLD, HALF, NEW, NEW, NEW)]


def test_change_that_is_undone_does_not_count() -> None:
    """What is back to what is loaded needs no load."""
    settling = Settling(OLD)

    assert [False, False, False] == [settling.settled(scan) for scan in (HALF, OLD, OLD)]


def test_signature_sees_files_of_the_bundle_only(tmp_path: Path) -> None:
    """Tests, notes and hidden files are no part of a bundle."""
    before = signature(tmp_path)
    for name in ("README.md", ".hidden.cedar", "tests.txt"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    same = signature(tmp_path)
    (tmp_path / "a.cedar").write_text("x", encoding="utf-8")

    assert before == same
    assert before != signature(tmp_path)


def test_signature_sees_a_mended_mode(tmp_path: Path) -> None:
    """A file that the server could not read may be readable now, with the same content."""
    path = tmp_path / "a.cedar"
    path.write_text("x", encoding="utf-8")
    path.chmod(0o000)
    before = signature(tmp_path)

    path.chmod(0o644)

    assert before != signature(tmp_path)


def test_vanished_folder_is_no_error(tmp_path: Path) -> None:
    """A folder that is swapped away for a moment is looked at again later."""
    assert isinstance(signature(tmp_path / "gone"), tuple)


def test_watch_tells_of_a_settled_change(tmp_path: Path) -> None:
    """The thread calls when files have changed, and ends when it is told to."""
    changed = Event()

    def take() -> bool:
        changed.set()
        return True

    watch = FolderWatch(tmp_path, take, interval=0.01)
    watch.start()

    (tmp_path / "a.cedar").write_text("x", encoding="utf-8")

    assert changed.wait(30)
    watch.stop()


def test_watch_tells_again_until_it_is_taken(tmp_path: Path) -> None:
    """A change that could not be taken for a passing reason is not forgotten."""
    (tmp_path / "a.cedar").write_text("x", encoding="utf-8")
    tries: list[int] = []
    taken = Event()

    def changed() -> bool:
        tries.append(1)
        if len(tries) == 3:
            taken.set()
        return len(tries) >= 3

    watch = FolderWatch(tmp_path, changed, interval=0.01)
    watch.start()

    assert taken.wait(30)
    watch.stop()
    assert 3 == len(tries)
