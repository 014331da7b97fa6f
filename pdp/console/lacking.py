"""What the answers of one page lack of the records of all servers."""

from __future__ import annotations

from pdp.v1.audit_pb2 import Lacking


class LackingNote:
    """Takes what each answer lacks, and says it in a sentence."""

    def __init__(self) -> None:
        self._machines: set[str] = set()
        self._unknown = False

    def take(self, found: Lacking) -> None:
        """Take what one answer lacks."""
        self._machines.update(part.replica for part in found.parts)
        self._unknown = self._unknown or found.unknown

    @property
    def sentence(self) -> str:
        """Return what is lacking; empty when nothing is."""
        if self._unknown:
            return "The server cannot tell which records of other machines are not here."
        return f"Not all records of {', '.join(sorted(self._machines))} are here." if self._machines else ""
