"""Pass events to an observer on a separate thread, for callers that must not wait for a disk."""

from __future__ import annotations

import logging
import threading
from queue import SimpleQueue

from pdp.model import Decision, TraceParent
from pdp.observer import Event, Observer

_LOG = logging.getLogger("pdp.server")

_MOST_WAITING = 1024


class Notices:
    """The observer that passes events on in order, and never waits; events beyond 1024 waiting ones are only logged.

    Decisions are passed on at once.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._waiting: SimpleQueue[Event | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="pdp-notices", daemon=True)
        self._thread.start()

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:
        """Pass a decision on."""
        return self._observer.decision(decision, parent)

    def event(self, event: Event) -> None:
        """Queue an event to be passed on."""
        if self._waiting.qsize() < _MOST_WAITING:
            self._waiting.put(event)
        else:
            _LOG.error("`%s` is not recorded: too many events wait for the record", event.kind)

    def close(self) -> None:
        """Pass on the waiting events, and end."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            self._observer.event(event)
