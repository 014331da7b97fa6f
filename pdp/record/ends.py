"""Check the ends of the chains, back to their last checkpoints: quick, however long the record is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pdp.record.chain import UNSIGNED_RECORDS
from pdp.record.envelope import CHECKPOINT, STORE_REVISION, hash_of, parse_line, place_of
from pdp.record.keys import PublicKeys
from pdp.record.segments import Segment, lines_backwards, segments_by_chain
from pdp.record.verify import checkpoint_problem

_MARK = b'"kind":"checkpoint"'


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainEnd:
    """The end of a chain.

    `signed_at` is the time of the last checkpoint, empty without one; `unsigned` counts the records after it.
    `problem` says what is wrong from there on; empty when nothing is.
    """

    chain: str
    unsigned: int
    signed_at: str = ""
    problem: str = ""


def chain_ends(folder: Path, keys: PublicKeys) -> tuple[ChainEnd, ...]:
    """Return the end of each chain, checked from its last checkpoint on.

    One of the keys must have signed the checkpoint, and each later record must follow its predecessor. Only `verify`
    reads the rest. Raise `OSError` when the folder cannot be read.
    """
    return tuple(_end(chain, segments, keys) for chain, segments in segments_by_chain(folder).items())


def store_revision(folder: Path) -> int:
    """Return the latest revision of the session store in the last segments of the chains; 0 for none.

    A store with an earlier revision has lost acknowledged writes. Raise `OSError` when the folder cannot be read.
    """
    if not folder.is_dir():
        return 0
    return max((_revision(segments[-1]) for segments in segments_by_chain(folder).values()), default=0)


def _revision(segment: Segment) -> int:
    for line in lines_backwards(segment.path):
        record = parse_line(line) if _MARK in line and STORE_REVISION.encode() in line else None
        revision = record.get(STORE_REVISION) if record and record.get("kind") == CHECKPOINT else None
        if isinstance(revision, int):
            return revision
    return 0


def _end(chain: str, segments: tuple[Segment, ...], keys: PublicKeys) -> ChainEnd:
    following = None
    for unsigned, line in enumerate(_backwards(segments)):
        place = place_of(line)
        if place is None or place.chain != chain:
            return ChainEnd(chain=chain, unsigned=unsigned, problem="a line is not a record of this chain")
        if following is not None and (following.seq, following.prev) != (place.seq + 1, hash_of(line)):
            problem = f"record {following.seq} does not follow the record before it"
            return ChainEnd(chain=chain, unsigned=unsigned, problem=problem)
        record = parse_line(line) if _MARK in line else None
        if record and record.get("kind") == CHECKPOINT:
            signed_at, problem = str(record.get("time")), checkpoint_problem(line, record, keys)
            return ChainEnd(chain=chain, unsigned=unsigned, signed_at=signed_at, problem=problem)
        if unsigned > UNSIGNED_RECORDS:
            return ChainEnd(chain=chain, unsigned=unsigned, problem=f"the last {unsigned} records are not signed")
        following = place
    return ChainEnd(chain=chain, unsigned=following.seq if following else 0)


def _backwards(segments: tuple[Segment, ...]) -> Iterator[bytes]:
    for segment in reversed(segments):
        yield from lines_backwards(segment.path)
