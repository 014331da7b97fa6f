"""The index: only what is new is read, what was replaced is read anew, and it is never the truth."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from pdp.audit import AuditIndex, Search
from pdp.audit.values import Filter
from pdp.errors import UnavailableError
from pdp.record.segments import segment_of
from tests.audit.conftest import Investigated
from tests.machinery.investigation.bruteforce import everything

FIRST = (
    b'{"id":"dec_%d","kind":"decision","outcome":"allow","session_id":"ses_1","time":"2026-01-05T10:00:0%d.000000Z"}\n'
)


def line(number: int) -> bytes:
    """Return the line of a decision in a session; numbers below ten."""
    return FIRST % (number, number)


def found(index: AuditIndex) -> list[str]:
    """Return the ids of all decisions of the session, after catching up."""
    index.refresh()
    return [one.record()["id"] for one in Search(index).all(Filter(session_id="ses_1"))]


def put_in_place(segment: Path, kind: str) -> None:
    """Put something in the place of a segment."""
    segment.unlink()
    if kind == "pipe":
        os.mkfifo(segment)
    elif kind == "device":
        segment.symlink_to("/dev/zero")
    else:
        segment.mkdir()


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    """Return a segment with two decisions."""
    path = segment_of(tmp_path, "a" * 12, 1).path
    path.write_bytes(line(1) + line(2))
    return path


@pytest.fixture
def index(segment: Path) -> AuditIndex:
    """Return an index that knows the segment."""
    index = AuditIndex(segment.parent)
    index.refresh()
    return index


def test_new_lines_are_found_and_only_they_are_read(index: AuditIndex, segment: Path) -> None:
    """What was read stays read: a line that is appended is all that is indexed."""
    with segment.open("ab") as file:
        file.write(line(3))
    before = index.progress().read

    progress = index.refresh(most_bytes=len(line(3)))

    assert len(line(3)) == progress.read - before
    assert ["dec_1", "dec_2", "dec_3"] == found(index)


def test_a_line_that_is_being_written_waits(index: AuditIndex, segment: Path) -> None:
    """Half a line is no record, and is read when it is whole."""
    with segment.open("ab") as file:
        file.write(line(3)[:40])
        file.flush()
        assert ["dec_1", "dec_2"] == found(index)
        file.write(line(3)[40:])

    assert ["dec_1", "dec_2", "dec_3"] == found(index)


def test_half_a_character_hides_no_record(index: AuditIndex, segment: Path) -> None:
    """JSON can write one, and so can who asks without a server: the record and all after it are found."""
    half = line(3).replace(b'"kind"', rb'"tool":"\ud800","arguments":{"\ud800":"\ud800"},"kind"')
    with segment.open("ab") as file:
        file.write(half + line(4))

    assert ["dec_1", "dec_2", "dec_3", "dec_4"] == found(index)
    assert index.progress().broken == 0


def test_lines_that_are_no_records_are_counted_and_passed_over(index: AuditIndex, segment: Path) -> None:
    """What a full disk cut, or somebody scribbled, hides no record behind it."""
    rubbish = [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"time":"soon"}',
        b'{"time":7}',
        b"\xff\xfe",
        b'{"time":"2026-01-05"}',
        b"[" * 9999,
    ]
    with segment.open("ab") as file:
        file.write(b"\n".join(rubbish) + b"\n" + line(3))

    assert ["dec_1", "dec_2", "dec_3"] == found(index)
    assert len(rubbish) == index.progress().broken


def test_fields_of_other_types_are_empty(index: AuditIndex, segment: Path) -> None:
    """A record whose fields are not what they should be is kept and harms nobody."""
    with segment.open("ab") as file:
        file.write(b'{"kind":["x"],"session_id":{},"user":7,"facts":[],"id":null,"time":"2026-01-05T10:00:00Z"}\n')

    assert ["dec_1", "dec_2"] == found(index)
    assert 3 == len(list(Search(index).all(Filter())))


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_segment_that_is_no_file_is_named(index: AuditIndex, segment: Path, kind: str) -> None:
    """In a folder that came from others, a pipe would never answer and a device never end."""
    put_in_place(segment, kind)

    with pytest.raises(UnavailableError, match=rf"`{segment}`: is not a file"):
        index.refresh()


def test_new_segments_are_found_and_merged_by_time(index: AuditIndex, segment: Path) -> None:
    """Several files are one log."""
    segment_of(segment.parent, "b" * 12, 1).path.write_bytes(line(1).replace(b"dec_1", b"dec_b") + line(3))

    assert ["dec_1", "dec_b", "dec_2", "dec_3"] == found(index)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(line(7), id="shorter"),
        pytest.param(line(7) + line(8), id="as long"),
        pytest.param(line(7) + line(8) + line(9), id="longer"),
    ],
)
@pytest.mark.parametrize("in_place", [True, False])
def test_a_replaced_segment_is_read_anew(index: AuditIndex, segment: Path, content: bytes, *, in_place: bool) -> None:
    """Another file under the same name, or other bytes in the same file, replace what was known of it."""
    if not in_place:
        segment.unlink()
    segment.write_bytes(content)
    os.utime(segment, ns=(1, 1))

    assert [f"dec_{byte}" for byte in (7, 8, 9)][: content.count(b"\n")] == found(index)


def test_an_archived_segment_is_forgotten(index: AuditIndex, segment: Path) -> None:
    """What is no longer there is no longer found."""
    segment.rename(segment.with_suffix(".old"))

    assert [] == found(index)


def test_a_copy_with_its_index_is_not_read_again(index: AuditIndex, segment: Path, tmp_path: Path) -> None:
    """Whoever gets a copy of the folder gets the index with it."""
    index.close()
    copy = shutil.copytree(segment.parent, tmp_path / "copy")

    with AuditIndex(copy) as copied:
        assert copied.progress().complete
        assert ["dec_1", "dec_2"] == found(copied)


def test_a_changed_line_is_never_shown(index: AuditIndex, segment: Path) -> None:
    """An answer is what stands in the log, or none: a line that changed behind the index is refused, then read anew."""
    changed = segment.read_bytes().replace(b"allow", b"ALLOW")
    times = segment.stat()
    with segment.open("r+b") as file:
        file.write(changed)
    os.utime(segment, ns=(times.st_atime_ns, times.st_mtime_ns))

    with pytest.raises(UnavailableError, match=r"000001\.jsonl` was changed at byte 0"):
        found(index)

    assert ["dec_1", "dec_2"] == found(index)


@pytest.mark.parametrize("content", [b"this is no database" * 100, b""])
def test_a_damaged_index_is_built_anew(segment: Path, content: bytes) -> None:
    """The index can be deleted or ruined at any time."""
    (segment.parent / "audit-index.sqlite").write_bytes(content)

    with AuditIndex(segment.parent) as index:
        assert ["dec_1", "dec_2"] == found(index)


def test_an_index_that_is_damaged_in_use_is_built_anew(index: AuditIndex) -> None:
    """Whoever asks is told, and the next question goes on with a new index."""
    index.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    size = index.file.stat().st_size
    with index.file.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * (size - 100))
    index.rows("PRAGMA shrink_memory")

    with pytest.raises(UnavailableError, match="damaged and is being rebuilt"):
        found(index)

    assert ["dec_1", "dec_2"] == found(index)


def test_an_index_of_another_version_is_built_anew(index: AuditIndex) -> None:
    """After an upgrade nobody has to delete anything."""
    index.rows("PRAGMA user_version=99")
    index.close()

    with AuditIndex(index.folder) as again:
        assert ["dec_1", "dec_2"] == found(again)


def test_the_index_is_private(index: AuditIndex) -> None:
    """It tells who did what, like the log itself."""
    assert 0o600 == stat.S_IMODE(index.file.stat().st_mode)


def test_several_readers_index_one_log_together(
    incident: Investigated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four connections that catch up at once, piece by piece, lose and double nothing."""
    # One that waits for the file only looks now and then, and the others have work for seconds.
    monkeypatch.setattr("pdp.audit.indexfile._BUSY_MILLISECONDS", 120_000)
    file = tmp_path / "index.sqlite"
    indexes = [AuditIndex(incident.folder, file) for _ in range(4)]

    def catch_up(index: AuditIndex) -> None:
        while not index.refresh(most_bytes=300_000).complete:
            pass

    threads = [threading.Thread(target=catch_up, args=(index,)) for index in indexes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for index in indexes:
        assert [(len(incident.records),)] == index.rows("SELECT count(*) FROM records")
        index.close()


def test_everything_is_found_in_one_order(incident: Investigated) -> None:
    """All segments together are every line of every file, in order of time."""
    shown = [one.record() for one in incident.search.all(Filter())]

    assert everything(incident.folder) == shown


def test_a_folder_without_a_log_is_empty(tmp_path: Path) -> None:
    """Nothing recorded, nothing found."""
    with AuditIndex(tmp_path) as index:
        assert [] == found(index)


def test_an_index_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(UnavailableError, match="nowhere/index"):
        AuditIndex(tmp_path, tmp_path / "nowhere" / "index")


def test_the_index_leaves_what_is_kept_of_the_disk(segment: Path) -> None:
    """It grows no more where the rest is for ending authority; without news it answers, and with room again as well."""
    left = shutil.disk_usage(segment.parent).free
    AuditIndex(segment.parent).refresh()
    with AuditIndex(segment.parent, keep_bytes=2 * left) as short, AuditIndex(segment.parent, keep_bytes=1) as roomy:
        assert ["dec_1", "dec_2"] == found(short)
        with segment.open("ab") as file:
            file.write(line(3))

        with pytest.raises(UnavailableError, match=r"nearly full.*`record\.index_file`"):
            found(short)
        assert ["dec_1", "dec_2", "dec_3"] == found(roomy)
        assert ["dec_1", "dec_2", "dec_3"] == found(short)


def test_a_disk_without_room_is_told_and_forgotten(index: AuditIndex, segment: Path) -> None:
    """What could not be indexed is indexed when there is room."""
    pages = index._connection.execute("PRAGMA page_count").get
    index._connection.execute(f"PRAGMA max_page_count={pages}")
    with segment.open("ab") as file:
        file.writelines(line(3).replace(b"ses_1", b"ses_%d" % number) for number in range(2_000))
    with pytest.raises(UnavailableError, match="full"):
        index.refresh()

    index._connection.execute("PRAGMA max_page_count=1000000")

    assert index.refresh().complete
