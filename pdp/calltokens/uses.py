"""Which call tokens were used: each counts once."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Final, Protocol

from pdp.calltokens.claims import CallClaims
from pdp.calltokens.refusals import CallTokenRefusedError, Reason

# A minute of 1,500 calls per second.
MOST_USES: Final = 100_000
_BUSY_SECONDS, _POLL_SECONDS = 2.0, 0.01
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS uses (id TEXT PRIMARY KEY, ends_at REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS uses_by_end ON uses (ends_at);
CREATE TABLE IF NOT EXISTS began (boot_id TEXT PRIMARY KEY, at REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forgotten (one INTEGER PRIMARY KEY CHECK (one = 1), until REAL NOT NULL) STRICT;
INSERT INTO forgotten VALUES (1, 0.0) ON CONFLICT DO NOTHING;
CREATE TRIGGER IF NOT EXISTS forget AFTER DELETE ON uses BEGIN
  UPDATE forgotten SET until = max(until, OLD.ends_at);
END;
"""
_USE = "INSERT INTO uses SELECT ?1, ?2 WHERE ?2 > (SELECT until FROM forgotten) ON CONFLICT DO NOTHING"


class Uses(Protocol):
    """Remembers used tokens until they are over. Safe for threads.

    When the clock is set back, tokens that were over count again. So what ends no later than a token that was forgotten
    is refused: it may be the same.
    """

    def use(self, claims: CallClaims, *, now: float, skew: float) -> None:
        """Use a token up. Raise `CallTokenRefusedError` when it was used before, or when that cannot be told.

        `now` is unix seconds, and `skew` by how many seconds clocks may differ. What was used before this memory began
        is not known, so a token from then is refused.
        """
        ...


class MemoryUses:
    """The memory of one process, which begins when it is made."""

    def __init__(self, *, most: int = MOST_USES, wall: Callable[[], float] = time.time) -> None:
        self._lock = Lock()
        self._most = most
        self._ends: dict[str, float] = {}
        self._forgotten_until = 0.0
        self._began_at = wall()

    def use(self, claims: CallClaims, *, now: float, skew: float) -> None:
        """Use a token up."""
        _require_later(claims, self._began_at, skew)
        with self._lock:
            if len(self._ends) >= self._most:
                self._forget(now)
            if claims.id in self._ends:
                raise _used()
            if claims.expires_at + skew <= self._forgotten_until:
                raise _forgotten()
            if len(self._ends) >= self._most:
                raise CallTokenRefusedError(Reason.UNAVAILABLE, "too many tokens were used in the last minute")
            self._ends[claims.id] = claims.expires_at + skew

    def _forget(self, now: float) -> None:
        self._forgotten_until = max(self._forgotten_until, *(end for end in self._ends.values() if end <= now), 0.0)
        self._ends = {id_: end for id_, end in self._ends.items() if end > now}


class FileUses:
    """A file that the processes on one machine share; it survives their sudden end.

    It is not synced, so a crash of the machine can lose the last uses: after one, tokens from before are refused. Raise
    `OSError` when it cannot be opened, or others can change it.
    """

    def __init__(
        self,
        path: Path,
        *,
        wall: Callable[[], float] = time.time,
        boot_id: Callable[[], str] | None = None,
    ) -> None:
        self._lock = Lock()
        _make_own(path)
        self._connection = sqlite3.connect(
            path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=8
        )
        self._use_log()
        self._connection.execute("PRAGMA synchronous=OFF")
        self._connection.executescript(_SCHEMA)
        self._began_at = self._begun((boot_id or _boot_id)(), wall())

    def use(self, claims: CallClaims, *, now: float, skew: float) -> None:
        """Use a token up."""
        _require_later(claims, self._began_at, skew)
        row = (claims.id, claims.expires_at + skew)
        try:
            with self._lock:
                self._connection.execute("DELETE FROM uses WHERE ends_at <= ?", (now,))
                if self._connection.execute(_USE, row).rowcount:
                    return
                known = self._connection.execute("SELECT 1 FROM uses WHERE id = ?", row[:1]).fetchone()
        except sqlite3.Error:
            raise CallTokenRefusedError(Reason.UNAVAILABLE, "what was used cannot be read or written") from None
        raise _used() if known else _forgotten()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _use_log(self) -> None:
        """Keep a log beside the file; for others who begin with it, the engine would not wait."""
        give_up_at = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError:
                if time.monotonic() >= give_up_at:
                    raise
                time.sleep(_POLL_SECONDS)
            else:
                return

    def _begun(self, boot_id: str, now: float) -> float:
        """Return when the memory of this boot of the machine began: the first process of it says so."""
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            self._connection.execute("DELETE FROM began WHERE boot_id != ?", (boot_id,))
            self._connection.execute("INSERT INTO began VALUES (?, ?) ON CONFLICT DO NOTHING", (boot_id, now))
            return float(self._connection.execute("SELECT at FROM began").fetchone()[0])


def _make_own(path: Path) -> None:
    """Make the file unless it is there. Raise `PermissionError` for one that others own or can write."""
    opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        state = os.fstat(opened)
    finally:
        os.close(opened)
    if state.st_uid not in (os.geteuid(), 0) or state.st_mode & 0o022:
        raise PermissionError(f"others can change `{path}`, and make used tokens good again: `chmod go-w` it")


def _boot_id() -> str:
    """Name the present boot of the machine, as `pdp.clock` does."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        # Where there is no such file, the minute of the boot names it. For another minute the memory begins anew, which
        # forgets nothing and only refuses more. Of the clocks, these continue while the machine sleeps.
        continues = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
        since_boot = time.monotonic() if continues is None else time.clock_gettime(continues)
        return f"boot-{round((time.time() - since_boot) / 60)}"


def _require_later(claims: CallClaims, began_at: float, skew: float) -> None:
    if claims.issued_at < began_at + skew:
        raise CallTokenRefusedError(Reason.TIME, "from before the memory of used tokens began")


def _used() -> CallTokenRefusedError:
    return CallTokenRefusedError(Reason.USED, "used before")


def _forgotten() -> CallTokenRefusedError:
    return CallTokenRefusedError(Reason.TIME, "over once before, and whether it was used is forgotten")
