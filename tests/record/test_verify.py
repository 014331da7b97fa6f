"""What is found in a record that is no longer as it was written, with nothing but the public key."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from pdp.errors import ConfigurationError
from pdp.limits import RECORD_LINE_BYTES
from pdp.model import TraceParent
from pdp.observer import Event, EventKind
from pdp.record import DecisionLog, Rotation, SigningKey, read_records
from pdp.record.envelope import Place, canonical, hash_of, own_body, placed
from pdp.record.keys import PublicKeys
from pdp.record.segments import Head, segment_of, segments_by_chain
from pdp.record.verify import Report, verify
from pdp.testing.clock import FakeClock
from pdp.testing.decisions import a_decision

KEY = b"k" * 32
SIGNER = SigningKey.generate()
PUBLIC = PublicKeys.of(SIGNER)
NO_PARENT = TraceParent()
SEED = int(os.environ.get("RECORD_SEED") or random.SystemRandom().randrange(2**32))


def write(folder: Path, records: int, *, segment_bytes: int = 1 << 20, close: bool = True) -> DecisionLog:
    """Write a record of so many decisions."""
    log = DecisionLog(folder, key=KEY, signer=SIGNER, clock=FakeClock(), rotation=Rotation(bytes=segment_bytes))
    for number in range(records):
        log.decision(a_decision(id=f"dec_{number}"), NO_PARENT)
    if close:
        log.close()
    return log


def files(folder: Path) -> list[Path]:
    """Return the segments of the only chain in a folder."""
    ((_, segments),) = segments_by_chain(folder).items()
    return [segment.path for segment in segments]


def problems(folder: Path, *, open_end: bool = False, missing_start: bool = False) -> list[str]:
    """Verify a folder; return `file number:line: what` of each finding."""
    report = verify(folder, PUBLIC, open_end=open_end, missing_start=missing_start)
    return [told(one.file, one.line, one.problem) for one in report.findings]


def told(file: Path, line: int, problem: str) -> str:
    """Name a finding by the number of its segment."""
    return f"{int(file.stem.rpartition('-')[2])}:{line}: {problem}"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Return a folder with a closed record of one segment: opening, checkpoint, decisions 0 to 9, checkpoint."""
    write(tmp_path, 10)
    return tmp_path


@contextmanager
def changed(file: Path, content: bytes) -> Iterator[None]:
    """Give a file another content while the `with` block runs."""
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


def lines_of(file: Path) -> list[bytes]:
    """Return the lines of a file with their newlines."""
    return file.read_bytes().splitlines(keepends=True)


# Ways to tamper: from the lines of a segment and a place among them to other lines.
def _dropped(lines: list[bytes], place: int) -> list[bytes]:
    return lines[:place] + lines[place + 1 :]


def _repeated(lines: list[bytes], place: int) -> list[bytes]:
    return [*lines[:place], lines[place], *lines[place:]]


def _swapped(lines: list[bytes], place: int) -> list[bytes]:
    place = min(place, len(lines) - 2)
    return [*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]]


def _moved(lines: list[bytes], place: int) -> list[bytes]:
    rest = _dropped(lines, place)
    target = (place + len(rest) // 2 + 1) % len(rest)
    return [*rest[:target], lines[place], *rest[target:]]


TAMPERINGS = {"dropped": _dropped, "repeated": _repeated, "swapped": _swapped, "moved": _moved}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a closed record of 10,000 decisions in a dozen segments."""
    folder = tmp_path_factory.mktemp("large")
    write(folder, 10_000)
    return folder


def test_an_untouched_record_is_as_it_was_written(large: Path) -> None:
    """A record of many segments, closed, has no finding, and every record was read."""
    report = verify(large, PUBLIC)

    (chain,) = report.chains
    assert (report.findings, chain.closed, chain.unsigned, chain.live) == ((), True, 0, False)
    assert chain.segments == len(files(large)) > 10
    assert report.records == chain.seq > 10_000


@pytest.mark.parametrize("samples", [24, pytest.param(2000, marks=pytest.mark.long)])
def test_a_changed_bit_is_found(large: Path, samples: int) -> None:
    """Any single bit of 10,000 records can be turned: it is found, in its line or in the next one."""
    print(f"seed {SEED}")  # noqa: T201 - to repeat it
    choices = random.Random(SEED)  # noqa: S311 - no secret
    unnoticed = []

    for _ in range(samples):
        file = choices.choice(files(large))
        content = bytearray(file.read_bytes())
        bit = choices.randrange(len(content) * 8)
        content[bit // 8] ^= 1 << bit % 8
        with changed(file, bytes(content)):
            if not verify(large, PUBLIC).findings:
                unnoticed.append((file.name, bit))

    assert unnoticed == []


def test_every_bit_of_the_end_counts(small: Path) -> None:
    """In the last checkpoint, which nothing follows, no byte can be changed by a bit unnoticed."""
    (file,) = files(small)
    content = file.read_bytes()
    last = len(content) - len(lines_of(file)[-1])

    def noticed(place: int, bit: int) -> bool:
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        return bool(verify(small, PUBLIC).findings)

    # The fifth bit tells capital letters from small ones.
    bits = [(place, bit) for place in range(last, len(content)) for bit in (5, place % 5)]
    assert [bit for bit in bits if not noticed(*bit)] == []


@pytest.mark.parametrize("kind", TAMPERINGS)
@pytest.mark.parametrize("samples", [6, pytest.param(500, marks=pytest.mark.long)])
def test_a_record_out_of_its_place_is_found(large: Path, kind: str, samples: int) -> None:
    """Any record of 10,000 that is dropped, repeated, or stands elsewhere is found."""
    print(f"seed {SEED}")  # noqa: T201 - to repeat it
    choices = random.Random(SEED)  # noqa: S311 - no secret
    unnoticed = []

    for _ in range(samples):
        file = choices.choice(files(large))
        lines = lines_of(file)
        place = choices.randrange(len(lines))
        with changed(file, b"".join(TAMPERINGS[kind](lines, place))):
            if not verify(large, PUBLIC).findings:
                unnoticed.append((file.name, place))

    assert unnoticed == []


def test_a_changed_record_is_named_where_it_no_longer_fits(small: Path) -> None:
    """The finding stands at the line after the one that was changed."""
    (file,) = files(small)
    lines = lines_of(file)
    lines[4] = lines[4].replace(b'"user":"alice"', b'"user":"mallo"')
    file.write_bytes(b"".join(lines))

    assert problems(small) == [
        "1:6: the record before this one is not the one that this record follows: it was changed or replaced"
    ]


def test_a_dropped_record_is_counted(small: Path) -> None:
    """The finding says which records are missing."""
    (file,) = files(small)
    lines = lines_of(file)
    file.write_bytes(b"".join(lines[:4] + lines[6:]))

    assert problems(small) == ["1:5: records 5 to 6 are missing before this one"]


def test_a_forged_record_is_found(small: Path) -> None:
    """A record that fits behind the one before it does not fit before the one after it."""
    (file,) = files(small)
    lines = lines_of(file)
    last = json.loads(lines[4])
    forged = placed(own_body("decision", 1.0), Place(last["chain"], 6, hash_of(lines[4][:-1])))
    file.write_bytes(b"".join([*lines[:5], forged + b"\n", *lines[5:]]))

    assert problems(small) == ["1:7: record 6 follows record 6: repeated, inserted or out of order"]


def test_a_number_that_no_record_has_is_a_finding_as_any_change_is(small: Path) -> None:
    """It does not end the verification."""
    (file,) = files(small)
    file.write_bytes(file.read_bytes().replace(b'"heads":{}', b'"heads":{"0123456789ab":"%b:0"}' % (b"9" * 5000)))

    assert problems(small)[0].startswith("1:2: the record before this one is not the one")


def test_a_chain_made_anew_without_the_key_is_found(small: Path) -> None:
    """Whoever changes a record and all hashes after it lacks the key to sign the checkpoints again."""
    (file,) = files(small)
    records = [json.loads(line) for line in lines_of(file)]
    records[4]["user"] = "mallory"
    for before, record in pairwise(records):
        record["prev"] = hash_of(canonical(before))
    file.write_bytes(b"".join(canonical(record) + b"\n" for record in records))

    assert problems(small)[0] == "1:13: the signature of a checkpoint is wrong"


def test_another_key_is_named(small: Path) -> None:
    """A checkpoint by a key that was not given is a finding, and the key is named."""
    report = verify(small, PublicKeys.of(SigningKey.generate()))

    assert (
        report.findings[0].problem == f"a checkpoint signed by the key `{SIGNER.id}`, which is not among the given keys"
    )


def test_keys_can_be_replaced(tmp_path: Path) -> None:
    """After a new key, the record is verified with both."""
    old, new = SigningKey.generate(), SigningKey.generate()
    for signer in (old, new):
        DecisionLog(tmp_path, key=KEY, signer=signer).close()

    assert verify(tmp_path, PublicKeys.of(old, new)).findings == ()
    assert len(verify(tmp_path, PublicKeys.of(new)).findings) > 0


@pytest.mark.parametrize("kept", range(1, 13))
def test_a_cut_tail_is_found(small: Path, kept: int) -> None:
    """Wherever a closed record is cut, between two lines, the missing end is a finding."""
    (file,) = files(small)
    file.write_bytes(b"".join(lines_of(file)[:kept]))

    assert "its writer was killed, or the tail was cut" in problems(small)[-1]


def test_a_cut_line_is_found(small: Path) -> None:
    """Half a line at the end is a finding of its own."""
    (file,) = files(small)
    file.write_bytes(file.read_bytes()[:-5])

    assert problems(small)[0] == "1:13: an incomplete line"


def test_a_tail_cut_before_a_restart_is_found(small: Path) -> None:
    """When the record went on after the cut records, what follows names them."""
    (file,) = files(small)
    whole = file.read_bytes()
    write(small, 5)
    file.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))

    assert problems(small) == ["2:1: record 13 is missing before this one"]


@pytest.mark.parametrize(
    ("gone", "finding"),
    [
        ([1], "2:0: segment 1 is missing before this one"),
        ([2], "3:0: segment 2 is missing before this one"),
        ([2, 3], "4:0: segments 2 to 3 are missing before this one"),
    ],
)
def test_a_dropped_segment_is_found(tmp_path: Path, gone: list[int], finding: str) -> None:
    """A segment that is not there is named, at the one that follows."""
    for _ in range(5):
        write(tmp_path, 5)
    for number in gone:
        files_by_number(tmp_path)[number].unlink()

    assert problems(tmp_path)[0] == finding


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_dropped_last_segments_are_found(tmp_path: Path, kept: int) -> None:
    """A segment that ended because it was full says that another one follows: it is not the end of the record."""
    write(tmp_path, 20, segment_bytes=2000)
    names = [path for number, path in files_by_number(tmp_path).items() if number > kept]
    for path in names:
        path.unlink()

    assert names
    assert [finding.partition(": ")[2] for finding in problems(tmp_path)] == [
        f"segment {kept + 1} is missing: this segment says that another one follows"
    ]


def test_a_dropped_last_segment_of_a_record_in_use_is_found(tmp_path: Path) -> None:
    """That somebody writes the chain is no excuse for a segment that is not there."""
    log = write(tmp_path, 20, segment_bytes=2000, close=False)
    in_use = problems(tmp_path)
    log.path.unlink()

    assert in_use == []
    assert "another one follows" in problems(tmp_path)[-1]
    log.close()


def test_what_was_noted_elsewhere_must_still_be_there(tmp_path: Path) -> None:
    """A whole run that was taken away leaves a record that looks closed; whoever noted its end finds it out."""
    write(tmp_path / "record", 5)
    write(tmp_path / "record", 5)
    (chain,) = verify(tmp_path / "record", PUBLIC).chains
    noted = {tmp_path / "noted": {chain.chain: Head(chain.seq, chain.hash)}}
    whole = verify(tmp_path / "record", PUBLIC, known=noted).findings
    files(tmp_path / "record")[-1].unlink()

    found = [one.problem for one in verify(tmp_path / "record", PUBLIC, known=noted).findings]
    assert whole == ()
    assert found == ["the chain ends at record 8, but `noted` names record 16"]


def test_a_chain_that_was_noted_elsewhere_must_still_be_there(tmp_path: Path) -> None:
    """A record in which nothing names a chain that vanished is compared with what was noted of it."""
    write(tmp_path, 5)
    noted = {tmp_path / "noted": {"0123456789ab": Head(7, "0" * 64)}}

    found = [str(one) for one in verify(tmp_path, PUBLIC, known=noted).findings]
    assert found == [f"{tmp_path / 'noted'}: chain `0123456789ab` is named here, but is missing"]


def files_by_number(folder: Path) -> dict[int, Path]:
    """Return the segments of the only chain by number."""
    ((_, segments),) = segments_by_chain(folder).items()
    return {segment.number: segment.path for segment in segments}


def test_a_dropped_last_segment_is_found_by_another_chain(tmp_path: Path) -> None:
    """What one worker has named of another one's chain cannot be cut off unnoticed."""
    first = write(tmp_path, 5, close=False)
    second = DecisionLog(tmp_path, key=KEY, signer=SIGNER)
    first.close()
    second.close()
    os.truncate(first.path, len(b"".join(lines_of(first.path)[:3])))

    found = [one.problem for one in verify(tmp_path, PUBLIC, open_end=True).findings]
    assert found == [f"the chain ends at record 3, but `{second.path.name}` names record 7"]


def test_a_dropped_chain_is_found(tmp_path: Path) -> None:
    """A whole chain that vanished is missed by the one that began after it."""
    first = write(tmp_path, 5, close=False)
    second = DecisionLog(tmp_path, key=KEY, signer=SIGNER)
    first.close()
    second.close()
    first.path.unlink()

    found = [one.problem for one in verify(tmp_path, PUBLIC).findings]
    assert found == [f"chain `{first.path.name.split('-')[1]}` is named here, but is missing"]


def test_a_record_in_use_is_as_it_was_written(tmp_path: Path) -> None:
    """A live record may end unsigned; the report says how much, and that it is being written."""
    log = write(tmp_path, 5, close=False)
    live = verify(tmp_path, PUBLIC)
    log.close()

    (chain,) = live.chains
    assert (live.findings, chain.live, chain.closed, chain.unsigned) == ((), True, False, 5)


def test_a_copy_of_a_record_in_use_is_accepted_on_request(tmp_path: Path) -> None:
    """Nobody writes a copy: its open end is a finding unless it is expected."""
    log = write(tmp_path / "live", 5, close=False)
    shutil.copytree(tmp_path / "live", tmp_path / "copy")
    log.close()

    assert len(problems(tmp_path / "copy")) == 1
    assert problems(tmp_path / "copy", open_end=True) == []


def test_a_missing_start_is_accepted_on_request(tmp_path: Path) -> None:
    """Old segments may have been taken away by whoever runs the PDP; a hole in the middle is still found."""
    for _ in range(4):
        write(tmp_path, 5)
    files_by_number(tmp_path)[1].unlink()

    assert len(problems(tmp_path)) == 1
    assert problems(tmp_path, missing_start=True) == []
    files_by_number(tmp_path)[3].unlink()
    assert len(problems(tmp_path, missing_start=True)) > 0


def test_swapped_segments_are_found(tmp_path: Path) -> None:
    """A segment under another number is not taken for that one."""
    for _ in range(3):
        write(tmp_path, 5)
    second, third = files_by_number(tmp_path)[2], files_by_number(tmp_path)[3]
    second.rename(tmp_path / "aside")
    third.rename(second)
    (tmp_path / "aside").rename(third)

    assert "2:1: this is segment 3 under another name" in problems(tmp_path)


def test_lines_after_the_end_of_a_segment_are_found(small: Path) -> None:
    """Nothing can be appended to a segment that was closed."""
    (file,) = files(small)
    last = json.loads(lines_of(file)[-1])
    forged = placed(own_body("decision", 1.0), Place(last["chain"], last["seq"] + 1, hash_of(lines_of(file)[-1][:-1])))
    file.write_bytes(file.read_bytes() + forged + b"\n")

    assert problems(small)[0] == "1:14: a record after the end of its segment"


def anchored(folder: Path, anchors: Path, events: int = 3) -> DecisionLog:
    """Write a record whose writer keeps elsewhere how far it came."""
    log = DecisionLog(folder, key=KEY, signer=SIGNER, anchors=anchors)
    for number in range(events):
        log.event(Event(kind=EventKind.SERVER_STARTED, at=float(number)))
        log.tick()
    return log


def test_a_tail_cut_between_two_runs_is_found(tmp_path: Path) -> None:
    """Cut at a checkpoint while nobody writes, a record looks whole; the next writer knows better and says so."""
    log = anchored(tmp_path / "record", tmp_path / "anchors")
    content = b"".join(lines_of(log.path)[:4])
    log.close()
    log.path.write_bytes(content)
    anchored(tmp_path / "record", tmp_path / "anchors").close()

    chain = log.path.name.split("-")[1]
    assert problems(tmp_path / "record") == [
        f"2:1: chain `{chain}` had safely reached record 9 and lost it before this segment began: it was cut"
    ]


def test_a_tail_replaced_between_two_runs_is_found(tmp_path: Path) -> None:
    """Records that were made up instead of the ones that were cut have another hash."""
    log = anchored(tmp_path / "record", tmp_path / "anchors")
    lines = lines_of(log.path)[:4]
    log.close()
    chain = log.path.name.split("-")[1]
    for seq in range(5, 12):
        made_up = placed(own_body("decision", 1.0), Place(chain, seq, hash_of(lines[-1][:-1])))
        lines.append(made_up + b"\n")
    log.path.write_bytes(b"".join(lines))
    anchored(tmp_path / "record", tmp_path / "anchors").close()

    assert [one.endswith("lost it before this segment began: it was cut") for one in problems(tmp_path / "record")] == [
        True
    ]


def test_a_tail_that_is_known_elsewhere_is_found(tmp_path: Path) -> None:
    """Whoever can cut the notes beside the record as well does not reach those that are elsewhere."""
    log = anchored(tmp_path / "record", tmp_path / "anchors")
    content = b"".join(lines_of(log.path)[:4])
    log.close()
    log.path.write_bytes(content)
    shutil.rmtree(tmp_path / "anchors")
    chain = log.path.name.split("-")[1]
    # The other one is of another machine.
    elsewhere = {chain: Head(9, "0" * 64), "f" * 12: Head(1, "0" * 64)}
    DecisionLog(tmp_path / "record", key=KEY, signer=SIGNER, elsewhere=elsewhere).close()

    assert problems(tmp_path / "record") == [
        f"2:1: chain `{chain}` had safely reached record 9 and lost it before this segment began: it was cut"
    ]


def test_a_segment_says_where_it_was_written(tmp_path: Path) -> None:
    """In its first record, which the next one signs."""
    origin = {"deployment": "d", "replica": "r"}
    log = DecisionLog(tmp_path, key=KEY, signer=SIGNER, origin=origin)
    log.close()
    first = json.loads(lines_of(log.path)[0])

    assert origin == {name: first[name] for name in origin}
    assert [] == problems(tmp_path)


def test_a_chain_that_vanished_between_two_runs_is_found(tmp_path: Path) -> None:
    """Whoever takes a whole chain away, and its lock, is found by the next start."""
    log = anchored(tmp_path / "record", tmp_path / "anchors")
    log.close()
    for file in (tmp_path / "record").iterdir():
        file.unlink()
    anchored(tmp_path / "record", tmp_path / "anchors").close()

    assert len(problems(tmp_path / "record")) == 1
    assert problems(tmp_path / "record", missing_start=True) == []


def test_a_killed_writer_leaves_nothing_to_find(tmp_path: Path) -> None:
    """What is kept elsewhere is no newer than what is on the disk for sure, so a crash is no finding."""
    log = anchored(tmp_path / "record", tmp_path / "anchors")
    log.event(Event(kind=EventKind.SERVER_STARTED, at=9.0))
    left = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    log.close()
    for file, content in left.items():
        file.write_bytes(content)
    anchored(tmp_path / "record", tmp_path / "anchors").close()

    assert problems(tmp_path / "record") == []


def test_a_link_is_no_segment(small: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The record stands in its folder and nowhere else."""
    (file,) = files(small)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "segment"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)

    assert problems(small)[0] == "1:0: not a file"


def test_an_empty_folder_holds_no_record(tmp_path: Path) -> None:
    """That everything is gone is a finding and no success."""
    assert [one.problem for one in verify(tmp_path, PUBLIC).findings] == ["there is no record here"]


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"x" * (5 << 20) + b"\n"])
def test_anything_may_stand_in_a_segment(small: Path, line: bytes) -> None:
    """Whatever was written over a record is a finding and no failure."""
    (file,) = files(small)
    lines = lines_of(file)
    file.write_bytes(b"".join([*lines[:5], line, *lines[6:]]))

    assert problems(small) == ["1:6: not a record"]


@pytest.mark.parametrize("key", ['"final":NaN', '"key":[1]', '"signature":7', '"signature":"zz"', '"chain":7'])
def test_any_checkpoint_may_be_forged(small: Path, key: str) -> None:
    """A forged checkpoint is a finding, whatever stands in its fields."""
    (file,) = files(small)
    lines = lines_of(file)
    last = json.loads(lines[-2])
    body = b'{"kind":"checkpoint","key":"%b",%b' % (SIGNER.id.encode(), key.encode())
    lines[-1] = placed(body, Place(last["chain"], 13, hash_of(lines[-2][:-1]))) + b"\n"
    file.write_bytes(b"".join(lines))

    assert len(problems(small)) > 0


def test_findings_are_bounded(tmp_path: Path) -> None:
    """A record that was wholly replaced is reported in bounded memory."""
    write(tmp_path, 1)
    (file,) = files(tmp_path)
    file.write_bytes(b"x\n" * 5000)

    report: Report = verify(tmp_path, PUBLIC)
    assert (len(report.findings), report.more_findings > 3000) == (1000, True)


def test_a_killed_writer_is_told_from_a_cut_tail_by_the_next_start(tmp_path: Path) -> None:
    """A chain that was not closed is a finding until the next start has signed what was there."""
    log = write(tmp_path, 5, close=False)
    content = log.path.read_bytes()
    log.close()
    log.path.write_bytes(content)
    before = problems(tmp_path)
    write(tmp_path, 1)

    assert len(before) == 1
    assert problems(tmp_path) == []


def test_restarting_repairs_an_incomplete_last_line_only(tmp_path: Path) -> None:
    """A restart cuts half a line off, says so in the record, and changes nothing else."""
    log = write(tmp_path, 5, close=False)
    content = log.path.read_bytes()
    log.close()
    log.path.write_bytes(content + b'{"agent":"cod')
    write(tmp_path, 1)

    assert log.path.read_bytes() == content
    opened = json.loads(lines_of(files_by_number(tmp_path)[2])[0])
    assert (opened["after"], opened["cut_bytes"]) == ("killed", 13)
    assert problems(tmp_path) == []


def test_a_segment_without_a_line_leaves_no_trace(tmp_path: Path) -> None:
    """Who was killed between making a segment and writing to it left nothing: its number is used again."""
    first = write(tmp_path, 5)
    following = first.path.with_name(first.path.name.replace("000001", "000002"))
    following.write_bytes(b"")
    write(tmp_path, 5)

    assert list(files_by_number(tmp_path)) == [1, 2]
    assert problems(tmp_path) == []


def test_a_restart_goes_on_behind_what_was_changed(small: Path) -> None:
    """A broken last line is no reason not to start, is not repaired, and is still found."""
    (file,) = files(small)
    file.write_bytes(file.read_bytes() + b"broken\n")
    write(small, 1)

    assert file.read_bytes().endswith(b"broken\n")
    assert problems(small) == ["1:14: not a record"]


def test_age_ends_a_segment(tmp_path: Path) -> None:
    """A segment that is older than it may be ends at the next tick, signed, and the chain goes on."""
    clock = FakeClock()
    log = DecisionLog(tmp_path, key=KEY, signer=SIGNER, clock=clock, rotation=Rotation(seconds=60.0))
    log.tick()
    clock.advance(60.0)
    log.tick()
    log.close()

    assert list(files_by_number(tmp_path)) == [1, 2]
    assert problems(tmp_path) == []


def test_an_interval_ends_signed(tmp_path: Path) -> None:
    """After a tick, everything that was written is covered by a checkpoint."""
    log = write(tmp_path, 5, close=False)
    before = log.status().unsigned
    log.tick()
    log.event(Event(kind=EventKind.SERVER_STARTED, at=1.0))
    after = log.status().unsigned
    log.close()

    assert (before, after) == (5, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot read the public key `.*`: no such file"),
        (b"nothing", r"is not a PEM file of an Ed25519 public key"),
        (SIGNER.private_pem, r"is not a PEM file of an Ed25519 public key"),
    ],
)
def test_a_wrong_public_key_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    """Without a public key nothing is verified, and the message says why."""
    file = tmp_path / "key.pem"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigurationError, match=message):
        PublicKeys.load([file])


def test_a_file_can_hold_several_public_keys(tmp_path: Path) -> None:
    """Such as those of all machines."""
    file, signers = tmp_path / "keys.pem", [SigningKey.generate() for _ in range(2)]
    file.write_bytes(b"".join(one.public.pem for one in signers))
    keys = PublicKeys.load([file])

    assert [True, True, False] == [one.id in keys for one in (*signers, SIGNER)]


@pytest.mark.parametrize("content", [None, b"nothing", SIGNER.public.pem])
def test_a_wrong_signing_key_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """A server without its signing key does not start."""
    file = tmp_path / "key.pem"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigurationError, match="signing key"):
        SigningKey.load(file)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_not_read_as_records(tmp_path: Path, kind: str) -> None:
    """In a folder that came from others, a pipe would never answer and a device never end."""
    path = segment_of(tmp_path, "a" * 12, 1).path
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")

    with pytest.raises(OSError, match="is not a file"):
        list(read_records(tmp_path))


def test_a_line_longer_than_any_record_is_passed_over(tmp_path: Path) -> None:
    """It is damage, and memory need not hold it."""
    path = segment_of(tmp_path, "a" * 12, 1).path
    path.write_bytes(b'{"a":"' + b"x" * RECORD_LINE_BYTES + b'"}\n{"a":1}\n')
    broken: list[int] = []

    (found,) = read_records(tmp_path, on_broken=lambda _, line: broken.append(line))

    assert ([1], 2, {"a": 1}) == (broken, found.line, found.record)
