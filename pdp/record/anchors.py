"""What is known of each chain outside the folder of the record: how far it had come for sure.

Files alone cannot show that their end is missing. The writer notes the latest record that was signed and synced in a
folder of its own; when a writer starts, whatever no longer holds that record was cut or replaced meanwhile.
"""

from __future__ import annotations

from pathlib import Path

from pdp.foundation.files import USUAL, replacing
from pdp.record.envelope import hash_of, place_of
from pdp.record.segments import Head, Segment, lines_backwards, segments_by_chain


class Anchors:
    """A folder with one small file for each chain. Methods raise `OSError`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, chain: str, head: Head) -> None:
        """Keep how far a chain has come for sure."""
        # Not what is above it: a volume that is gone must find its place free when it comes back.
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with replacing(self._folder / chain, mode=USUAL) as file:
            file.write(f"{head.seq}:{head.hash}\n".encode("ascii"))

    def lost(self, record: Path) -> dict[str, str]:
        """Return each chain of a record that no longer holds what is known of it, with that as `seq:hash`."""
        chains = segments_by_chain(record)
        return {
            chain: f"{head.seq}:{head.hash}"
            for chain, head in self.heads().items()
            if not _holds(chains.get(chain, ()), head)
        }

    def heads(self) -> dict[str, Head]:
        """Return how far each chain had come for sure; files that say nothing are left out."""
        if not self._folder.is_dir():
            return {}
        noted = {file.name: _head(file) for file in sorted(self._folder.iterdir()) if not file.suffix}
        return {chain: head for chain, head in noted.items() if head is not None}


def _head(file: Path) -> Head | None:
    seq, _, known = file.read_text(encoding="ascii", errors="replace").strip().partition(":")
    return Head(int(seq), known) if seq.isascii() and seq.isdecimal() else None


def _holds(segments: tuple[Segment, ...], head: Head) -> bool:
    for segment in reversed(segments):
        for line in lines_backwards(segment.path):
            place = place_of(line)
            if place is not None and place.seq <= head.seq:
                return place.seq == head.seq and hash_of(line) == head.hash
    return False
