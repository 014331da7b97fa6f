"""How sure a record is before the answer leaves, and what happens while the disk fails."""

from __future__ import annotations

import errno
import logging
import os
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pdp.model import Basis, Obligation, Outcome, TraceParent
from pdp.observer import Event, EventKind
from pdp.record import DecisionLog, Rotation, SigningKey, read_records
from pdp.record.disk import Disk
from pdp.record.keys import PublicKeys
from pdp.record.log import QUEUE_RECORDS, Durability, withheld
from pdp.record.segments import segments_by_chain
from pdp.record.verify import verify
from pdp.testing.clock import FakeClock
from pdp.testing.decisions import a_decision
from pdp.testing.waiting import wait_until
from tests.machinery.faults.disks import REAL, Faults

KEY = b"k" * 32
SIGNER = SigningKey.generate()
NO_PARENT = TraceParent()
FULL, READ_ONLY, BROKEN = errno.ENOSPC, errno.EROFS, errno.EIO


class Subject:
    """A log in a folder, on a disk that fails on command."""

    def __init__(self, folder: Path, durability: Durability, **more: Any) -> None:
        self.faults, self.clock, self.reports = Faults(), FakeClock(), 0
        more = {"disk": self.faults.disk, **more}
        self.log = DecisionLog(
            folder,
            key=KEY,
            signer=SIGNER,
            clock=self.clock,
            durability=durability,
            on_failure=self._reported,
            **more,
        )

    def ask(self, name: str, **changes: Any) -> str:
        """Record a decision as the server does; return the basis of what is answered."""
        return self.log.decision(a_decision(id=name, **changes), NO_PARENT).ruling.basis.value

    def told(self) -> list[str]:
        """Return `id basis` of each decision in the record, and `gap: late, lost` where some are late or lost."""
        return [
            f"{one['id']} {one['basis']}" if one["kind"] == "decision" else f"gap: {one['late']}, {one['lost']}"
            for _, _, one in read_records(self.log.folder)
            if one["kind"] in ("decision", "record.gap")
        ]

    def findings(self) -> list[str]:
        """Close the log and verify it."""
        self.log.close()
        return [str(one) for one in verify(self.log.folder, PublicKeys.of(SIGNER)).findings]

    def segments(self) -> int:
        """Return how many segments there are."""
        return sum(len(segments) for segments in segments_by_chain(self.log.folder).values())

    def _reported(self) -> None:
        self.reports += 1


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Subject]:
    """Yield a log that is `written`."""
    subject = Subject(tmp_path, "written")
    yield subject
    subject.log.close()


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[Subject]:
    """Yield a log that is `durable`."""
    subject = Subject(tmp_path, "durable")
    yield subject
    subject.log.close()


# Written.


def test_written_does_not_wait_for_the_disk(written: Subject) -> None:
    """A decision is handed to the operating system by one call, and nothing is synced for it."""
    written.faults.calls.clear()

    written.ask("a")

    assert written.faults.calls == ["write"]


def test_an_allow_that_is_turned_around_asks_for_nothing() -> None:
    """A deny has no obligations, and its ruling is its own."""
    denied = withheld(a_decision(obligations=(Obligation("notice", "{}"),), recurs=True))

    assert ((), False) == (denied.ruling.obligations, denied.recurs)


@pytest.mark.parametrize("fault", [FULL, READ_ONLY, BROKEN])
def test_written_allows_nothing_while_the_disk_fails(written: Subject, fault: int) -> None:
    """An allow becomes a deny with a basis of its own, and a deny stays; each is reported, and the log not healthy."""
    written.faults.write = fault

    answers = [written.ask("a"), written.ask("b", outcome=Outcome.DENY, basis=Basis.FORBID), written.ask("c")]

    assert answers == ["record_unavailable", "forbid", "record_unavailable"]
    assert (written.log.healthy, written.log.permits, written.reports) == (False, False, 3)
    assert written.log.status().waiting == 3


def test_what_could_not_be_written_is_written_late(written: Subject) -> None:
    """When the disk is well again, the next decision brings all that waited with it, in order, and says so."""
    written.ask("a")
    written.faults.write = FULL
    written.ask("b")
    written.ask("c")
    written.faults.heal()
    written.ask("d")

    late = ["b record_unavailable", "c record_unavailable", "gap: 2, 0"]
    assert written.told() == ["a permit", *late, "d permit"]
    assert written.log.healthy
    assert written.findings() == []


def test_the_tick_recovers_without_a_decision(written: Subject) -> None:
    """Nobody needs to ask for the log to be well again."""
    written.faults.write = FULL
    written.ask("a")
    written.faults.heal()
    written.log.tick()

    assert (written.log.healthy, written.told()) == (True, ["a record_unavailable", "gap: 1, 0"])


def test_a_checkpoint_that_failed_is_tried_again(written: Subject) -> None:
    """When nothing but the signature could not be written, the next tick writes it and all is well."""
    written.ask("a")
    written.faults.write = FULL
    written.log.tick()
    unhealthy = not written.log.healthy
    written.faults.heal()
    written.log.tick()

    assert (unhealthy, written.log.healthy, written.log.status().unsigned) == (True, True, 0)


def test_closing_writes_what_waits(written: Subject) -> None:
    """What waits is written when the server stops, if the disk is well by then."""
    written.faults.write = FULL
    written.ask("a")
    written.faults.heal()
    written.log.close()

    assert written.told() == ["a record_unavailable", "gap: 1, 0"]
    assert written.findings() == []


def test_what_waits_is_bounded(written: Subject) -> None:
    """Beyond a bound, records are lost; how many is counted, and told in the record."""
    written.faults.write = FULL
    for number in range(QUEUE_RECORDS + 3):
        written.log.event(Event(kind=EventKind.SERVER_STARTED, at=float(number)))
    written.faults.heal()
    written.ask("a")

    assert (written.log.status().late, written.log.status().lost) == (QUEUE_RECORDS, 3)
    assert written.told() == [f"gap: {QUEUE_RECORDS}, 3", "a permit"]


@pytest.mark.parametrize("truncate", [0, BROKEN])
def test_half_a_line_never_stays_in_the_way(written: Subject, truncate: int) -> None:
    """A line that was cut short is taken back; when that fails too, the record goes on in another segment."""
    written.ask("a")
    written.faults.room, written.faults.truncate = 100, truncate
    written.ask("b")
    written.faults.heal()
    written.ask("c")

    assert written.told() == ["a permit", "b record_unavailable", "gap: 1, 0", "c permit"]
    assert written.segments() == (2 if truncate else 1)
    assert written.findings() == []


def test_a_loud_word_at_the_beginning_and_the_end(written: Subject, caplog: pytest.LogCaptureFixture) -> None:
    """The log of the server says once that the record cannot be written, and once that it can again."""
    caplog.set_level(logging.INFO, "pdp.record")
    written.faults.write = FULL
    written.ask("a")
    written.ask("b")
    written.faults.heal()
    written.ask("c")

    reason = "no space left on device"
    assert [record.getMessage() for record in caplog.records] == [
        f"the decision log in `{written.log.folder}` cannot be written: {reason}; calls are denied until it can",
        f"the decision log in `{written.log.folder}` can be written again",
    ]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_a_failed_sync_shows_in_written_too(written: Subject) -> None:
    """Every interval is synced; when that fails, the record goes on in another segment and the log is not healthy."""
    written.ask("a")
    written.faults.sync = BROKEN
    written.log.tick()
    unhealthy = not written.log.healthy
    written.ask("b")
    written.faults.heal()
    written.clock.advance(60.0)
    written.log.tick()

    assert (unhealthy, written.log.healthy, written.segments()) == (True, True, 2)
    assert written.told() == ["a permit", "b permit"]
    assert written.findings() == []


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as on a disk that is almost full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("durability", ["written", "durable"])
def test_a_real_limit_of_the_operating_system(tmp_path: Path, durability: Durability) -> None:
    """With a file that really cannot grow, the behaviour is the same, and ends without a restart."""
    subject = Subject(tmp_path, durability, disk=REAL)
    with _largest_file(subject.log.path.stat().st_size + 100):
        during = subject.ask("a")
    after = subject.ask("b")

    assert (during, after) == ("record_unavailable", "permit")
    assert subject.told() == [f"a {during}", "gap: 1, 0", "b permit"]
    assert subject.findings() == []


@pytest.mark.parametrize("durability", ["written", "durable", "async"])
def test_a_segment_that_is_taken_away_is_missed(tmp_path: Path, durability: Durability) -> None:
    """What is written to a file without a name is lost: the next tick says so and goes on in another segment."""
    subject = Subject(tmp_path, durability)
    subject.ask("a")
    subject.log.tick()
    subject.log.path.unlink()
    lost = subject.log.status().lost
    subject.log.tick()
    after = subject.ask("b")

    assert (lost, subject.log.status().lost, subject.reports, after) == (0, 4, 1, "permit")
    assert subject.log.healthy
    assert subject.findings() == [f"{subject.log.path}: segment 1 is missing before this one"]
    assert subject.told() == ["gap: 0, 4", "b permit"]


# What is kept for the end of authority.

ENDED, STARTED = (
    Event(kind=EventKind.SESSION_REVOKED, at=1.0, session_id="s"),
    Event(kind=EventKind.SERVER_STARTED, at=1.0),
)
STEP = 4096


def kinds(subject: Subject) -> list[str]:
    """Return the kinds of the records that are no checkpoint."""
    found = [one["kind"] for _, _, one in read_records(subject.log.folder)]
    return [kind for kind in found if kind not in ("checkpoint", "segment.opened")]


@pytest.mark.parametrize("durability", ["written", "durable"])
def test_what_ends_authority_is_recorded_on_a_full_disk(tmp_path: Path, durability: Durability) -> None:
    """A segment has its room beforehand: when no more is to be had, its last part is for ends alone, at once."""
    subject = Subject(tmp_path, durability, reserve_bytes=4 * STEP)
    subject.faults.allocate = FULL
    answers = [subject.ask(f"dec_{number}") for number in range(20)]
    subject.log.event(STARTED)
    subject.log.event(ENDED)
    subject.log.tick()
    during, permits, unsigned = kinds(subject), subject.log.permits, subject.log.status().unsigned
    subject.faults.heal()
    subject.log.tick()
    after = subject.ask("after")

    denied = answers.count("record_unavailable")
    assert answers == ["permit"] * (20 - denied) + ["record_unavailable"] * denied
    assert 0 < denied < 20
    assert during == ["decision"] * (20 - denied) + ["session.revoked"]
    assert (permits, unsigned, after) == (False, 0, "permit")
    assert kinds(subject)[-3:] == ["server.started", "record.gap", "decision"]
    assert subject.findings() == []


def test_what_is_written_into_the_kept_room_says_nothing_of_other_room(tmp_path: Path) -> None:
    """Health does not come and go on a full disk; it comes with room, and needs no call for that."""
    subject = Subject(tmp_path, "written", reserve_bytes=4 * STEP)
    subject.faults.allocate = FULL
    while subject.log.healthy:
        subject.log.event(ENDED)
    during = list[bool]()
    for _ in range(3):
        subject.log.tick()
        during.append(subject.log.permits)
    unsigned, waiting = subject.log.status().unsigned, subject.log.status().waiting
    subject.faults.heal()
    subject.log.tick()

    assert ([False] * 3, 0, 0) == (during, unsigned, waiting)
    assert (True, "permit") == (subject.log.permits, subject.ask("after"))
    assert subject.findings() == []


def test_the_last_of_the_disk_is_for_the_end_of_authority(written: Subject, tmp_path: Path) -> None:
    """A segment takes no further room where less than the reserve would be left, though there is some."""
    subject = Subject(tmp_path / "low", "written", reserve_bytes=4 * STEP)
    subject.faults.free = 5 * STEP - 1
    answers = {subject.ask(f"dec_{number}") for number in range(20)}
    subject.faults.free = 5 * STEP
    after = subject.ask("after")

    assert answers == {"permit", "record_unavailable"}
    assert after == "permit"
    assert "allocate" not in written.faults.calls


def test_a_file_system_that_keeps_no_room_is_used_as_it_is(tmp_path: Path) -> None:
    """Where nothing can be allocated beforehand, records are written until the disk is full."""
    subject = Subject(tmp_path, "written", reserve_bytes=4 * STEP, disk=Disk(allocate=lambda *_: False))

    assert {subject.ask(f"dec_{number}") for number in range(20)} == {"permit"}


def test_room_that_was_not_needed_is_given_back(tmp_path: Path) -> None:
    """A segment that is over takes as much of the disk as it holds, also when its process was killed."""
    over = Subject(tmp_path / "over", "written", reserve_bytes=1024 * STEP)
    over.ask("a")
    over.log.close()
    killed = Subject(tmp_path / "killed", "written", reserve_bytes=1024 * STEP)
    killed.ask("a")
    first = killed.log.path
    during = first.stat().st_blocks * 512
    os.close(killed.log._chain._slot.lock)
    Subject(tmp_path / "killed", "written").log.close()

    assert during >= 1024 * STEP
    assert over.log.path.stat().st_blocks * 512 <= 4 * STEP
    assert first.stat().st_blocks * 512 <= 4 * STEP


def test_what_waits_is_bounded_in_bytes(written: Subject) -> None:
    """Sixteen MiB are all, however many records that is."""
    written.faults.write = FULL
    large = Event(
        kind=EventKind.SERVER_STARTED, at=1.0, facts={str(number): "\U0001f600" * 512 for number in range(20)}
    )
    for _ in range(200):
        written.log.event(large)

    status = written.log.status()
    assert 0 < status.waiting < 200
    assert status.waiting * 20 * 512 * 12 < 16 * 1024 * 1024
    assert status.lost == 200 - status.waiting


# Rotation.


def test_a_folder_without_room_for_files_keeps_its_segment(tmp_path: Path) -> None:
    """When no further segment can be made, the present one goes on, in `durable` as well; the log is not healthy."""
    subject = Subject(tmp_path, "durable", rotation=Rotation(bytes=2000))
    subject.faults.open_new = READ_ONLY
    answers = {subject.ask(f"dec_{number}") for number in range(20)}
    unhealthy = not subject.log.healthy
    subject.faults.heal()
    subject.clock.advance(60.0)
    subject.log.tick()

    assert (answers, unhealthy, subject.log.healthy, subject.segments()) == ({"permit"}, True, True, 2)
    assert subject.findings() == []


def test_a_segment_that_cannot_be_closed_is_given_up(tmp_path: Path) -> None:
    """When the sync at the end of a segment fails, the chain says so and goes on in the next one."""
    subject = Subject(tmp_path, "written", rotation=Rotation(bytes=2000))
    subject.faults.sync = BROKEN
    answers = {subject.ask(f"dec_{number}") for number in range(5)}
    subject.faults.heal()
    subject.ask("last")

    opened = [one for _, _, one in read_records(tmp_path) if one["kind"] == "segment.opened"]
    assert answers == {"permit"}
    assert "failed" in {one["after"] for one in opened}
    assert subject.findings() == []


# Durable.


def test_durable_syncs_before_an_allow_is_answered(durable: Subject) -> None:
    """When an allow is answered, its record has been written and then synced."""
    durable.faults.calls.clear()

    durable.ask("a")

    assert durable.faults.calls == ["write", "sync"]


def test_durable_answers_a_deny_at_once(durable: Subject) -> None:
    """A deny needs no proof: it is written and not waited for."""
    durable.faults.calls.clear()

    durable.ask("a", outcome=Outcome.DENY, basis=Basis.FORBID)

    assert durable.faults.calls == ["write"]


@pytest.mark.parametrize("fault", [FULL, READ_ONLY, BROKEN])
def test_no_record_no_allow(durable: Subject, fault: int) -> None:
    """While nothing can be written, every allow is a deny with its own basis, and denies stay what they are."""
    durable.faults.write = fault

    answers = [durable.ask("a"), durable.ask("b", outcome=Outcome.DENY, basis=Basis.FORBID), durable.ask("c")]

    assert answers == ["record_unavailable", "forbid", "record_unavailable"]
    assert (durable.log.healthy, durable.log.permits) == (False, False)


def test_what_was_answered_is_recorded_late(durable: Subject) -> None:
    """When the disk is well again, the next allow is one, and the record holds what was answered meanwhile."""
    durable.faults.write = FULL
    durable.ask("a")
    durable.ask("b")
    durable.faults.heal()
    last = durable.ask("c")

    assert (last, durable.log.healthy, durable.log.permits) == ("permit", True, True)
    assert durable.told() == ["a record_unavailable", "b record_unavailable", "gap: 2, 0", "c permit"]
    assert durable.findings() == []


def test_an_allow_that_never_came_to_the_disk_is_followed_by_its_deny(durable: Subject) -> None:
    """When the sync fails, the allow stands there already: the deny that was answered follows it, as the last word."""
    durable.ask("a")
    durable.faults.sync = BROKEN
    answer = durable.ask("b")

    assert answer == "record_unavailable"
    assert durable.told() == ["a permit", "b permit", "b record_unavailable"]


def test_a_file_that_failed_to_sync_is_never_written_again(durable: Subject) -> None:
    """After a failed sync nobody knows what of the file is on the disk; all that follows goes to another one."""
    durable.ask("a")
    failed = durable.log.path
    durable.faults.sync = BROKEN
    durable.ask("b")
    content = failed.read_bytes()
    durable.faults.heal()
    durable.clock.advance(1.0)
    recovered = durable.ask("c")

    assert (recovered, failed.read_bytes() == content, durable.log.path != failed) == ("permit", True, True)
    opened = [one for _, _, one in read_records(durable.log.folder) if one["kind"] == "segment.opened"]
    assert [one["after"] for one in opened] == ["", "failed"]
    assert durable.findings() == []


def test_a_broken_disk_is_not_tried_for_every_call(durable: Subject) -> None:
    """Each attempt to sync costs a segment, so there are few: after 1 s, 2 s, 4 s, and at most each minute."""
    durable.faults.sync = BROKEN
    for _ in range(100):
        durable.ask("a")
        durable.clock.advance(0.1)

    assert durable.segments() <= 6
    assert durable.faults.calls.count("sync") <= 5


def test_many_wait_for_one_sync(tmp_path: Path) -> None:
    """Allows that arrive while the disk is busy are synced together, by one call."""
    busy, free, faults = threading.Event(), threading.Event(), Faults()

    def sync(file: int) -> None:
        faults.calls.append("sync")
        busy.set()
        assert free.wait(60.0)
        REAL.sync(file)

    subject = Subject(tmp_path, "durable", disk=Disk(sync=sync))
    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(subject.ask, "first")
        assert busy.wait(60.0)
        others = [threads.submit(subject.ask, f"dec_{number}") for number in range(8)]
        wait_until(lambda: len(subject.told()) == 9)
        free.set()
        answers = {one.result(60.0) for one in [first, *others]}

    assert (answers, faults.calls) == ({"permit"}, ["sync", "sync"])
    assert subject.findings() == []


def test_all_that_waited_for_a_failed_sync_are_denied(tmp_path: Path) -> None:
    """One thread syncs for many; when it fails, it fails for all of them."""
    busy, fail = threading.Event(), threading.Event()

    def sync(_: int) -> None:
        busy.set()
        assert fail.wait(60.0)
        raise OSError(BROKEN, os.strerror(BROKEN))

    subject = Subject(tmp_path, "durable", disk=Disk(sync=sync))
    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(subject.ask, "first")
        assert busy.wait(60.0)
        others = [threads.submit(subject.ask, f"dec_{number}") for number in range(8)]
        wait_until(lambda: len(subject.told()) == 9)
        fail.set()
        answers = {one.result(60.0) for one in [first, *others]}

    assert answers == {"record_unavailable"}


def test_a_known_fault_leaves_no_allow_in_the_record(durable: Subject) -> None:
    """Once it is known that the disk fails, the record holds the denies alone."""
    durable.faults.sync = BROKEN
    for name in ("a", "b", "c"):
        durable.ask(name)

    assert durable.told() == ["a permit", *(f"{name} record_unavailable" for name in ("a", "b", "c"))]


def test_after_closing_no_allow_is_answered(durable: Subject) -> None:
    """Without a log there is no record, and in `durable` no allow."""
    durable.log.close()

    assert durable.ask("a") == "record_unavailable"


# Async.


def test_async_does_not_wait(tmp_path: Path) -> None:
    """A decision is answered while the disk is busy, and its record follows."""
    go_on = threading.Event()

    def write(file: int, data: bytes) -> int:
        assert go_on.wait(60.0)
        return REAL.write(file, data)

    go_on.set()
    subject = Subject(tmp_path, "async", disk=Disk(write=write))
    go_on.clear()
    answer = subject.ask("a")
    before = subject.told()
    go_on.set()
    wait_until(lambda: subject.told() == ["a permit"])

    assert (answer, before) == ("permit", [])
    assert subject.findings() == []


def test_async_counts_what_it_drops(tmp_path: Path) -> None:
    """A full queue drops what comes; the drops are counted, reported, and told in the record."""
    subject = Subject(tmp_path, "async")
    subject.faults.write = FULL
    subject.ask("first")
    wait_until(lambda: not subject.log.healthy)
    for number in range(QUEUE_RECORDS + 1):
        subject.log.event(Event(kind=EventKind.SERVER_STARTED, at=float(number)))
    dropped = subject.log.status().lost
    subject.faults.heal()
    findings = subject.findings()

    assert (dropped, subject.reports) == (2, 2)
    assert (subject.told(), findings) == (["first permit", "gap: 0, 2"], [])


def test_async_keeps_everything_at_the_end(tmp_path: Path) -> None:
    """Closing waits for the queue."""
    subject = Subject(tmp_path, "async")
    for number in range(500):
        subject.ask(f"dec_{number}")
    subject.log.close()

    assert subject.told() == [f"dec_{number} permit" for number in range(500)]
    assert subject.findings() == []


def together(subject: Subject, *names: str, **changes: Any) -> list[str] | None:
    """Record decisions of one turn; return their ids, or None when they have to wait."""
    recorded = subject.log.decisions([(a_decision(id=name, **changes), NO_PARENT) for name in names])
    return None if recorded is None else [one.id for one in recorded]


def test_decisions_of_a_turn_are_one_write(tmp_path: Path) -> None:
    """In their order, after what came before, and as sound as if each had come alone."""
    subject = Subject(tmp_path, "written")
    subject.ask("a")
    subject.faults.calls.clear()
    recorded = together(subject, "b", "c", "d")
    writes = subject.faults.calls.count("write")
    subject.ask("e")

    assert (["b", "c", "d"], 1) == (recorded, writes)
    assert [f"{name} permit" for name in "abcde"] == subject.told()
    assert [] == subject.findings()


def test_a_large_turn_leaves_the_reserve_alone(tmp_path: Path) -> None:
    """It is written once there is room for all of it: a step more is not enough for thirty decisions."""
    steps = iter([True, True])

    def allocate(*_: int) -> bool:
        if not next(steps, False):
            raise OSError(FULL, "the disk is full")
        return True

    subject = Subject(tmp_path, "written", reserve_bytes=4 * STEP, disk=Disk(allocate=allocate))
    recorded = together(subject, *map(str, range(30)))
    left = list(steps)

    assert (None, [], []) == (recorded, left, kinds(subject))


def test_a_turn_that_cannot_be_written_is_not_recorded(tmp_path: Path) -> None:
    """Neither a disk that refuses it nor one that takes half of it keeps any: each call is decided again."""
    subject = Subject(tmp_path, "written")
    subject.faults.write = BROKEN
    refused = together(subject, "a", "b")
    subject.faults.heal()
    while_it_recovers = together(subject, "a", "b")
    subject.ask("a")
    subject.faults.room = 600
    half = together(subject, "b", "c")
    subject.faults.heal()
    subject.ask("b")

    assert (None, None, None) == (refused, while_it_recovers, half)
    assert ["a permit", "b permit"] == subject.told()
    assert [] == subject.findings()


def test_a_turn_waits_for_no_other_thread(tmp_path: Path) -> None:
    """One that holds the record can be waiting for the disk."""
    subject = Subject(tmp_path, "written")
    with subject.log._changed:
        held = together(subject, "a")

    assert (None, ["a"]) == (held, together(subject, "a"))
    subject.log.close()


def test_a_turn_waits_for_no_disk(tmp_path: Path) -> None:
    """Where an allow must be on the disk, nothing is recorded at once; in `async` all that there is room for."""
    durable, queued = Subject(tmp_path / "durable", "durable"), Subject(tmp_path / "queued", "async")

    assert (None, ["a", "b"]) == (together(durable, "a"), together(queued, "a", "b"))
    assert (False, True) == (durable.log.takes_at_once, queued.log.takes_at_once)
    queued.log.close()
    durable.log.close()
    assert ([], ["a permit", "b permit"]) == (durable.told(), queued.told())


def test_a_sync_that_takes_long_holds_up_no_written_record(tmp_path: Path) -> None:
    """Nothing that comes meanwhile waits: neither a signature that is due, nor the end of a segment that is full."""
    stalled, go_on = threading.Event(), threading.Event()

    def sync(file: int) -> None:
        stalled.set()
        assert go_on.wait(60.0)
        REAL.sync(file)

    subject = Subject(tmp_path, "written", disk=Disk(sync=sync), rotation=Rotation(bytes=1_000_000))
    subject.ask("first")
    with ThreadPoolExecutor(1) as threads:
        tick = threads.submit(subject.log.tick)
        assert stalled.wait(60.0)
        alone = [subject.ask(f"a{number}") for number in range(1100)]
        turns = [together(subject, f"b{number}", f"c{number}") for number in range(10)]
        before = tick.done(), subject.segments()
        go_on.set()
        tick.result(60.0)
    subject.ask("last")

    assert ({"permit"}, (False, 1)) == (set(alone), before)
    assert [["b0", "c0"], ["b9", "c9"]] == [turns[0], turns[-1]]
    assert (1122, 2) == (len(subject.told()), subject.segments())
    assert [] == subject.findings()
