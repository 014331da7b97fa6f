"""What a loss of power leaves behind what was on the disk for sure is cut off at the next start, and nothing more."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pdp.observer import Event, EventKind
from pdp.record import DecisionLog, SigningKey
from pdp.record.disk import Disk
from pdp.record.keys import PublicKeys
from pdp.record.segments import Segment, segments_by_chain
from pdp.record.verify import verify

SIGNER = SigningKey.generate()


def opened(folder: Path, disk: Disk | None = None) -> DecisionLog:
    """Open a log that keeps elsewhere how far it came."""
    return DecisionLog(folder / "record", key=b"k" * 32, signer=SIGNER, anchors=folder / "heads", disk=disk)


def write(log: DecisionLog, events: int) -> None:
    """Write some records."""
    for number in range(events):
        log.event(Event(kind=EventKind.SERVER_STARTED, at=float(number)))


def segments(folder: Path) -> list[Segment]:
    """Return all segments."""
    return [segment for chain in segments_by_chain(folder / "record").values() for segment in chain]


def problems(folder: Path) -> list[str]:
    """Return what is found in the record, with the line."""
    found = verify(folder / "record", PublicKeys.of(SIGNER)).findings
    return [f"{one.line}: {one.problem}" for one in found]


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """Return the folder of a log whose power went: seven lines are known to be on the disk, four more were written."""
    with_power = tmp_path / "with power"
    log = opened(with_power)
    write(log, 4)
    log.tick()
    write(log, 4)
    shutil.copytree(with_power, tmp_path / "left")
    log.close()
    return tmp_path / "left"


def lines_of(folder: Path) -> list[bytes]:
    """Return the lines of the first segment."""
    return segments(folder)[0].path.read_bytes().splitlines(keepends=True)


def spoil(folder: Path, line: int, content: bytes) -> None:
    """Put something else in the place of a line of the first segment, by its number from 1."""
    lines = lines_of(folder)
    segments(folder)[0].path.write_bytes(b"".join([*lines[: line - 1], content, *lines[line:]]))


@pytest.mark.parametrize("hole", [b"", bytes(300), b"\0" * 100 + b"\n", b"garbage\n"])
def test_a_hole_behind_what_is_sure_is_cut_out(left: Path, hole: bytes) -> None:
    """All from the hole on is cut off, is kept beside the segment, and the chain goes on in front of it."""
    whole = lines_of(left)
    spoil(left, 9, hole)
    after = b"".join(lines_of(left))
    opened(left).close()

    first, second = segments(left)
    opening = json.loads(second.path.read_bytes().splitlines()[0])
    cut = first.path.with_suffix(".cut").read_bytes()
    assert lines_of(left) == whole[:8]
    assert b"".join(lines_of(left)) + cut == after
    assert (opening["after"], opening["cut_bytes"]) == ("killed", len(cut))
    assert problems(left) == []


def test_a_last_line_with_a_hole_is_cut_off(left: Path) -> None:
    """No line names the hash of the last one: a hole in its midst is found by reading it."""
    last = lines_of(left)[-1]
    spoil(left, 11, b'{"' + bytes(len(last) // 2) + last[len(last) // 2 + 2 :])
    opened(left).close()

    assert len(lines_of(left)) == 10
    assert problems(left) == []


def test_a_segment_that_did_not_come_to_the_disk_is_no_segment(left: Path) -> None:
    """A later segment that holds nothing but a hole is as if it was not made, and the one before it is mended."""
    spoil(left, 9, bytes(300))
    first = segments(left)[0].path
    first.with_name(first.name.replace("000001", "000002")).write_bytes(bytes(200))
    opened(left).close()

    assert [segment.number for segment in segments(left)] == [1, 2]
    assert problems(left) == []


@pytest.mark.parametrize("line", [1, 4, 7])
def test_what_was_on_the_disk_for_sure_is_never_cut(left: Path, line: int) -> None:
    """A line that was on the disk was changed by somebody or something else: it stays, and is found."""
    spoil(left, line, b"{}\n")
    spoiled = lines_of(left)
    opened(left).close()

    assert lines_of(left) == spoiled
    assert f"{line}: not a record" in problems(left)


def test_nothing_is_cut_behind_the_end_of_a_segment(tmp_path: Path) -> None:
    """A segment that was closed was on the disk as a whole: what stands behind its end was put there."""
    log = opened(tmp_path)
    write(log, 4)
    log.close()
    log.path.write_bytes(log.path.read_bytes() + b"forged\n")
    # As it was before the end was noted.
    (noted,) = (tmp_path / "heads").iterdir()
    noted.unlink()
    opened(tmp_path).close()

    assert log.path.read_bytes().endswith(b"forged\n")
    assert problems(tmp_path) == ["8: not a record"]


def test_of_other_chains_only_what_is_sure_is_named(tmp_path: Path) -> None:
    """A chain may lose in a loss of power what another one has read of it: that is no cut tail."""
    first = opened(tmp_path)
    write(first, 3)
    first.tick()
    write(first, 3)
    second = opened(tmp_path)
    second.close()
    first.close()

    heads = json.loads(second.path.read_bytes().splitlines()[0])["heads"]
    assert [head.partition(":")[0] for head in heads.values()] == ["6"]


def test_what_was_left_is_synced_before_the_chain_goes_on(left: Path) -> None:
    """A process that was killed left records that may not be on the disk: those in front of new ones must be."""
    before, synced = segments(left)[0].path, list[Path]()
    disk = replace(Disk(), sync=lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink()))
    opened(left, disk).close()

    assert synced[0] == before


def test_a_folder_that_is_made_has_its_name_on_the_disk(tmp_path: Path) -> None:
    """Folders of the record, and each of its segments, can be found after a loss of power."""
    synced: list[Path] = []
    opened(tmp_path / "new", replace(Disk(), sync_folder=synced.append)).close()

    assert synced == [tmp_path / "new", tmp_path, tmp_path / "new" / "record"]
