"""Keep the trace and the record of a PDP where a test can read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pdp.decision.observers import Observers
from pdp.model import Decision, TraceParent
from pdp.observer import Event
from pdp.record import DecisionLog, SigningKey, read_records
from pdp.record.envelope import CHECKPOINT, OPENED
from pdp.record.keys import PublicKeys
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
        self._log = DecisionLog(
            folder / "record", key=KEY, signer=SigningKey.generate(), attributes=attributes, terms=terms
        )
        telemetry = Telemetry(spans=self._items.append)
        self.trace_ids = telemetry.trace_ids
        self._observers = Observers(self._log, telemetry)

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:
        """Trace a decision and record it."""
        return self._observers.decision(decision, parent)

    def event(self, event: Event) -> None:
        """Trace an event and record it."""
        self._observers.event(event)

    @property
    def spans(self) -> tuple[Span, ...]:
        """Return every span so far, in the order in which they ended."""
        return tuple(span_of(item, KEY, AttributeLimits()) for item in tuple(self._items))

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

        The log's entries about itself are left out.
        """
        records = (located.record for located in read_records(self._log.folder))
        return tuple(record for record in records if record["kind"] not in (CHECKPOINT, OPENED))

    @property
    def decision_records(self) -> tuple[dict[str, Any], ...]:
        """Return the record of each decision so far."""
        return tuple(record for record in self.records if record["kind"] == "decision")

    def close(self) -> None:
        """Close the log."""
        self._log.close()
