"""Copies of a record in a folder that several machines read, and answers from both."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdp.audit.searchable import SearchableRecord
from pdp.audit.sharing import SharedCopies
from pdp.audit.values import Filter
from pdp.errors import WrongStateError
from pdp.model import TraceParent
from pdp.record import DecisionLog, Rotation, SigningKey
from pdp.record.keys import PublicKeys
from pdp.record.segmentcheck import SegmentCheck
from pdp.record.verify import verify
from pdp.testing.clock import FakeClock
from pdp.testing.decisions import a_decision

SIGNER = SigningKey.generate()
PUBLIC = PublicKeys.of(SIGNER)


class Writer:
    """A log with a short segment, and its copies."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shared, self._count = folder / "record", folder / "shared", 0
        self.shared.mkdir()
        self.log = DecisionLog(
            self.folder, key=b"k" * 32, signer=SIGNER, clock=FakeClock(), rotation=Rotation(bytes=6000)
        )
        self.copies = SharedCopies(self.folder, self.shared)

    @property
    def chain(self) -> str:
        """Return the chain that it writes."""
        return self.log.path.name.split("-")[1]

    def decide(self, count: int = 1) -> None:
        """Record some decisions."""
        for _ in range(count):
            self._count += 1
            self.log.decision(a_decision(id=f"dec_{self._count}"), TraceParent())

    def bring(self) -> None:
        """Sign what there is, and copy it."""
        self.log.tick()
        self.copies.bring(self.chain, self.log.reached)

    def content(self, folder: Path) -> dict[str, bytes]:
        """Return the segments of a folder."""
        return {file.name: file.read_bytes() for file in sorted(folder.glob("*.jsonl"))}


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    """Give a log and its copies."""
    return Writer(tmp_path)


def test_a_copy_reaches_as_far_as_the_record_is_signed(writer: Writer) -> None:
    """What no checkpoint covers is not in it, and follows with the next."""
    writer.decide()
    writer.bring()
    signed = writer.content(writer.folder)
    writer.decide()
    writer.copies.bring(writer.chain, writer.log.reached)
    before = writer.content(writer.shared)
    writer.bring()

    assert signed == before
    assert writer.content(writer.folder) == writer.content(writer.shared)


def test_all_segments_are_copied_and_verify(writer: Writer) -> None:
    """Those that were ended meanwhile as a whole."""
    for _ in range(4):
        writer.decide(5)
        writer.bring()
    writer.log.close()
    writer.copies.bring(writer.chain)

    assert len(writer.content(writer.folder)) > 2
    assert writer.content(writer.folder) == writer.content(writer.shared)
    assert () == verify(writer.shared, PUBLIC).findings


def test_a_long_record_is_copied_in_parts(writer: Writer) -> None:
    """From its beginning, and the rest follows."""
    writer.decide(20)
    writer.log.close()
    in_parts = SharedCopies(writer.folder, writer.shared, most_bytes=4000)
    sizes = []
    while not in_parts.bring(writer.chain):
        sizes.append(sum(map(len, writer.content(writer.shared).values())))

    assert [4000 * number for number in range(1, len(sizes) + 1)] == sizes
    assert len(sizes) > 2
    assert writer.content(writer.folder) == writer.content(writer.shared)


@pytest.mark.parametrize("damage", [b"", b"x" * 9000])
def test_a_copy_that_is_not_the_beginning_is_kept_and_made_anew(writer: Writer, damage: bytes) -> None:
    """It may be all that is left of a record that was cut."""
    writer.decide(2)
    writer.bring()
    (copy,) = writer.shared.iterdir()
    changed = damage or copy.read_bytes().replace(b'"dec_1"', b'"dec_9"')
    copy.write_bytes(changed)
    writer.decide()
    writer.bring()

    assert writer.content(writer.folder) == writer.content(writer.shared)
    assert [changed] == [kept.read_bytes() for kept in writer.shared.glob("*.cut")]


def test_a_folder_that_is_not_there_is_not_made(writer: Writer) -> None:
    """A volume must find its place free when it comes back."""
    writer.shared.rmdir()
    with pytest.raises(FileNotFoundError):
        writer.bring()

    assert not writer.shared.exists()


def test_answers_come_from_the_own_folder_and_from_copies(writer: Writer, tmp_path: Path) -> None:
    """Each record once, also of a chain that is in both."""
    writer.decide(3)
    writer.bring()
    writer.decide()
    (tmp_path / "other").mkdir()
    other = Writer(tmp_path / "other")
    other.log.decision(a_decision(id="dec_other"), TraceParent())
    other.log.close()
    SharedCopies(other.folder, writer.shared).bring(other.chain)
    searchable = SearchableRecord(writer.folder, shared=writer.shared)
    found = [str(one.record()["id"]) for one in searchable.search().all(Filter(kind="decision"))]
    other_segment = next(iter(other.content(other.folder)))
    for file in writer.shared.glob("*"):
        file.unlink()
    without = [str(one.record()["id"]) for one in searchable.search().all(Filter(kind="decision"))]
    searchable.close()

    assert ["dec_1", "dec_2", "dec_3", "dec_4", "dec_other"] == sorted(found)
    assert ["dec_1", "dec_2", "dec_3", "dec_4"] == sorted(without)
    assert not (writer.folder / other_segment).exists()


def test_a_copy_can_be_verified_while_it_grows(writer: Writer, tmp_path: Path) -> None:
    """By its name, at a server that does not write it."""
    writer.decide()
    writer.bring()
    (tmp_path / "elsewhere").mkdir()
    found = SegmentCheck(tmp_path / "elsewhere", PUBLIC, shared=writer.shared).verify(writer.log.path.name)

    assert (3 + 1, ()) == (found.records, found.findings)


def test_a_copy_of_another_machine_can_be_verified_with_its_key(writer: Writer, tmp_path: Path) -> None:
    """Beside segments of this machine, whose key is another one."""
    writer.decide()
    writer.bring()
    (tmp_path / "elsewhere").mkdir()
    keys = PublicKeys.of(SigningKey.generate()) | PUBLIC
    found = SegmentCheck(tmp_path / "elsewhere", keys, shared=writer.shared).verify(writer.log.path.name)

    assert (3 + 1, ()) == (found.records, found.findings)


def test_a_copy_that_an_unknown_key_has_signed_is_not_judged(writer: Writer, tmp_path: Path) -> None:
    """It is no changed record, and no good one either: whoever has the public key can tell."""
    writer.decide()
    writer.bring()
    (tmp_path / "elsewhere").mkdir()
    check = SegmentCheck(tmp_path / "elsewhere", PublicKeys.of(SigningKey.generate()), shared=writer.shared)
    with pytest.raises(WrongStateError, match=r"the key `[0-9a-f]+` that signed it is not known here"):
        check.verify(writer.log.path.name)
