"""Which calls were charged in the last minute, in memory, so that a retry of one takes nothing."""

from __future__ import annotations

from typing import NamedTuple

from pdp.clock import Deadline, Instant
from pdp.sessions.historycontract import RETRY_SECONDS


class _Receipt(NamedTuple):
    """When a call was charged, until when a retry of it is not, and how many tries of it count on that."""

    charged_at: float
    end: Deadline
    tries: int


class MemoryReceipts:
    """The receipts of the last `most` charges, each by the `retry_digest` of its call. Its user holds a lock.

    An empty digest is that of calls which cannot be retried: they have no receipt.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._receipts: dict[bytes, _Receipt] = {}

    def charged_at(self, digest: bytes, now: Instant) -> float | None:
        """Return when a call was charged, if less than `RETRY_SECONDS` ago; else None."""
        receipt = self._receipts.get(digest)
        return None if receipt is None or receipt.end.passed(now) else receipt.charged_at

    def join(self, digest: bytes, now: Instant) -> float | None:
        """Let one more try count on the charge that `charged_at` returns, and return it."""
        charged_at = self.charged_at(digest, now)
        if charged_at is not None:
            receipt = self._receipts[digest]
            self._receipts[digest] = receipt._replace(tries=receipt.tries + 1)
        return charged_at

    def sign(self, digest: bytes, now: Instant) -> None:
        """Note the charge of a call."""
        if not digest:
            return
        # To the end of the table: what is at its front is oldest.
        self._receipts.pop(digest, None)
        self._receipts[digest] = _Receipt(now.wall_at, Deadline.after(now, RETRY_SECONDS), 1)
        if len(self._receipts) > self._most:
            # A retry of that call is then charged once more.
            del self._receipts[next(iter(self._receipts))]

    def leave(self, digest: bytes, charged_at: float) -> bool:
        """Let one try less count on a charge; say whether it was the last one, and the charge can be taken back."""
        if not digest:
            return True
        receipt = self._receipts.get(digest)
        # Another charge can have replaced one that is old.
        if receipt is None or receipt.charged_at != charged_at:
            return False
        if receipt.tries > 1:
            self._receipts[digest] = receipt._replace(tries=receipt.tries - 1)
            return False
        del self._receipts[digest]
        return True

    def forget(self, *, charged_before: float) -> None:
        """Remove the receipts of old charges."""
        for digest in [key for key, one in self._receipts.items() if one.charged_at < charged_before]:
            del self._receipts[digest]

    def clear(self) -> None:
        """Remove all."""
        self._receipts.clear()
