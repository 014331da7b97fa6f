"""Who used a secret: the answer of a record to the question after a leak.

The record is read once and in order of time. What is kept of it is bounded: of each list the first or last rows, and
how much there is beyond them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pdp.clock import utc_text
from pdp.observer import EventKind
from pdp.record.fields import facts_of, number_of, text_of
from pdp.record.reader import read_records, read_segment
from pdp.record.secretuses import SecretUse, names_secret, use_of
from pdp.record.segments import segments_by_chain

# What is counted of uses, by the name of its list.
ABOUT: Final[Mapping[str, Callable[[SecretUse], str]]] = {
    "modes": lambda use: use.mode,
    "versions": lambda use: str(use.version),
    "tenants": lambda use: use.tenant,
    "sessions": lambda use: use.session_id,
    "users": lambda use: use.user,
    "agents": lambda use: use.agent,
    "tools": lambda use: use.action,
    "upstreams": lambda use: use.upstream,
    "presenters": lambda use: use.presenter,
}
_STORED: Final = (EventKind.SECRET_STORED, EventKind.SECRET_ROTATED)


@dataclass(slots=True, kw_only=True)
class Uses:
    """How often, and when at first and at last."""

    count: int = 0
    first: str = ""
    last: str = ""

    def add(self, time: str) -> None:
        """Count a use. A clock may have been set back."""
        self.count += 1
        self.first = min(self.first or time, time)
        self.last = max(self.last, time)


class Tally:
    """Uses by a value. The first `most` values are kept; `others` counts the uses of all further ones.

    A use that has no value is not counted here.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.by_value: dict[str, Uses] = {}
        self.others = Uses()

    def add(self, value: str, time: str) -> None:
        """Count a use of a value."""
        if value in self.by_value or len(self.by_value) < self._most:
            self.by_value.setdefault(value, Uses()).add(time)
        else:
            self.others.add(time)


class Exposure:
    """What a record says about the uses of a connection's secret, or of one version of it, since a time.

    `calls` are the last of the uses. `answers` counts what came back of them, with the bytes that were handed on.
    `known` says whether the record names the connection, and the version, at any time. `gap` says from when to when
    uses may be missing, and is empty when the record reaches back as far as was asked.
    """

    def __init__(self, connection: str, version: int, *, since: str, most: int) -> None:
        self.connection, self.version, self.since = connection, version, since
        self.uses = Uses()
        self.about = {name: Tally(most) for name in ABOUT}
        self.calls: deque[SecretUse] = deque(maxlen=most)
        self.answers, self.answer_bytes = 0, 0
        self.known = False
        self.gap = ""
        self._stored = ""

    def read(self, folder: Path) -> None:
        """Read a whole record. Raise `OSError` when it cannot be read."""
        for located in read_records(folder):
            self._take(located.record)
        self.gap = self._gap(folder)

    def _take(self, record: Mapping[str, Any]) -> None:
        if not names_secret(record, self.connection, self.version):
            return
        self.known = True
        facts, kind, time = facts_of(record), record.get("kind"), text_of(record, "time")
        # Versions are counted from 1, and never again.
        if kind in _STORED and number_of(facts, "version") == (self.version or 1):
            self._stored = self._stored or time
        if time < self.since:
            return
        if (use := use_of(record)) is not None:
            self._count(use)
        elif kind == EventKind.CALL_TOKEN_ANSWERED:
            self.answers += 1
            self.answer_bytes += number_of(facts, "bytes")

    def _count(self, use: SecretUse) -> None:
        self.uses.add(use.time)
        self.calls.append(use)
        for name, value_of in ABOUT.items():
            if value := value_of(use):
                self.about[name].add(value, use.time)

    def _gap(self, folder: Path) -> str:
        """Return which uses the record may lack, in words: those from before it begins, and those of removed files."""
        begun: list[str] = []
        cut: list[str] = []
        for segments in segments_by_chain(folder).values():
            if time := _beginning(segments[0].path):
                (begun if segments[0].number == 1 else cut).append(time)
        needed = max(self.since, self._stored)
        if cut and max(cut) > needed:
            return f"its oldest files are missing: it is whole from {max(cut)} on"
        if not cut and not self._stored and begun and min(begun) > self.since:
            return f"it begins at {min(begun)}"
        return ""


def exposure_of(folder: Path, connection: str, version: int, *, since_at: float, most: int) -> Exposure:
    """Return what a record says about a connection's secret; `version` is 0 for all of them.

    `most` bounds each list. Raise `OSError` when the record cannot be read.
    """
    found = Exposure(connection, version, since=utc_text(since_at) if since_at else "", most=most)
    found.read(folder)
    return found


def _beginning(segment: Path) -> str:
    records: Iterator[Any] = read_segment(segment)
    first = next(records, None)
    return text_of(first.record, "time") if first else ""
