"""A real decision log whose power will go: what was answered at each moment, and what must be found afterwards."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pdp.model import Basis, Outcome, TraceParent
from pdp.observer import Event, EventKind
from pdp.record import DecisionLog, SigningKey, read_records
from pdp.record.chain import Rotation
from pdp.record.disk import Disk
from pdp.record.keys import PublicKeys
from pdp.record.log import Durability
from pdp.record.verify import verify
from pdp.testing.clock import FakeClock
from pdp.testing.decisions import a_decision
from tests.machinery.oracle.opened import write
from tests.proofs.power.platter import WAYS, Journal, Platter

_DEEDS = (*("allow",) * 8, "deny", "deny", "event", "tick", "tick", "restart", "kill")
_SEGMENT_BYTES = (3_000, 20_000)
_KEY = b"k" * 32
_HEADS = "heads"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The files that are left, of the record and of what is known of it elsewhere, and the records that must be."""

    files: dict[str, bytes]
    required: frozenset[str]


class JournaledDisk:
    """The disk of a decision log in a folder, with a journal of all that is asked of it. Nothing is synced for real."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self._folder, self._journal = folder, journal
        real = Disk()
        self._open_new, self._write, self._truncate = real.open_new, real.write, real.truncate

    @property
    def disk(self) -> Disk:
        """Return it as the log has it."""
        return Disk(
            open_new=self._opened,
            write=self._wrote,
            sync=lambda file: self._journal.synced(self._file(file)),
            truncate=self._truncated,
            sync_folder=lambda _: self._journal.synced_names(),
        )

    def _opened(self, path: Path) -> int:
        file = self._open_new(path)
        self._journal.opened(path.relative_to(self._folder).as_posix())
        return file

    def _wrote(self, file: int, data: bytes) -> int:
        self._journal.wrote(self._file(file), os.fstat(file).st_size, data)
        return self._write(file, data)

    def _truncated(self, file: int, size: int) -> None:
        self._truncate(file, size)
        self._journal.truncated(self._file(file), size)

    def _file(self, file: int) -> int:
        # One that syncs has a descriptor of its own.
        return self._journal.opened(Path(f"/proc/self/fd/{file}").readlink().relative_to(self._folder).as_posix())


class RecordHistory:
    """What two decision logs in one folder, as two workers have them, were given, as `choices` has it.

    `waits` says whether they wait for the disk as they should.
    """

    def __init__(
        self, folder: Path, choices: random.Random, *, durability: Durability, deeds: int, waits: bool = True
    ) -> None:
        self._folder, self._choices, self._durability, self._waits = folder, choices, durability, waits
        self._signer, self._clock = SigningKey.generate(), FakeClock()
        self.journal = Journal()
        # How long the journal was when something was said for sure, and when something was noted elsewhere.
        self.answered: list[tuple[int, str]] = []
        self._noted: list[tuple[int, dict[str, bytes]]] = [(0, {})]
        self._unsure: list[list[str]] = [[], []]
        self._disk = JournaledDisk(folder, self.journal).disk
        self._logs = [self._open(folder, self._disk), self._open(folder, self._disk)]
        for number in range(deeds):
            self._do(choices.randrange(2), choices.choice(_DEEDS), f"dec_{number}")
        for log in self._logs:
            log.close()

    def images(self, count: int) -> Iterator[Image]:
        """Yield what is left when the power goes: half of the times just after an answer."""
        choices, platter = self._choices, Platter(self.journal)
        just_after = choices.choices([length for length, _ in self.answered], k=count // 2)
        at_any_time = [choices.randrange(len(self.journal) + 1) for _ in range(count - count // 2)]
        for length in sorted([*just_after, *at_any_time]):
            platter.go_on(length)
            files = platter.image(choices.choice(WAYS), choices)
            # What is noted elsewhere is not synced: it may be old, or empty.
            noted = choices.choice([known for at, known in self._noted if at <= length][-3:])
            emptied = {name: b"" if choices.random() < 0.1 else content for name, content in noted.items()}
            required = frozenset(name for at, name in self.answered if at <= length)
            yield Image(files=files | emptied, required=required)

    def again(self, image: Image) -> Image:
        """Return what is left when the power goes once more, at some moment of the start that follows."""
        with TemporaryDirectory(dir=self._folder.parent) as name:
            folder, journal = Path(name), Journal.of(image.files)
            write(folder, image.files)
            begun = len(journal)
            self._open(folder, JournaledDisk(folder, journal).disk).close()
            platter = Platter(journal)
            platter.go_on(self._choices.randrange(begun, len(journal) + 1))
            noted = {name: content for name, content in image.files.items() if name.startswith(_HEADS)}
            files = platter.image(self._choices.choice(WAYS), self._choices) | noted
            return Image(files=files, required=image.required)

    def what_is_wrong(self, image: Image) -> str:
        """Start a log on an image and stop it; say in what it is not as it should be, nothing when it is."""
        with TemporaryDirectory(dir=self._folder.parent) as name:
            folder = Path(name)
            write(folder, image.files)
            logs = [self._open(folder, Disk(sync=lambda _: None, sync_folder=lambda _: None)) for _ in range(2)]
            logs[0].decision(a_decision(id="dec_after"), TraceParent())
            for log in logs:
                log.close()
            found = [one["id"] for _, _, one in read_records(folder) if one["kind"] == "decision"]
            report = verify(folder, PublicKeys.of(self._signer))
            lost = sorted((image.required | {"dec_after"}) - set(found))
            if lost:
                return f"lost: {lost}"
            return f"damaged: {report.findings[0]}" if report.findings else ""

    def _open(self, folder: Path, disk: Disk) -> DecisionLog:
        if not self._waits:
            disk = replace(disk, sync=lambda _: None)
        return DecisionLog(
            folder,
            key=_KEY,
            signer=self._signer,
            clock=self._clock,
            durability=self._durability,
            rotation=Rotation(bytes=self._choices.choice(_SEGMENT_BYTES)),
            anchors=folder / _HEADS,
            disk=disk,
        )

    def _do(self, worker: int, deed: str, name: str) -> None:
        self._clock.advance(1.0)
        log = self._logs[worker]
        match deed:
            case "allow":
                log.decision(a_decision(id=name), TraceParent())
                self._unsure[worker].append(name)
                if self._durability == "durable":
                    self._synced(worker)
            case "deny":
                ruling = {"outcome": Outcome.DENY, "basis": Basis.FORBID}
                log.decision(a_decision(id=name, **ruling), TraceParent())
                self._unsure[worker].append(name)
            case "event":
                log.event(Event(kind=EventKind.SESSION_ENDED, at=self._clock.now().wall_at))
            case "tick":
                log.tick()
                self._synced(worker)
            case "restart":
                log.close()
                self._synced(worker)
                self._logs[worker] = self._open(self._folder, self._disk)
            case "kill":
                os.close(log._chain._file)
                log._chain._slot.release()
                self._logs[worker] = self._open(self._folder, self._disk)

    def _synced(self, worker: int) -> None:
        """All that this worker was given is on the disk; what is noted elsewhere may have changed."""
        self.answered += [(len(self.journal), name) for name in self._unsure[worker]]
        self._unsure[worker] = []
        heads = self._folder / _HEADS
        noted = {f"{_HEADS}/{one.name}": one.read_bytes() for one in heads.iterdir()} if heads.is_dir() else {}
        self._noted.append((len(self.journal), noted))
