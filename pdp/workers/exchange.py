"""Pass one worker's news to the others, and notify it when all of them have handled it."""

from __future__ import annotations

from dataclasses import dataclass

from pdp.workers.process import WorkerProcess
from pdp.workers.words import Heard, News


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """News, the worker that sent it, and the workers that have not handled it yet."""

    news: News
    teller: WorkerProcess
    waiting: set[WorkerProcess]


class Exchange:
    """The supervisor's part in the exchange of news between workers. For one thread.

    Nothing waits here: each worker limits how long it waits for the others.
    """

    def __init__(self) -> None:
        self._workers: set[WorkerProcess] = set()
        self._rounds: dict[str, _Round] = {}

    def join(self, worker: WorkerProcess) -> None:
        """Add a worker, also to open rounds, because it can have read the store before they began."""
        self._workers.add(worker)
        for one in self._rounds.values():
            worker.tell(one.news)
            one.waiting.add(worker)

    def leave(self, worker: WorkerProcess) -> None:
        """Remove an ended worker: do not wait for it, and drop its news."""
        self._workers.discard(worker)
        self._rounds = {name: one for name, one in self._rounds.items() if one.teller is not worker}
        for one in list(self._rounds.values()):
            self._strike(one, worker)

    def take(self, worker: WorkerProcess, word: News | Heard) -> None:
        """Handle a word from a worker."""
        if isinstance(word, News):
            self._rounds[word.id] = begun = _Round(news=word, teller=worker, waiting=self._workers - {worker})
            for other in begun.waiting:
                other.tell(word)
            self._strike(begun, worker)
        elif word.id in self._rounds:
            self._strike(self._rounds[word.id], worker)

    def _strike(self, one: _Round, worker: WorkerProcess) -> None:
        one.waiting.discard(worker)
        if not one.waiting:
            del self._rounds[one.news.id]
            one.teller.tell(Heard(id=one.news.id))
