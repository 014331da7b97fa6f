"""Sum up refused requests: callers, even without credentials, must not fill the record with refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock

from pdp.clock import utc_text
from pdp.model import Decision, TraceParent
from pdp.observer import Event, EventKind, Observer

# Kinds of refusals that are counted separately between two sums; all others share one sum.
MOST_KINDS = 256
SUM_SECONDS = 60.0

_Kind = tuple[str, str, str]
_OTHERS: _Kind = ("other", "other", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sum:
    """How many refusals followed the first one, when the first of these came, and the latest."""

    count: int
    first_at: float
    latest: Event

    def with_one_more(self, event: Event) -> _Sum:
        return replace(self, count=self.count + 1, latest=event)


class RefusalSums:
    """The observer that passes on the first refusal of each kind, and only the sum of those that follow.

    A kind is one RPC, one caller and one status. `flush`, which is called at intervals, reports the count of each kind
    as `requests.refused` and starts again: between two flushes a kind costs two records, however many requests arrive.
    `count` is called with every refusal that is not passed on, so that metrics are exact.
    """

    def __init__(self, observer: Observer, *, count: Callable[[Event], None] = lambda _: None) -> None:
        self._observer = observer
        self._count = count
        self._lock = Lock()
        self._sums: dict[_Kind, _Sum | None] = {}

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:
        """Pass a decision on."""
        return self._observer.decision(decision, parent)

    def event(self, event: Event) -> None:
        """Pass an event on; a refusal only when it is the first of its kind."""
        if event.kind is not EventKind.REQUEST_REFUSED or self._first(event):
            self._observer.event(event)
        else:
            self._count(event)

    def flush(self) -> None:
        """Report the sums, and start again."""
        with self._lock:
            sums, self._sums = self._sums, {}
        for kind, found in sums.items():
            if found is not None:
                self._observer.event(_event(kind, found))

    def _first(self, event: Event) -> bool:
        kind = (event.facts.get("rpc", ""), event.facts.get("status", ""), event.caller_id)
        with self._lock:
            if kind not in self._sums and len(self._sums) >= MOST_KINDS:
                kind = _OTHERS
            if kind not in self._sums and kind is not _OTHERS:
                self._sums[kind] = None
                return True
            found = self._sums.get(kind) or _Sum(count=0, first_at=event.at, latest=event)
            self._sums[kind] = found.with_one_more(event)
            return False


def _event(kind: _Kind, found: _Sum) -> Event:
    latest = found.latest
    times = {"first_at": utc_text(found.first_at), "last_at": utc_text(latest.at)}
    if kind is _OTHERS:
        facts = {"rpc": "other", "status": "other", "count": str(found.count), **times}
        return replace(latest, kind=EventKind.REQUESTS_REFUSED, caller_id="", tenant="", facts=facts)
    # The facts of the latest refusal serve as a sample, its trace above all.
    sample = {name: fact for name, fact in latest.facts.items() if name != "field"}
    return replace(latest, kind=EventKind.REQUESTS_REFUSED, facts={**sample, "count": str(found.count), **times})
