"""Keep the trace and the record of a PDP where a test can read them."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

from pdp.decision.observers import Observers
from pdp.model import Decision, TraceParent
from pdp.observer import Event
from pdp.record import DecisionLog, SigningKey
from pdp.record.envelope import CHECKPOINT, OPENED, parse_line
from pdp.record.keys import PublicKeys
from pdp.record.segments import segments_by_chain
from pdp.telemetry.encoder import Item, span_of
from pdp.telemetry.limits import AttributeLimits
from pdp.telemetry.names import SPAN_DECISION
from pdp.telemetry.observer import Telemetry
from pdp.telemetry.wire import Span

KEY = b"a key that only tests ever use. "


class Evidence:
    """The observer of a PDP under test: real telemetry into memory, and a real decision log below `folder`."""

    def __init__(
        self, folder: Path, *, attributes: frozenset[str] = frozenset(), terms: frozenset[str] = frozenset()
    ) -> None:
        self._items: list[Item] = []
        # Nothing is read twice: a test of a thousand calls may look after each of them.
        self._reading = Lock()
        self._spans: list[Span] = []
        self._records: list[dict[str, Any]] = []
        self._read_bytes: dict[Path, int] = {}
        self._log = DecisionLog(
            folder / "record", key=KEY, signer=SigningKey.generate(), attributes=attributes, terms=terms
        )
        telemetry = Telemetry(spans=self._items.append)
        self.trace_ids = telemetry.trace_ids
        self._observers = Observers(telemetry, record=self._log)

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:
        """Trace a decision and record it."""
        return self._observers.decision(decision, parent)

    def event(self, event: Event) -> None:
        """Trace an event and record it."""
        self._observers.event(event)

    @property
    def spans(self) -> tuple[Span, ...]:
        """Return every span so far, in the order in which they ended."""
        with self._reading:
            new = self._items[len(self._spans) :]
            self._spans += [span_of(item, KEY, AttributeLimits()) for item in new]
            return tuple(self._spans)

    @property
    def decision_spans(self) -> tuple[dict[str, Any], ...]:
        """Return the attributes of the span of each decision so far."""
        return tuple(dict(span.attributes) for span in self.spans if span.name == SPAN_DECISION)

    @property
    def public_keys(self) -> PublicKeys:
        """Return the public half of the key that signs the log."""
        return self._log.public_keys

    @property
    def record_folder(self) -> Path:
        """Return the folder of the log."""
        return self._log.folder

    @property
    def records(self) -> tuple[dict[str, Any], ...]:
        """Return the record of each decision and event so far.

        The log's entries about itself are left out. A record is read once, and must not be changed.
        """
        with self._reading:
            for segments in segments_by_chain(self._log.folder).values():
                for segment in segments:
                    self._read(segment.path)
            return tuple(self._records)

    @property
    def decision_records(self) -> tuple[dict[str, Any], ...]:
        """Return the record of each decision so far."""
        return tuple(record for record in self.records if record["kind"] == "decision")

    def _read(self, path: Path) -> None:
        """Read the lines that a file of the log has more than before."""
        with path.open("rb") as lines:
            lines.seek(self._read_bytes.get(path, 0))
            whole = [line for line in lines if line.endswith(b"\n")]
        self._read_bytes[path] = self._read_bytes.get(path, 0) + sum(map(len, whole))
        found = (parse_line(line) for line in whole)
        self._records += [one for one in found if one is not None and one["kind"] not in (CHECKPOINT, OPENED)]

    def close(self) -> None:
        """Close the log."""
        self._log.close()
