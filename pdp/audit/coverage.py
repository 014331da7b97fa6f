"""Say which records of other servers an answer lacks, by what each has noted in the database that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from pdp.audit.rows import time_of
from pdp.audit.segments import segments_in
from pdp.errors import PDPError, reason_of
from pdp.record.envelope import hash_of, place_of
from pdp.record.segments import Segment, lines_backwards, open_segment, segment_named
from pdp.sessions.notedheads import NotedHead, NotedHeads


@dataclass(frozen=True, slots=True, kw_only=True)
class LackingPart:
    """A part of the record of a machine, `replica`, that is not here, from `since_at` to `until_at` in unix seconds.

    None for `since_at` means from the beginning of the chain, and for `until_at` that the part may still grow.
    """

    replica: str
    chain: str
    since_at: float | None
    until_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """What an answer lacks. `unknown` is why that cannot be told; then it can be anything."""

    parts: tuple[LackingPart, ...] = ()
    unknown: str = ""

    def with_(self, other: Lacking) -> Lacking:
        """Return what this answer and another one lack together."""
        return Lacking(parts=tuple(dict.fromkeys((*self.parts, *other.parts))), unknown=self.unknown or other.unknown)

    def __bool__(self) -> bool:
        return bool(self.parts or self.unknown)

    def __str__(self) -> str:
        if self.unknown:
            return f"what is lacking cannot be told: {self.unknown}"
        return (
            f"records of {', '.join(f'`{name}`' for name in sorted({one.replica for one in self.parts}))} are lacking"
        )


NOTHING_LACKING: Final = Lacking()


class Coverage:
    """Compares the folders that answers come from with what servers have noted. Safe for threads.

    `noted` reads that, and can raise `PDPError`; without it there is one server alone. Of a segment that several
    folders have, the first one counts. `own` is the one that the servers of this machine write.
    """

    def __init__(self, noted: Callable[[], NotedHeads] | None, *folders: Path, own: Path | None = None) -> None:
        self._noted, self._folders, self._own = noted, folders, own

    def lacking(self) -> Lacking:
        """Return what an answer lacks for which the folders are read after this."""
        if self._noted is None:
            return NOTHING_LACKING
        try:
            heads = self._noted().heads
            chains = _chains(self._folders)
            return Lacking(
                parts=tuple(part for head in heads for part in self._parts(head, chains.get(head.chain, ())))
            )
        except PDPError as error:
            return Lacking(unknown=str(error))
        except OSError as error:
            return Lacking(unknown=f"`{error.filename}` cannot be read: {reason_of(error)}")

    def _parts(self, head: NotedHead, segments: Sequence[Segment]) -> Iterator[LackingPart]:
        for before, after in pairwise(segments):
            if after.number > before.number + 1:
                yield _part(head, since=_end_of((before,)).at, until=_beginning_of(after))
        end = _end_of(segments)
        # What the servers of this machine have written is here, noted or not.
        silent = head.silent and not (segments and segments[-1].path.parent == self._own)
        if end.seq < head.seq or (end.seq == head.seq and end.hash != head.hash):
            yield _part(head, since=end.at, until=None if silent else head.at)
        elif silent:
            yield _part(head, since=head.at, until=None)


class _End(NamedTuple):
    """The latest record of a chain that is here: its number, its hash and its time in unix seconds."""

    seq: int = 0
    hash: str = ""
    at: float | None = None


def _chains(folders: Sequence[Path]) -> Mapping[str, Sequence[Segment]]:
    found: dict[str, list[Segment]] = {}
    for name, path in segments_in(*folders).items():
        segment = segment_named(path.parent, name)
        if segment is not None:
            found.setdefault(segment.chain, []).append(segment)
    return {chain: sorted(segments, key=lambda one: one.number) for chain, segments in found.items()}


def _end_of(segments: Sequence[Segment]) -> _End:
    for segment in reversed(segments):
        for line in lines_backwards(segment.path):
            if place := place_of(line):
                return _End(place.seq, hash_of(line), _seconds(line))
    return _End()


def _beginning_of(segment: Segment) -> float | None:
    with open_segment(segment.path) as file:
        return _seconds(file.readline())


def _seconds(line: bytes) -> float | None:
    at = time_of(line)
    return None if at is None else at / 1e6


def _part(head: NotedHead, *, since: float | None, until: float | None) -> LackingPart:
    return LackingPart(replica=head.replica, chain=head.chain, since_at=since, until_at=until)
