"""Passes what one worker tells on to the others, and lets it know when all of them have dealt with it."""

from __future__ import annotations

from dataclasses import dataclass

from pdp.workers.process import WorkerProcess
from pdp.workers.words import Heard, News


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """News, who tells them, and who has not dealt with them yet."""

    news: News
    teller: WorkerProcess
    waiting: set[WorkerProcess]


class Exchange:
    """The supervisor's part in what workers tell each other. For one thread.

    Nobody waits here: how long a worker waits for the others is its own affair.
    """

    def __init__(self) -> None:
        self._workers: set[WorkerProcess] = set()
        self._rounds: dict[str, _Round] = {}

    def join(self, worker: WorkerProcess) -> None:
        """Let a worker take part, also in what is going on: it may have looked into the store before."""
        self._workers.add(worker)
        for one in self._rounds.values():
            worker.tell(one.news)
            one.waiting.add(worker)

    def leave(self, worker: WorkerProcess) -> None:
        """Wait no more for a worker that has ended, nor for what it told."""
        self._workers.discard(worker)
        self._rounds = {name: one for name, one in self._rounds.items() if one.teller is not worker}
        for one in list(self._rounds.values()):
            self._strike(one, worker)

    def take(self, worker: WorkerProcess, word: News | Heard) -> None:
        """Take what a worker says."""
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
