"""What the record is to say of a change, kept beside the change until the record has it on its disk.

A process can be killed between a commit and its line in the record, and never learn that a commit was made. So what
that line is to say is written in the transaction of the change: both are made, or neither.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from pdp.errors import StoreUnavailableError
from pdp.model import Session
from pdp.observer import Event, EventKind

# Returns the events of one transaction, given the sessions that it has written, as they are afterwards.
Account = Callable[[Sequence[Session]], Iterable[Event]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrecorded:
    """The events of one transaction, which may not be in the record; `id` names them in the store."""

    id: str
    events: tuple[Event, ...]


class KnownRows:
    """What one process knows of its rows in the store: whether the record has what they say. Safe for threads.

    `chain` is that of its record; where it is empty, nothing is kept. All stores of a process share it: what one has
    written is not taken for left behind by another.
    """

    def __init__(self, chain: str = "") -> None:
        self.chain = chain
        self._lock = threading.Lock()
        self._rows: dict[str, bool] = {}

    def note(self, rows: Iterable[str], *, recorded: bool) -> None:
        """Note rows, and whether their events were handed to the record."""
        with self._lock:
            self._rows.update(dict.fromkeys(rows, recorded))

    def drop(self, rows: Iterable[str]) -> None:
        """Know nothing of some rows any more."""
        with self._lock:
            for row in rows:
                self._rows.pop(row, None)

    def recorded(self) -> frozenset[str]:
        """Return the rows whose events were handed to the record."""
        with self._lock:
            return frozenset(row for row, recorded in self._rows.items() if recorded)

    def unknown(self, rows: Iterable[str]) -> list[str]:
        """Return those of some rows that this process does not know."""
        with self._lock:
            return [row for row in rows if row not in self._rows]


def events_text(events: Iterable[Event]) -> str:
    """Write events as JSON."""
    return json.dumps([{name: getattr(one, name) for name in _FIELDS} for one in events], separators=(",", ":"))


def events_from(text: str) -> tuple[Event, ...]:
    """Return the events that a text holds. `StoreUnavailableError` when the text is damaged."""
    try:
        return tuple(map(_event, json.loads(text)))
    except (ValueError, KeyError, TypeError, AttributeError):
        # `from None`: the inner message quotes what is stored.
        raise StoreUnavailableError("a stored event is damaged") from None


# By reflection, so that a new field cannot be forgotten here.
_FIELDS: Final = tuple(field.name for field in fields(Event))


def _event(values: dict[str, Any]) -> Event:
    lists = {name: tuple(texts) for name, texts in values["lists"].items()}
    return Event(**{**values, "kind": EventKind(values["kind"]), "lists": lists})
