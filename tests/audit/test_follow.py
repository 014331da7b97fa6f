"""Following the log: every record once, over rotations and new segments."""

from __future__ import annotations

from pathlib import Path

from pdp.audit.follow import Follower
from pdp.audit.values import Found
from pdp.model import TraceParent
from pdp.observer import Event, EventKind
from pdp.record import DecisionLog, Rotation, SigningKey
from pdp.record.segments import segment_of
from pdp.testing.clock import FakeClock
from pdp.testing.decisions import a_decision

LINE = b'{"id":"dec_%d","kind":"decision","time":"2026-01-05T10:00:0%d.000000Z"}\n'


def segment(folder: Path, letter: str) -> Path:
    """Return the path of the first segment of a chain."""
    return segment_of(folder, letter * 12, 1).path


def ids(found: list[Found]) -> list[str]:
    """Return the ids of what was found."""
    return [one.record()["id"] for one in found]


def test_it_starts_with_the_last_lines_of_all_segments(tmp_path: Path) -> None:
    """The last records are the last in time, whichever worker wrote them."""
    segment(tmp_path, "a").write_bytes(LINE % (1, 1) + LINE % (4, 4))
    segment(tmp_path, "b").write_bytes(LINE % (2, 2) + LINE % (3, 3) + b'{"half')

    assert ["dec_1", "dec_2", "dec_3", "dec_4"] == ids(Follower(tmp_path).start())


def test_each_line_comes_once_when_it_is_whole(tmp_path: Path) -> None:
    """Half a line is no record yet; what was shown is not shown again."""
    path = segment(tmp_path, "a")
    path.write_bytes(LINE % (1, 1))
    follower = Follower(tmp_path)
    follower.start()
    seen = []
    with path.open("ab", buffering=0) as file:
        for piece in (LINE % (2, 2), b"", (LINE % (3, 3))[:20], (LINE % (3, 3))[20:], b"scribble\n"):
            file.write(piece)
            seen.append(ids(follower.poll()))

    assert [["dec_2"], [], [], ["dec_3"], []] == seen


def test_new_and_replaced_segments_are_read_from_their_start(tmp_path: Path) -> None:
    """A segment that appears is new, and one that is shorter than what was read is another one."""
    segment(tmp_path, "a").write_bytes(LINE % (1, 1) + LINE % (2, 2))
    follower = Follower(tmp_path)
    follower.start()
    segment(tmp_path, "b").write_bytes(LINE % (3, 3))
    segment(tmp_path, "a").write_bytes(LINE % (4, 4))

    assert ["dec_3", "dec_4"] == ids(follower.poll())


def test_nothing_is_missed_over_rotations(tmp_path: Path) -> None:
    """A log that rotates at every few records is followed to the last of them."""
    clock = FakeClock()
    log = DecisionLog(
        tmp_path,
        key=b"k" * 32,
        signer=SigningKey.generate(),
        clock=clock,
        rotation=Rotation(bytes=4096),
    )
    follower = Follower(tmp_path)
    follower.start()
    seen: list[str] = []
    for number in range(60):
        clock.advance(1.0)
        log.decision(a_decision(id=f"dec_{number}", decided_at=clock.now().wall_at), TraceParent())
        log.event(Event(kind=EventKind.BUNDLE_ACTIVATED, at=clock.now().wall_at))
        if number % 7 == 0:
            seen += [one.record()["id"] for one in follower.poll() if one.record()["kind"] == "decision"]
    log.close()
    seen += [one.record()["id"] for one in follower.poll() if one.record()["kind"] == "decision"]

    assert [f"dec_{number}" for number in range(60)] == seen
    assert len(list(tmp_path.glob("record-*.jsonl"))) > 3
