"""The order in which the record of a process is shown to other servers, and what goes wrong with it."""

from __future__ import annotations

from pathlib import Path
from threading import Event as Signal

import pytest

from pdp.audit.coverage import NOTHING_LACKING, Coverage, Lacking
from pdp.audit.noting import HeadNoter
from pdp.audit.sharing import MOST_BYTES, SharedCopies
from pdp.errors import StoreUnavailableError
from pdp.observer import Event, EventKind
from pdp.record import DecisionLog, SigningKey
from pdp.record.chain import Reached
from pdp.sessions.notedheads import NotedHead, NotedHeads
from pdp.testing.clock import FakeClock


class Machine:
    """A log whose heads another server sees as they are noted: `seen` is what it lacks of each."""

    def __init__(self, folder: Path, *, shared: Path, most_bytes: int = MOST_BYTES) -> None:
        self.shared, self.seen, self.failures = shared, list[Lacking](), 0
        self.noted: dict[str, int] = {}
        self.away = False
        anchors = folder / "record-heads"
        self.log = DecisionLog(folder / "record", key=b"k" * 32, signer=SigningKey.generate(), anchors=anchors)
        self.noter = HeadNoter(
            self,
            reached=lambda: self.log.reached,
            sign=lambda head: head,
            replica="there",
            clock=FakeClock(),
            every=10.0,
            folder=folder / "record",
            anchors=anchors,
            on_failure=self._failed,
            copies=SharedCopies(folder / "record", shared, most_bytes=most_bytes),
        )

    def note(self, head: NotedHead, *, again_seconds: float | None) -> bool:  # noqa: ARG002 - the signature of `Notes`
        """Compare the shared folder with the head at once."""
        if self.away:
            raise StoreUnavailableError("the table of record heads does not answer")
        self.noted[head.chain] = head.seq
        self.seen.append(Coverage(lambda: NotedHeads(deployment="d", heads=(head,)), self.shared).lacking())
        return True

    def go_on(self) -> None:
        """Record an event, sign it, and show that."""
        self.log.event(Event(kind=EventKind.SERVER_STARTED, at=1.0))
        self.log.tick()
        self.noter.turn()

    def _failed(self) -> None:
        self.failures += 1


def test_what_is_noted_can_be_read(tmp_path: Path) -> None:
    """At the moment at which it is noted: no answer lacks what is only on its way."""
    (tmp_path / "shared").mkdir()
    machine = Machine(tmp_path, shared=tmp_path / "shared")
    machine.go_on()
    machine.go_on()

    assert [NOTHING_LACKING] * 2 == machine.seen
    assert ("", 0) == (machine.noter.problem, machine.failures)


def test_a_record_that_is_long_to_copy_is_noted_meanwhile(tmp_path: Path) -> None:
    """Others see that they lack a part, and then that it is there."""
    (tmp_path / "shared").mkdir()
    machine = Machine(tmp_path, shared=tmp_path / "shared", most_bytes=500)
    machine.go_on()
    for _ in range(20):
        machine.noter.turn()

    assert (True, NOTHING_LACKING) == (bool(machine.seen[0]), machine.seen[-1])
    assert len(machine.seen) < 20


def test_an_end_that_cannot_be_noted_is_said_and_noted_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the next process that starts on the folder, up to the last record."""
    (tmp_path / "shared").mkdir()
    first = Machine(tmp_path, shared=tmp_path / "shared")
    first.go_on()
    before = dict(first.noted)
    first.log.close()
    first.away = True
    first.noter.stop()
    second = Machine(tmp_path, shared=tmp_path / "shared")
    second.go_on()
    chain = next(iter(before))

    assert f"the end of chain `{chain}` is not shown to other servers" in caplog.text
    assert before[chain] < len(first.log.path.read_bytes().splitlines()) <= second.noted[chain]


class Hanging:
    """A shared folder that does not answer until it is told to."""

    def __init__(self) -> None:
        self.asked, self.back = Signal(), Signal()

    def bring(self, _: str, __: Reached | None = None) -> bool:
        """Hang."""
        self.asked.set()
        self.back.wait(60)
        return True


def test_a_shared_folder_that_hangs_keeps_no_server_from_stopping(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The end is noted without the copy, so that others see what they lack, and the log of the server says it."""
    (tmp_path / "shared").mkdir()
    machine, hanging = Machine(tmp_path, shared=tmp_path / "shared"), Hanging()
    machine.noter._copies, machine.noter._end_seconds = hanging, 0.05
    machine.log.event(Event(kind=EventKind.SERVER_STARTED, at=1.0))
    machine.log.tick()
    machine.noter.start()
    assert hanging.asked.wait(60)
    machine.log.close()
    machine.noter.stop()
    noted = dict(machine.noted)
    hanging.back.set()

    assert [len(machine.log.path.read_bytes().splitlines())] == list(noted.values())
    assert "copies were not written in 0.05 seconds" in caplog.text


def test_a_record_is_announced_before_it_is_copied(tmp_path: Path) -> None:
    """Whoever is asked then knows of the machine, and that its records are not there yet."""
    (tmp_path / "shared").mkdir()
    machine = Machine(tmp_path, shared=tmp_path / "shared")
    machine.log.tick()
    machine.noter.announce()
    machine.noter.turn()

    assert [["there"], []] == [[part.replica for part in one.parts] for one in machine.seen]


def test_what_cannot_be_copied_is_noted_and_lacking(tmp_path: Path) -> None:
    """The failure is counted and stays visible, and other servers see that they lack it."""
    machine = Machine(tmp_path, shared=tmp_path / "gone")
    machine.go_on()

    assert [["there"]] == [[part.replica for part in one.parts] for one in machine.seen]
    assert 1 == machine.failures
    assert machine.noter.problem.startswith(f"`{tmp_path / 'gone'}")
