"""Anchors: the latest safe record of each chain, noted outside the folder of the record.

Files alone cannot show that their end is missing. The writer notes the latest record that was signed and synced in a
separate folder. When a writer starts, a chain that no longer holds that record was cut or replaced meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pdp.foundation.files import USUAL, replacing
from pdp.record.envelope import hash_of, place_of
from pdp.record.segments import Head, Segment, head_written, lines_backwards, segments_by_chain


class Anchors:
    """A folder with one small file for each chain. Methods raise `OSError`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, chain: str, head: Head) -> None:
        """Note the latest safe record of a chain."""
        # Do not create the folders above: an unmounted volume must find its mount point free when it comes back.
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with replacing(self._folder / chain, mode=USUAL) as file:
            file.write(f"{head.seq}:{head.hash}\n".encode("ascii"))

    def lost(self, record: Path) -> dict[str, str]:
        """Return each chain of a record that no longer holds its noted record, as `seq:hash`."""
        return lost_of(segments_by_chain(record), self.heads())

    def heads(self) -> dict[str, Head]:
        """Return the noted record of each chain; files that hold none are left out."""
        if not self._folder.is_dir():
            return {}
        files = [file for file in sorted(self._folder.iterdir()) if not file.suffix]
        noted = {file.name: head_written(file.read_text(encoding="ascii", errors="replace").strip()) for file in files}
        return {chain: head for chain, head in noted.items() if head is not None}


def lost_of(chains: Mapping[str, tuple[Segment, ...]], heads: Mapping[str, Head]) -> dict[str, str]:
    """Return each chain that does not hold its head among its segments, as `seq:hash`."""
    return {
        chain: f"{head.seq}:{head.hash}" for chain, head in heads.items() if not _holds(chains.get(chain, ()), head)
    }


def _holds(segments: tuple[Segment, ...], head: Head) -> bool:
    for segment in reversed(segments):
        for line in lines_backwards(segment.path):
            place = place_of(line)
            if place is not None and place.seq <= head.seq:
                return place.seq == head.seq and hash_of(line) == head.hash
    return False
