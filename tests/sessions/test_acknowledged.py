"""What a machine knows to be acknowledged outlives its processes, and half of it is nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from fcntl import LOCK_EX, LOCK_UN, flock
from pathlib import Path

import pytest

from pdp.model import Head
from pdp.sessions.acknowledged import NOTHING, Acknowledged, AcknowledgedFile, Known

FIRST, SECOND = (Known(head=Head(revision=revision, tag=f"tag {revision}"), timeline="00000001") for revision in (7, 8))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give where the file is to be."""
    return tmp_path / "acknowledged"


@pytest.fixture
def file(path: Path) -> Iterator[AcknowledgedFile]:
    """Give the file of a machine that knows nothing."""
    with closing(AcknowledgedFile(path, deployment="here")) as file:
        yield file


def test_another_process_reads_the_latest_that_was_kept(file: AcknowledgedFile, path: Path) -> None:
    """Whichever came last, and nothing before."""
    before = file.read()
    for known in (FIRST, SECOND, FIRST):
        file.keep(known)
    with closing(AcknowledgedFile(path, deployment="here")) as other:
        assert (NOTHING, SECOND) == (before, other.read())


def test_what_is_of_another_database_is_nothing(file: AcknowledgedFile, path: Path) -> None:
    """Its numbers mean something else."""
    file.keep(SECOND)
    with closing(AcknowledgedFile(path, deployment="there")) as other:
        found = other.read()
        other.keep(FIRST)

        assert (NOTHING, FIRST) == (found, other.read())


@pytest.mark.parametrize("place", range(0, 8192, 4096))
def test_half_of_a_record_leaves_the_other_one(file: AcknowledgedFile, path: Path, place: int) -> None:
    """A loss of power while one is written costs that one."""
    file.keep(FIRST)
    file.keep(SECOND)
    with path.open("r+b") as torn:
        torn.seek(place + 4)
        torn.write(b"\xff" * 8)

    assert file.read() == (SECOND if place == 0 else FIRST)


def test_a_process_that_has_stopped_holds_no_other_one_up(file: AcknowledgedFile, path: Path) -> None:
    """While it writes: a change is acknowledged with an error, and none waits for ever."""
    with path.open("rb") as stopped, closing(AcknowledgedFile(path, deployment="here", seconds=0.05)) as other:
        flock(stopped, LOCK_EX)
        with pytest.raises(OSError, match="another process holds its file"):
            other.keep(FIRST)
        flock(stopped, LOCK_UN)
        other.keep(SECOND)

    assert SECOND == file.read()


@pytest.mark.parametrize("size", [4096, 5000, 8191])
def test_a_file_that_was_cut_keeps_what_is_left(file: AcknowledgedFile, path: Path, size: int) -> None:
    """By what comes next, too."""
    file.keep(FIRST)
    file.close()
    with path.open("r+b") as cut:
        cut.truncate(size)
    with closing(AcknowledgedFile(path, deployment="here")) as other:
        found = other.read()
        other.keep(SECOND)

        assert (FIRST, SECOND) == (found, other.read())


@pytest.mark.parametrize(("reads_count", "expected"), [(True, 8), (False, 7)])
def test_what_is_only_read_counts_where_it_cannot_be_taken_back(*, reads_count: bool, expected: int) -> None:
    """Memory must have it in any case."""
    acknowledged = Acknowledged(7, reads_count=reads_count)
    acknowledged.see(8, "tag", "00000001")
    acknowledged.require(8, 7)

    assert (expected, 8) == (acknowledged.revision, acknowledged.seen)


def test_a_tag_is_learned_later_but_never_changed() -> None:
    """Of the same revision: another tag would be of another history."""
    acknowledged = Acknowledged(8)
    for tag in ("first", "second"):
        acknowledged.note(8, tag, "00000001")
    acknowledged.note(7, "older", "00000001")

    assert Known(head=Head(revision=8, tag="first"), timeline="00000001") == acknowledged.known
