"""Copy the record of this process to a folder that all servers on one database read.

A copy reaches as far as its chain is signed and on the disk, so that nothing of it has to be taken back.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
from pathlib import Path
from typing import Final

from pdp.audit.segments import mark_of, whole_bytes
from pdp.foundation.files import open_private
from pdp.record.chain import Reached
from pdp.record.segments import segments_by_chain

_LOG = logging.getLogger("pdp.record")

MOST_BYTES: Final = 256 * 1024 * 1024
_CHUNK_BYTES: Final = 1024 * 1024
_NAME_BYTES: Final = 4


class SharedCopies:
    """Copies of the segments of one folder in another, `shared`. For one thread. Methods raise `OSError`.

    At most about `most_bytes` are copied at once, so that what is noted of a long record does not wait for all of it.
    """

    def __init__(self, folder: Path, shared: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self._folder, self._shared, self._most_bytes = folder, shared, most_bytes
        # The names of segments that are there and no longer grow.
        self._whole: set[str] = set()

    def bring(self, chain: str, reached: Reached | None = None) -> bool:
        """Bring the copy of a chain up to date: as far as its writer has come, or as a whole when it has none.

        Return False when more is left to copy.
        """
        left = self._most_bytes
        # From the oldest on: what is missing at the beginning would look archived.
        for segment in segments_by_chain(self._folder).get(chain, ()):
            name, growing = segment.path.name, reached is not None and segment.number == reached.number
            if name in self._whole or (reached is not None and segment.number > reached.number):
                continue
            size = reached.size if reached is not None and growing else whole_bytes(segment.path)
            left -= _bring(segment.path, self._shared / name, size, most_bytes=left)
            if left <= 0:
                return False
            if not growing:
                self._whole.add(name)
        return True


def _bring(source: Path, copy: Path, size: int, *, most_bytes: int) -> int:
    """Copy what is missing of the first `size` bytes of a file, at most `most_bytes`; return how many."""
    there = copy.stat().st_size if copy.exists() else 0
    if there and (there > size or mark_of(copy, there) != mark_of(source, there)):
        # It may be all that is left of a record that was cut.
        kept = copy.with_name(f"{copy.stem}.{secrets.token_hex(_NAME_BYTES)}.cut")
        copy.rename(kept)
        _LOG.error("`%s` was not the beginning of its segment, and is kept as `%s`: run `pdp audit verify`", copy, kept)
        there = 0
    began, size = there, min(size, there + most_bytes)
    if there == size:
        return 0
    # The folder is not created: a volume that is not mounted must find its place free when it comes back.
    target = open_private(copy)
    try:
        with source.open("rb", buffering=0) as file:
            while there < size:
                part = os.pread(file.fileno(), min(_CHUNK_BYTES, size - there), there)
                if not part:
                    raise OSError(errno.EIO, "became shorter", str(source))
                there += os.pwrite(target, part, there)
        os.fsync(target)
    finally:
        os.close(target)
    return there - began
