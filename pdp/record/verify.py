"""Find what was changed, dropped, inserted, repeated or reordered in a record, using only the public key.

Each chain is read once from its beginning, line by line: memory does not grow with the record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from pdp.limits import RECORD_LINE_BYTES
from pdp.record.chain import UNSIGNED_RECORDS
from pdp.record.envelope import CHECKPOINT, NOTHING_BEFORE, OPENED, canonical, hash_of, parse_line, place_of
from pdp.record.keys import PublicKeys
from pdp.record.segments import NO_HEAD, Head, Segment, head_written, lines_of, segment_of, segments_by_chain
from pdp.record.slot import held

# A record that was replaced as a whole has as many findings as lines.
_MOST_FINDINGS = 1000

_SHOWN = 32
_MARKS = (b'"kind":"checkpoint"', b'"kind":"segment.opened"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A deviation from what was written: file, line (from 1; 0 for the whole file), and problem."""

    file: Path
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.problem}" if self.line else f"{self.file}: {self.problem}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainReport:
    """One chain: how much was read, and how much of its end is not signed.

    `signed_at` is the time of the last valid checkpoint. `live` says that a process of this machine is writing it.
    """

    chain: str
    segments: int
    records: int
    seq: int
    hash: str
    unsigned: int
    signed_at: str
    closed: bool
    live: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result for a folder; no `findings` means that the record is as it was written."""

    chains: tuple[ChainReport, ...]
    findings: tuple[Finding, ...]
    more_findings: int

    @property
    def records(self) -> int:
        """Return how many records were read."""
        return sum(chain.records for chain in self.chains)


def verify(
    folder: Path,
    keys: PublicKeys,
    *,
    open_end: bool = False,
    missing_start: bool = False,
    known: Mapping[Path, Mapping[str, Head]] | None = None,
    before_each: Callable[[], object] = int,
) -> Report:
    """Verify all chains in a folder.

    `open_end` accepts a chain that ends without being closed, as in a copy of a record that is being written.
    `missing_start` accepts that the oldest segments, or whole chains, have been removed. `known` is a record of each
    chain, from files elsewhere, that the chain must still hold. `before_each` is called before each segment; what it
    raises ends the reading. Raise `OSError`.
    """
    chains = segments_by_chain(folder)
    findings = Findings()
    if not chains:
        findings.add(folder, 0, "there is no record here")
    named = _named_heads(chains)
    for file, heads in (known or {}).items():
        for chain, head in heads.items():
            named.setdefault(chain, {})[head.seq] = _Named(hash=head.hash, file=file, line=0)
    reports = []
    for chain, segments in chains.items():
        reader = ChainReader(chain, keys, findings, named.get(chain, {}), missing_start=missing_start)
        reports.append(reader.read(segments, live=held(folder, chain), open_end=open_end, before_each=before_each))
    if not missing_start:
        for chain in sorted(named.keys() - chains.keys()):
            by = next(iter(named[chain].values()))
            findings.add(by.file, by.line, f"chain `{chain}` is named here, but is missing")
    return Report(chains=tuple(reports), findings=tuple(findings.kept), more_findings=findings.more)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentReport:
    """One segment: `records` up to number `seq` were read, which are `read_bytes` of its `size_bytes`.

    `unsigned` counts those after the last valid checkpoint, which is of the time `signed_at`. `joined` says that its
    beginning was compared with the end of the segment before. No `findings` means that it is as it was written.
    """

    records: int
    seq: int
    read_bytes: int
    size_bytes: int
    unsigned: int
    signed_at: str
    joined: bool
    findings: tuple[Finding, ...]
    more_findings: int


class Findings:
    """What was found, up to a bound; `more` counts the rest."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.more = 0

    def add(self, file: Path, line: int, problem: str) -> None:
        """Add a finding."""
        if len(self.kept) < _MOST_FINDINGS:
            self.kept.append(Finding(file=file, line=line, problem=problem))
        else:
            self.more += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """A record that another chain's first line of a segment names, or that was noted elsewhere."""

    hash: str
    file: Path
    line: int


def _named_heads(chains: Mapping[str, tuple[Segment, ...]]) -> dict[str, dict[int, _Named]]:
    named: dict[str, dict[int, _Named]] = {}
    for segment in (one for segments in chains.values() for one in segments if one.path.is_file()):
        heads = (parse_line(_first_line(segment.path)) or {}).get("heads")
        for chain, head in heads.items() if isinstance(heads, dict) else ():
            if written := head_written(str(head)):
                named.setdefault(chain, {})[written.seq] = _Named(hash=written.hash, file=segment.path, line=1)
    return named


@dataclass(slots=True, kw_only=True)
class _Position:
    """The position of the reader in a chain."""

    seq: int = 0
    hash: str = NOTHING_BEFORE
    # It is unknown what should follow: at a start that may be missing, and after a broken line.
    unknown: bool = False
    records: int = 0
    unsigned: int = 0
    signed_at: str = ""
    final: bool = False
    followed: bool = False
    named: dict[int, _Named] = field(default_factory=dict)


class ChainReader:
    """Reads one chain, or one segment of it, and reports its problems. For one use."""

    def __init__(
        self, chain: str, keys: PublicKeys, findings: Findings, named: dict[int, _Named], *, missing_start: bool
    ) -> None:
        self._chain, self._keys, self._findings = chain, keys, findings
        self._missing_start = missing_start
        # The first key that has signed here and is not among the given ones; empty for none.
        self.unknown_key = ""
        self._at = _Position(named=dict(named))
        self._file, self._line = Path(), 0

    def read(
        self, segments: tuple[Segment, ...], *, live: bool, open_end: bool, before_each: Callable[[], object] = int
    ) -> ChainReport:
        """Read all segments of the chain."""
        at, number = self._at, 0
        for segment in segments:
            before_each()
            self._file, self._line = segment.path, 0
            if segment.number != number + 1:
                self._missing(number + 1, segment.number - 1)
            number = segment.number
            self._segment(segment, last=segment is segments[-1], growing=live or open_end)
        self._end(segments[-1], growing=live or open_end, open_end=open_end)
        return ChainReport(
            chain=self._chain,
            segments=len(segments),
            records=at.records,
            seq=at.seq,
            hash=at.hash,
            unsigned=at.unsigned,
            signed_at=at.signed_at,
            closed=at.final and not at.followed,
            live=live,
        )

    def read_one(self, segment: Segment, *, before: Head | None, live: bool, most_bytes: int) -> SegmentReport:
        """Read about so many bytes of one segment.

        `before` is the record that it follows, None when that is not known.
        """
        at, last = self._at, not _following(segment).exists()
        at.unknown = before is None
        at.seq, at.hash = before or NO_HEAD
        self._file = segment.path
        read = self._segment(segment, last=last, growing=live, most_bytes=most_bytes)
        size = segment.path.stat().st_size
        if read >= size and last:
            self._end(segment, growing=live, open_end=False)
        elif read >= size:
            self._followed_by(_following(segment))
        return SegmentReport(
            records=at.records,
            seq=at.seq,
            read_bytes=read,
            size_bytes=size,
            unsigned=at.unsigned,
            signed_at=at.signed_at,
            joined=before is not None,
            findings=tuple(self._findings.kept),
            more_findings=self._findings.more,
        )

    def _followed_by(self, following: Path) -> None:
        """Compare the end of a segment with the beginning of the next one."""
        place = place_of(_first_line(following))
        # In doubt it does not follow: a segment never begins without its whole first line.
        if place is None or (place.seq, place.prev) != (self._at.seq + 1, self._at.hash):
            self._add(f"the next segment does not follow record {self._at.seq}, the last one here")

    def _missing(self, first: int, last: int) -> None:
        self._at.unknown = True
        if first > 1 or not self._missing_start:
            names = f"segment {first} is" if first == last else f"segments {first} to {last} are"
            self._add(f"{names} missing before this one")

    def _segment(self, segment: Segment, *, last: bool, growing: bool, most_bytes: float = inf) -> int:
        """Read a segment, or its first bytes; return how many."""
        if segment.path.is_symlink() or not segment.path.is_file():
            self._add("not a file")
            self._at.unknown = True
            return 0
        self._at.final = self._at.followed = False
        with segment.path.open("rb") as file:
            for self._line, line in enumerate(lines_of(file), start=1):
                if line.endswith(b"\n"):
                    self._record(line[:-1], segment)
                elif not (last and growing):
                    self._incomplete(segment, last=last)
                if file.tell() >= most_bytes:
                    break
            read = file.tell()
        if not self._line and not (last and growing):
            self._add("an empty segment")
        return read

    def _incomplete(self, segment: Segment, *, last: bool) -> None:
        following, opened = _following(segment), {}
        if not last and following.is_file():
            opened = parse_line(_first_line(following)) or {}
        # Half a line can be left where the disk failed; the next segment then says so, and is signed.
        if opened.get("after") != "failed" or self._at.final:
            self._add("an incomplete line")

    def _record(self, line: bytes, segment: Segment) -> None:
        at, place = self._at, place_of(line)
        if place is None or place.chain != self._chain:
            self._add("not a record of this chain" if place else "not a record")
            at.unknown = True
            return
        if not at.unknown and (place.seq != at.seq + 1 or place.prev != at.hash):
            self._add(_break(at.seq + 1, place.seq))
        if at.final:
            self._add("a record after the end of its segment")
        at.seq, at.hash, at.unknown = place.seq, hash_of(line), False
        at.records += 1
        at.unsigned += 1
        if at.named and place.seq in at.named:
            head = at.named.pop(place.seq)
            if head.hash != at.hash:
                self._add(f"not the record that `{head.file.name}` names")
        if self._line == 1 or _MARKS[0] in line or _MARKS[1] in line:
            self._own(line, parse_line(line) or {}, segment)

    def _own(self, line: bytes, record: dict[str, Any], segment: Segment) -> None:
        """Check a record that the log wrote about itself."""
        kind = record.get("kind")
        if (kind == OPENED) != (self._line == 1):
            self._add("a segment begins here" if kind == OPENED else "a segment must begin with `segment.opened`")
        elif kind == OPENED:
            self._opening(record, segment)
        elif kind == CHECKPOINT:
            self._checkpoint(line, record)

    def _opening(self, record: dict[str, Any], segment: Segment) -> None:
        if record.get("number") != segment.number:
            self._add(f"this is segment {record.get('number')} under another name")
        lost = record.get("lost")
        for chain, head in sorted(lost.items()) if isinstance(lost, dict) else ():
            if not self._missing_start or chain == self._chain:
                seq = str(head).partition(":")[0]
                self._add(
                    f"chain `{chain}` had safely reached record {seq} and lost it before this segment began: it was cut"
                )

    def _checkpoint(self, line: bytes, record: dict[str, Any]) -> None:
        problem = checkpoint_problem(line, record, self._keys)
        if problem:
            self._add(problem)
            key_id = str(record.get("key"))
            self.unknown_key = self.unknown_key or ("" if key_id in self._keys else key_id[:_SHOWN])
        else:
            self._at.unsigned, self._at.signed_at = 0, str(record.get("time"))
            self._at.final, self._at.followed = record.get("final") is True, record.get("followed") is True

    def _end(self, last: Segment, *, growing: bool, open_end: bool) -> None:
        at = self._at
        # Checked again, because a record in use can have continued since the folder was listed.
        if at.followed and not open_end and not _following(last).exists():
            self._add(f"segment {last.number + 1} is missing: this segment says that another one follows")
        if at.unsigned > UNSIGNED_RECORDS or not (at.final or growing):
            since = f"since the checkpoint of {at.signed_at}" if at.signed_at else "since the beginning"
            self._add(
                f"the chain is not closed, {at.unsigned} records {since} are not signed: "
                "its writer was killed, or the tail was cut"
            )
        for seq, head in sorted(at.named.items()):
            if seq > at.seq:
                self._add(f"the chain ends at record {at.seq}, but `{head.file.name}` names record {seq}")

    def _add(self, problem: str) -> None:
        self._findings.add(self._file, self._line, problem)


def checkpoint_problem(line: bytes, record: dict[str, Any], keys: PublicKeys) -> str:
    """Return what is wrong with a checkpoint, given its line and its record; empty when nothing is."""
    key_id, signature = str(record.get("key")), str(record.get("signature", ""))
    signed = {name: value for name, value in record.items() if name != "signature"}
    if key_id not in keys:
        return f"a checkpoint signed by the key `{key_id[:_SHOWN]}`, which is not among the given keys"
    if not keys.signed(key_id, canonical(signed), signature):
        return "the signature of a checkpoint is wrong"
    if canonical({**signed, "signature": signature}) != line:
        return "a checkpoint that is not written as it was signed"
    return ""


def _following(segment: Segment) -> Path:
    return segment_of(segment.path.parent, segment.chain, segment.number + 1).path


def _break(expected: int, found: int) -> str:
    if found == expected:
        return "the record before this one is not the one that this record follows: it was changed or replaced"
    if found < expected:
        return f"record {found} follows record {expected - 1}: repeated, inserted or out of order"
    missing = f"record {expected} is" if found == expected + 1 else f"records {expected} to {found - 1} are"
    return f"{missing} missing before this one"


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(RECORD_LINE_BYTES).rstrip(b"\n")
