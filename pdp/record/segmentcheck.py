"""Verify one segment of a record that is in use: for a question that must be answered in about a second."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from pdp.errors import NotFoundError, UnavailableError, WrongStateError, reason_of
from pdp.record.keys import PublicKeys
from pdp.record.segments import NO_HEAD, Head, Segment, head_of, segment_named, segment_of
from pdp.record.slot import held
from pdp.record.verify import ChainReader, Findings, SegmentReport

# A segment of the usual size as a whole, which takes about a second.
MOST_BYTES = 66 * 1024 * 1024


class SegmentCheck:
    """Verifies segments of one folder, and of a `shared` one of what that lacks, one at a time. Safe for threads.

    Of a segment, about the first `most_bytes` are read. What other chains and earlier segments say is not compared:
    that, and records that are gone as a whole, are for `verify`.
    """

    def __init__(
        self, folder: Path, keys: PublicKeys, *, shared: Path | None = None, most_bytes: int = MOST_BYTES
    ) -> None:
        self._folder, self._shared = folder, shared
        self._keys = keys
        self._most_bytes = most_bytes
        self._turn = Lock()

    def verify(self, name: str) -> SegmentReport:
        """Verify the segment with the name of a file.

        Raise `NotFoundError` when there is none, `UnavailableError` while another one is verified, and
        `WrongStateError` for a copy of another machine whose key is not known here.
        """
        found = [segment_named(folder, name) for folder in (self._folder, self._shared) if folder]
        segment = next((one for one in found if one is not None and one.path.exists()), None)
        if segment is None:
            raise NotFoundError(f"no such segment: `{name}`")
        if not self._turn.acquire(blocking=False):
            raise UnavailableError("another segment of the record is being verified; ask again")
        try:
            reader = ChainReader(segment.chain, self._keys, Findings(), {}, missing_start=True)
            # A copy ends where its chain was last signed.
            copied = segment.path.parent == self._shared
            live = copied or held(self._folder, segment.chain)
            report = reader.read_one(segment, before=_before(segment), live=live, most_bytes=self._most_bytes)
        except OSError as error:
            raise UnavailableError(f"the segment cannot be read: {reason_of(error)}") from None
        finally:
            self._turn.release()
        if copied and reader.unknown_key:
            raise WrongStateError(
                f"`{name}` is of another machine, and the key `{reader.unknown_key}` that signed it is not known here: "
                "add its public key to `record.public_keys`, or run `pdp audit verify` with it"
            )
        return report


def _before(segment: Segment) -> Head | None:
    """Return the record that a segment follows; None when the segment before is gone."""
    if segment.number == 1:
        return NO_HEAD
    previous = segment_of(segment.path.parent, segment.chain, segment.number - 1)
    return head_of((previous,)) if previous.path.is_file() else None
