"""Who used a secret: the answer of a record to the question after a leak.

The record is read once and in order of time. What is kept of it is bounded: of each list the first or last rows, and
how much there is beyond them. Uses from before the time that is asked about are not parsed, since most of a record is
such uses.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pdp.clock import utc_text
from pdp.observer import EventKind
from pdp.record.fields import facts_of, number_of, text_of
from pdp.record.keys import PublicKeys
from pdp.record.reader import read_records, read_segment
from pdp.record.secretuses import SecretUse, names_secret, use_of
from pdp.record.segments import segments_by_chain
from pdp.record.verify import Report, verify

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
# Of lines as the log writes them, in which each quote within a text is escaped. Nothing but the facts ends in a brace
# before the kind. Facts can have a time, too.
_OF_USES: Final = re.compile(rb'\},"kind":"(?:calltoken\.used|calltoken\.answered|connection\.used)"')
_TIMES: Final = re.compile(rb',"time":"([^"]*)"')


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which uses are asked for: of a connection, in one version of its secret or with 0 in all, since unix seconds.

    `tenants` are those that may be told of; None stands for all. `most_names` and `most_calls` bound the lists, and the
    listed calls are the last of all, or of the first `before` of them.
    """

    connection: str
    version: int = 0
    since_at: float = 0.0
    tenants: Collection[str] | None = None
    most_names: int
    most_calls: int
    before: int | None = None

    @property
    def since(self) -> str:
        """Return from when on, as the record writes times; empty for the beginning."""
        return utc_text(self.since_at) if self.since_at else ""

    def is_about(self, record: Mapping[str, Any]) -> bool:
        """Say whether a record is about the secret, and may be told of."""
        told = self.tenants is None or text_of(record, "tenant") in self.tenants
        return told and names_secret(record, self.connection, self.version)


class Exposure:
    """What a record says about the uses of a secret.

    `calls` are those that are listed, and `calls_before` counts the ones before these. `answers` counts what came back,
    with the bytes that were handed on. `known` says whether the record names the connection, and the version, at any
    time. `gap` says from when to when uses may be missing, and is empty when the record reaches back as far as was
    asked. `before_each` is called before each line about the secret; what it raises ends the reading.
    """

    def __init__(self, asked: Question, before_each: Callable[[], object] = int) -> None:
        self._asked, self._before_each = asked, before_each
        self._since = asked.since.encode()
        self.uses = Uses()
        self.about = {name: Tally(asked.most_names) for name in ABOUT}
        self.calls: deque[SecretUse] = deque(maxlen=asked.most_calls)
        self.answers, self.answer_bytes = 0, 0
        self.known = False
        self.gap = ""
        self._stored = ""

    def read(self, folder: Path) -> None:
        """Read a whole record. Raise `OSError` when it cannot be read."""
        for located in read_records(folder, naming=self._asked.connection, wanted=self._wanted):
            self._take(located.record)
        self.gap = self._gap(folder)

    @property
    def calls_before(self) -> int:
        """Return how many calls there are before those that are listed."""
        before = self._asked.before
        return (self.uses.count if before is None else min(before, self.uses.count)) - len(self.calls)

    def _wanted(self, line: bytes) -> bool:
        """Say whether a line must be parsed. Of uses before the time that is asked about, one says all."""
        self._before_each()
        if not self.known or not self._since or not _OF_USES.search(line):
            return True
        return any(time >= self._since for time in _TIMES.findall(line))

    def _take(self, record: Mapping[str, Any]) -> None:
        if not self._asked.is_about(record):
            return
        self.known = True
        facts, kind, time = facts_of(record), record.get("kind"), text_of(record, "time")
        # Versions are counted from 1, and never again.
        if kind in _STORED and number_of(facts, "version") == (self._asked.version or 1):
            self._stored = self._stored or time
        if time < self._asked.since:
            return
        if (use := use_of(record)) is not None:
            self._count(use)
        elif kind == EventKind.CALL_TOKEN_ANSWERED:
            self.answers += 1
            self.answer_bytes += number_of(facts, "bytes")

    def _count(self, use: SecretUse) -> None:
        self.uses.add(use.time)
        if self._asked.before is None or self.uses.count <= self._asked.before:
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
        needed = max(self._asked.since, self._stored)
        if cut and max(cut) > needed:
            return f"its oldest files are missing: it is whole from {max(cut)} on"
        if not cut and not self._stored and begun and min(begun) > self._asked.since:
            return f"it begins at {min(begun)}"
        return ""


def exposure_of(
    folder: Path,
    keys: PublicKeys,
    asked: Question,
    *,
    open_end: bool = False,
    before_each: Callable[[], object] = int,
) -> tuple[Exposure, Report]:
    """Verify a record, and return what it says about a secret. Raise `OSError` when it cannot be read.

    `open_end` accepts a chain that is not closed, as in a copy of a record that is being written. `before_each` is
    called before each file and each line about the secret; what it raises ends the reading.
    """
    report = verify(folder, keys, open_end=open_end, before_each=before_each)
    found = Exposure(asked, before_each)
    found.read(folder)
    return found, report


def _beginning(segment: Path) -> str:
    records: Iterator[Any] = read_segment(segment)
    first = next(records, None)
    return text_of(first.record, "time") if first else ""
