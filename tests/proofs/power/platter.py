"""A disk that holds what was synced, and of the rest whatever it likes: what is left when the power goes.

What is not synced is dropped, torn at sectors, or overtaken by what came later, and a file that had grown may hold
zeros or garbage where nothing was written.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self

SECTOR_BYTES = 512

# What happens to all that is not synced: it is lost, it arrives, it arrives up to a moment and the last write is torn,
# some writes arrive, some sectors of some writes arrive.
Way = Literal["nothing", "everything", "up to a moment", "some writes", "some sectors"]
WAYS: tuple[Way, ...] = ("nothing", "everything", "up to a moment", "some writes", "some sectors")


class Step(NamedTuple):
    """One thing that was asked of a disk. `at` is an offset, or a size."""

    kind: Literal["write", "truncate", "sync", "name", "unname", "sync names"]
    file: int = -1
    at: int = 0
    data: bytes = b""
    name: str = ""


@dataclass(slots=True)
class Journal:
    """Everything that was asked of a disk, in order. Its length is a moment."""

    steps: list[Step] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    _files: int = 0

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> Self:
        """Return a journal of a disk that holds files."""
        journal = cls()
        for name, content in files.items():
            journal.wrote(journal.opened(name), 0, content)
            journal.synced(journal.names[name])
        journal.synced_names()
        return journal

    def __len__(self) -> int:
        return len(self.steps)

    def opened(self, name: str) -> int:
        """Return the file of a name; make one when there is none."""
        if name not in self.names:
            self.named(name, self._files)
            self._files += 1
        return self.names[name]

    def wrote(self, file: int, at: int, data: bytes) -> None:
        """Note a write."""
        self.steps.append(Step("write", file, at, data))

    def truncated(self, file: int, size: int) -> None:
        """Note that a file was made shorter, or longer."""
        self.steps.append(Step("truncate", file, size))

    def synced(self, file: int) -> None:
        """Note that a file's data is on the disk."""
        self.steps.append(Step("sync", file))

    def named(self, name: str, file: int) -> None:
        """Note that a file has another name."""
        self.names[name] = file
        self.steps.append(Step("name", file, name=name))

    def unnamed(self, name: str) -> None:
        """Note that a name was taken away."""
        if self.names.pop(name, None) is not None:
            self.steps.append(Step("unname", name=name))

    def synced_names(self) -> None:
        """Note that the names in the folder are on the disk."""
        self.steps.append(Step("sync names"))


class Platter:
    """What is on the disk for sure at a moment of a journal, and what may be."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._moment = 0
        self._sure: dict[int, bytearray] = {}
        self._open: dict[int, list[Step]] = {}
        self._sure_names: dict[str, int] = {}
        self._open_names: list[Step] = []

    def go_on(self, moment: int) -> None:
        """Go to a later moment."""
        for step in self._journal.steps[self._moment : moment]:
            self._take(step)
        self._moment = moment

    def image(self, way: Way, choices: random.Random) -> dict[str, bytes]:
        """Return the files that are found when the power goes now and comes back."""
        names, later = dict(self._sure_names), self._open_names
        # A file system keeps the order of what happens to names.
        arrived = {"nothing": 0, "everything": len(later)}.get(way, choices.randrange(len(later) + 1))
        for step in later[:arrived]:
            _rename(names, step)
        return {name: bytes(self._content(file, way, choices)) for name, file in names.items()}

    def _take(self, step: Step) -> None:
        match step.kind:
            case "write" | "truncate":
                self._open.setdefault(step.file, []).append(step)
            case "sync":
                for one in self._open.pop(step.file, ()):
                    _apply(self._sure.setdefault(step.file, bytearray()), one, b"")
            case "name" | "unname":
                self._open_names.append(step)
            case "sync names":
                for one in self._open_names:
                    _rename(self._sure_names, one)
                self._open_names = []

    def _content(self, file: int, way: Way, choices: random.Random) -> bytearray:
        content = bytearray(self._sure.get(file, b""))
        for step in _arrived(self._open.get(file, []), way, choices):
            garbage = choices.randbytes(SECTOR_BYTES) if way == "some sectors" and choices.random() < 0.5 else b""
            _apply(content, step, garbage)
        return content


def _arrived(steps: list[Step], way: Way, choices: random.Random) -> Iterator[Step]:
    if way == "everything":
        yield from steps
    elif way == "up to a moment" and steps:
        last = choices.randrange(len(steps))
        sectors = [*_sectors(steps[last])]
        yield from (*steps[:last], *sectors[: choices.randrange(len(sectors) + 1)])
    elif way == "some writes":
        yield from (step for step in steps if choices.random() < 0.5)
    elif way == "some sectors":
        # What a later write to the same place overwrites may have come after it, so each sector is of some moment.
        yield from (sector for step in steps for sector in _sectors(step) if choices.random() < 0.5)


def _sectors(step: Step) -> Iterator[Step]:
    if step.kind != "write":
        yield step
        return
    start, end = step.at, step.at + len(step.data)
    while start < end:
        stop = min(end, start - start % SECTOR_BYTES + SECTOR_BYTES)
        yield step._replace(at=start, data=step.data[start - step.at : stop - step.at])
        start = stop


def _apply(content: bytearray, step: Step, garbage: bytes) -> None:
    if step.kind == "truncate":
        del content[step.at :]
    hole = step.at - len(content)
    if hole > 0:
        content += (garbage * (hole // max(len(garbage), 1)))[:hole]
        content += bytes(step.at - len(content))
    if step.kind == "write":
        content[step.at : step.at + len(step.data)] = step.data


def _rename(names: dict[str, int], step: Step) -> None:
    if step.kind == "name":
        names[step.name] = step.file
    else:
        names.pop(step.name, None)
