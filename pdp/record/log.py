"""Append every decision and event to a file, before the answer leaves.

The mode is `written`: a line is handed to the operating system with the answer still unsent, so it survives the
sudden end of this process, but not that of the machine.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any, Self

from pdp.errors import ConfigurationError
from pdp.model import Decision, TraceParent
from pdp.observer import Event
from pdp.record.entry import decision_line, event_line

_KEY_BYTES = 32


class DecisionLog:
    """The observer that keeps the record in one file, which belongs to this process alone.

    A line that cannot be written is lost, counted and reported to `on_failure`; the decision goes on. `healthy` is
    False from then until a line is written again. `key` (at least 32 bytes) makes digests that cannot be guessed.
    Raise `ConfigurationError` when the file cannot be opened.
    """

    def __init__(self, path: Path, *, key: bytes, on_failure: Callable[[], None] | None = None) -> None:
        if len(key) < _KEY_BYTES:
            raise ConfigurationError(f"the key of the decision log is shorter than {_KEY_BYTES} bytes")
        self.path = path
        self.failures = 0
        self._key = key
        self._on_failure = on_failure
        self._lock = Lock()
        self._healthy = True
        self._file = _open(path)
        self._inside_line = not _ends_with_line(self._file)

    @classmethod
    def in_folder(
        cls, folder: Path, *, key: bytes, started_at: float, on_failure: Callable[[], None] | None = None
    ) -> Self:
        """Open a file of this process's own in a folder that several may share; `started_at` is unix seconds."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"cannot make the folder `{folder}`: {error.strerror}") from None
        started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(started_at))
        return cls(folder / f"decisions-{started}-{os.getpid()}.jsonl", key=key, on_failure=on_failure)

    @property
    def healthy(self) -> bool:
        """Say whether the latest line was written."""
        return self._healthy

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:  # noqa: ARG002 - the observer's signature
        """Write a decision down; return it unchanged."""
        self._append(decision_line(decision, self._key))
        return decision

    def event(self, event: Event) -> None:
        """Write an event down."""
        self._append(event_line(event))

    def close(self) -> None:
        """Close the file. Calling it twice is harmless; what comes afterwards counts as a failure."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file = -1

    def _append(self, line: bytes) -> None:
        with self._lock:
            try:
                self._write(line)
            except OSError:
                self._healthy = False
                self.failures += 1
            else:
                self._healthy = True
                return
        # Outside the lock, because it is foreign code.
        if self._on_failure is not None:
            self._on_failure()

    def _write(self, line: bytes) -> None:
        if self._inside_line:
            # A reader skips the broken line; a record must not become part of it.
            line = b"\n" + line
        written = 0
        while written < len(line):
            # A full disk first cuts a write short and then refuses the rest.
            written += os.write(self._file, line[written:])
            self._inside_line = written < len(line)


def read_log(path: Path, *, on_broken: Callable[[int], None] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the records of a log in order, also while it is being written.

    A line that is not a whole record (the last one after a crash, one that a full disk cut) is skipped, and its
    number, from 1, is reported to `on_broken`.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            record = _record(line)
            if record is not None:
                yield record
            elif on_broken is not None:
                on_broken(number)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigurationError(f"cannot open the decision log `{path}`: {error.strerror}") from None


def _ends_with_line(file: int) -> bool:
    size = os.fstat(file).st_size
    return size == 0 or os.pread(file, 1, size - 1) == b"\n"
