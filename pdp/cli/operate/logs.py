"""The server's own log on stderr: text or JSON, in UTC, with priorities where the journal reads it."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from pdp.config.settings import LogSettings

# The names that syslog and the journal use for the levels.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


def log_to_stderr(settings: LogSettings, worker: int = 0) -> None:
    """Write the log to stderr; with several processes, each line names its `worker`."""
    handler = logging.StreamHandler(sys.stderr)
    form = JSONFormatter(worker) if settings.format == "json" else TextFormatter(worker)
    handler.setFormatter(JournalFormatter(form) if is_journal(sys.stderr, os.environ) else form)
    logging.basicConfig(level=settings.level.upper(), handlers=[handler])


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Say whether a stream leads to systemd's journal.

    systemd names the journal by device and inode in `JOURNAL_STREAM`.
    """
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class TextFormatter(logging.Formatter):
    """A line for people: `2026-01-05T10:00:00.123Z INFO worker 2 pdp.server: what happened`."""

    def __init__(self, worker: int) -> None:
        who = f"worker {worker} " if worker else ""
        super().__init__(f"%(asctime)s %(levelname)s {who}%(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - logging's
        """Return the moment in UTC, in RFC 3339."""
        return moment(record)


class JSONFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `worker`, `message`, and `exception` if there is one."""

    def __init__(self, worker: int) -> None:
        super().__init__()
        self._who = {"worker": worker} if worker else {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._who,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class JournalFormatter(logging.Formatter):
    """The output of another formatter, with a priority before each line: `<4>`."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines."""
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG)
        return "\n".join(f"<{priority}>{line}" for line in self._form.format(record).splitlines())


def moment(record: logging.LogRecord) -> str:
    """Return when a record was logged: in UTC, in RFC 3339, to the millisecond."""
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
