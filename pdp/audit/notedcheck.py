"""Compare a record with what servers have noted of it in the database that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pdp.audit.noting import is_signed
from pdp.record.fields import text_of
from pdp.record.keys import PublicKeys
from pdp.record.reader import read_segment
from pdp.record.segments import Head, Segment, segments_by_chain
from pdp.record.slot import held
from pdp.record.verify import Finding
from pdp.sessions.notedheads import NotedHead, NotedHeads

_TABLE: Final = "pdp_record.heads"


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What `verify` takes of the noted heads: those that a chain must still hold, and what is wrong with the rest."""

    known: Mapping[Path, Mapping[str, Head]]
    findings: tuple[Finding, ...]


NOTHING: Final = Noted(known={}, findings=())


def compared(
    folder: Path, read: Callable[[], NotedHeads], keys: PublicKeys, *, replicas: frozenset[str] = frozenset()
) -> Noted:
    """Compare the chains in a folder with the heads of some replicas, or of all. Raise `OSError`, and as `read` does.

    A head without a signature counts for nothing. A chain that no replica has noted, or that is of another deployment,
    does not belong here; one that a process of this machine writes may not be noted yet.
    """
    # In this order: a chain that begins meanwhile is not expected to be noted.
    chains = segments_by_chain(folder)
    noted = read()
    heads = [one for one in noted.heads if not replicas or one.replica in replicas]
    good = [one for one in heads if is_signed(one, noted.deployment, keys)]
    known: dict[Path, dict[str, Head]] = {}
    for one in good:
        known.setdefault(_place_of(one), {})[one.chain] = Head(one.seq, one.hash)
    unsigned = (
        Finding(
            file=_place_of(one), line=0, problem=f"none of the given keys has signed what chain `{one.chain}` reached"
        )
        for one in heads
        if one not in good
    )
    # By machine: those of others do not belong here.
    by = {one.chain: one.replica for one in noted.heads}
    foreign = _foreign(chains, noted.deployment, frozenset(one.chain for one in heads), by)
    return Noted(known=known, findings=(*unsigned, *foreign))


def _place_of(head: NotedHead) -> Path:
    return Path(f"{_TABLE}[{head.replica}]")


def _foreign(
    chains: Mapping[str, tuple[Segment, ...]], deployment: str, noted: frozenset[str], by: Mapping[str, str]
) -> Iterator[Finding]:
    for chain, segments in chains.items():
        if chain not in noted and not held(segments[0].path.parent, chain):
            who = f"the machine `{by[chain]}` has" if chain in by else "no server has"
            problem = f"chain `{chain}` is here, but {who} noted it in `{_TABLE}`"
            yield Finding(file=segments[0].path, line=0, problem=problem)
            continue
        for segment in segments:
            first = next(read_segment(segment.path), None) if segment.path.is_file() else None
            named = text_of(first.record, "deployment") if first else ""
            if named not in ("", deployment):
                yield Finding(file=segment.path, line=1, problem=f"a record of another deployment: `{named}`")
