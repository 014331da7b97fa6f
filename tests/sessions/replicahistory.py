"""What clients of several replicas saw: one line for each operation, with when it was asked for and when answered.

All times are of one `CLOCK_MONOTONIC`. An operation whose outcome is not known can have happened at any time after it
was asked for, or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from math import inf
from pathlib import Path
from threading import Lock
from typing import Final


class Kind(StrEnum):
    """What was done. The last six are no calls of clients."""

    REQUEST = "request"
    APPROVE = "approve"
    AUTHORIZE = "authorize"
    REVOKE = "revoke"
    END = "end"
    NARROW = "narrow"
    LABEL = "label"
    ACTIVATE = "activate"
    # Something was broken from `invoked` to `returned`, at one replica or at all.
    FAULT = "fault"
    # Nothing was broken any more from `invoked` on, and all replicas answered again from `returned` on.
    CALM = "calm"
    # A session as a replica shows it at the end.
    READ = "read"
    # The record of a replica holds a decision.
    RECORDED = "recorded"
    # The record of a replica says what has become of a session: the `name` of what it came to.
    TOLD = "told"
    # The record of a replica says that the database has gone back to an older state, on the timeline of its `name`.
    WENT_BACK = "went back"


class Result(StrEnum):
    """What is known of an operation: it was done, surely not done, or either."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "info"


# Names of faults that cut a replica off from the database begin like this.
CUT: Final = "cut"
# The fault that may lose what was acknowledged: a standby takes over that need not have it.
LOSS: Final = "failover that loses"
# A fault at all replicas.
EVERYWHERE: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One line. What does not belong to its kind is empty."""

    kind: Kind
    invoked: float = 0.0
    returned: float = inf
    result: Result = Result.OK
    client: int = 0
    replica: int = EVERYWHERE
    session: str = ""
    # Of a request.
    parent: str = ""
    # How many calls the session may make, -1 for any number.
    budget: int = -1
    # The tool that a call is about, or that is no longer allowed after a narrowing or a label.
    tool: str = ""
    # Of an answer about a call.
    allowed: bool = False
    basis: str = ""
    decision: str = ""
    request_id: str = ""
    # The epoch of a change that the caller has heard of, and insists on; -1 for none.
    least: int = -1
    # Of the session, in an answer about a call or a change, or when it is read; -1 when it is not said.
    epoch: int = -1
    # When an approved session ends.
    until: float = inf
    # Of a change: by what it was fenced, and how long that took.
    fenced_by: str = ""
    fence_seconds: float = 0.0
    # The version of a bundle: of an activation, and of an answer about a call.
    bundle: str = ""
    # Of a session that is read.
    state: str = ""
    # Of a fault, or of an error.
    name: str = ""


_DEFAULTS: Final = tuple((field.name, field.default) for field in fields(Operation))


class KeptHistory:
    """A history in a file, which is read each time it is gone through: it takes no memory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Operation]:
        with self._path.open(encoding="utf-8") as lines:
            for line in lines:
                said = json.loads(line)
                said["kind"], said["result"] = Kind(said["kind"]), Result(said.get("result", Result.OK))
                yield Operation(**said)


class HistoryFile(KeptHistory):
    """A history in a file that gets a line of JSON for each operation that is noted. Safe for threads."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lock = Lock()
        # Each line is there for readers once it is noted.
        self._file = path.open("a", buffering=1, encoding="utf-8")

    def note(self, one: Operation) -> None:
        """Add an operation."""
        said = {name: value for name, default in _DEFAULTS if (value := getattr(one, name)) != default}
        line = json.dumps(said) + "\n"
        with self._lock:
            self._file.write(line)

    def close(self) -> None:
        """Close the file; it can still be gone through."""
        with self._lock:
            self._file.close()
