"""What is found in one segment of a record, by a server that must answer soon."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdp.errors import NotFoundError, UnavailableError
from pdp.model import TraceParent
from pdp.record import DecisionLog, Rotation, SigningKey
from pdp.record.keys import PublicKeys
from pdp.record.segmentcheck import SegmentCheck
from pdp.record.verify import SegmentReport, verify
from pdp.testing.clock import FakeClock
from pdp.testing.decisions import a_decision

SIGNER = SigningKey.generate()
PUBLIC = PublicKeys.of(SIGNER)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a closed record of several segments."""
    log = _log(tmp_path)
    log.close()
    return tmp_path


def _log(folder: Path) -> DecisionLog:
    log = DecisionLog(folder, key=b"k" * 32, signer=SIGNER, clock=FakeClock(), rotation=Rotation(bytes=20_000))
    for number in range(60):
        log.decision(a_decision(id=f"dec_{number}"), TraceParent())
        if not number % 10:
            log.tick()
    return log


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("record-*.jsonl"))


def _check(file: Path, most_bytes: int = 1 << 20) -> SegmentReport:
    return SegmentCheck(file.parent, PUBLIC, most_bytes=most_bytes).verify(file.name)


def _problems(file: Path) -> list[str]:
    return [f"{one.line}: {one.problem}" for one in _check(file).findings]


def test_each_segment_of_an_untouched_record_is_as_it_was_written(folder: Path) -> None:
    """All of it is read, and its beginning compared; together that is the whole record."""
    found = [_check(file) for file in _files(folder)]

    assert len(found) > 2
    assert verify(folder, PUBLIC).records == sum(one.records for one in found)
    for one in found:
        assert ((), True, one.size_bytes) == (one.findings, one.joined, one.read_bytes)
        assert one.signed_at


@pytest.mark.parametrize("number", [0, 1, -1])
def test_a_changed_record_is_found_in_its_segment(folder: Path, number: int) -> None:
    """At the line after it, and nothing is found in the other segments."""
    file = _files(folder)[number]
    lines = file.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b'"v":1', b'"v":2')
    file.write_bytes(b"\n".join(lines))

    assert [
        "4: the record before this one is not the one that this record follows: it was changed or replaced"
    ] == _problems(file)
    assert [] == [problem for other in _files(folder) if other != file for problem in _problems(other)]


def test_what_joins_segments_is_found_on_both_sides(folder: Path) -> None:
    """A cut tail is found in its segment and in the next one."""
    file, following = _files(folder)[1:3]
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))

    (found,) = _problems(file)
    assert "the next segment does not follow record" in found
    assert ["missing before this one" in one for one in _problems(following)] == [True]


def test_a_cut_tail_of_the_last_segment_is_found(folder: Path) -> None:
    """No process writes it, and its end is not signed."""
    file = _files(folder)[-1]
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))

    assert "the chain is not closed" in _problems(file)[0]


def test_a_segment_in_use_may_end_unsigned(tmp_path: Path) -> None:
    """Its writer lives, so what is not signed yet is counted, and no finding."""
    log = _log(tmp_path)
    try:
        found = _check(_files(tmp_path)[-1])
    finally:
        log.close()

    assert () == found.findings
    assert found.unsigned > 0


def test_a_segment_whose_former_one_is_gone_is_not_joined(folder: Path) -> None:
    """That is said, and is no finding: old segments are removed."""
    first, second, *_ = _files(folder)
    first.unlink()
    found = _check(second)

    assert ((), False) == (found.findings, found.joined)


def test_only_so_much_is_read(folder: Path) -> None:
    """The report says how much: what comes later is not verified."""
    file = _files(folder)[0]
    file.write_bytes(file.read_bytes() + b"more\n")
    found = _check(file, most_bytes=5000)

    assert () == found.findings
    assert 5000 <= found.read_bytes < 10_000 < found.size_bytes


def test_another_key_is_named(folder: Path) -> None:
    """A checkpoint that the given keys did not sign proves nothing."""
    check = SegmentCheck(folder, PublicKeys.of(SigningKey.generate()))

    assert "which is not among the given keys" in str(check.verify(_files(folder)[0].name).findings[0])


@pytest.mark.parametrize("name", ["record-000000000000-000001.jsonl", "../record.key", "audit-index.sqlite", ""])
def test_only_segments_are_read(folder: Path, name: str) -> None:
    """Any other name is unknown."""
    with pytest.raises(NotFoundError):
        SegmentCheck(folder, PUBLIC).verify(name)


def test_what_is_no_file_is_found(folder: Path) -> None:
    """Nothing of it is read."""
    file = _files(folder)[0]
    file.unlink()
    file.mkdir()

    assert ("0: not a file", 0) == (_problems(file)[0], _check(file).read_bytes)


class _AskingMeanwhile(PublicKeys):
    """Keys that ask for another segment when they are needed for the first time."""

    def __init__(self) -> None:
        super().__init__([SIGNER.public])
        self.check: SegmentCheck | None = None
        self.answer = self.name = ""

    def __contains__(self, key_id: object) -> bool:
        if self.check and not self.answer:
            try:
                self.check.verify(self.name)
            except UnavailableError as error:
                self.answer = str(error)
        return super().__contains__(key_id)


def test_one_segment_is_verified_at_a_time(folder: Path) -> None:
    """A question meanwhile is told to ask again, and the next one is answered."""
    keys = _AskingMeanwhile()
    keys.check, keys.name = SegmentCheck(folder, keys), _files(folder)[0].name
    first = keys.check.verify(keys.name)

    assert "another segment of the record is being verified; ask again" == keys.answer
    assert first == keys.check.verify(keys.name)
