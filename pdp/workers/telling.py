"""A worker's part in what workers tell each other: the `Peers` of a worker that has a supervisor."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from pdp.foundation.files import replacing
from pdp.workers.words import Heard, News, Word

_LOG = logging.getLogger("pdp")

# For workers that load a large bundle beside their calls, or that have just been started.
_PATIENCE_SECONDS = 10.0


class SupervisedPeers:
    """Tells the other workers through the supervisor, to whom `say` says a word. Safe for threads.

    What is told stands in `file`, which is this worker's own, as long as the others may read it.
    """

    def __init__(self, say: Callable[[Word], None], file: Path, *, patience: float = _PATIENCE_SECONDS) -> None:
        self._say = say
        self._file = file
        self._patience = patience
        self._turn = threading.Lock()
        self._told = 0
        self._open: dict[str, threading.Event] = {}
        self._closed = False
        self._incoming: queue.SimpleQueue[News] = queue.SimpleQueue()

    def begin(self, hear: Callable[[bytes], None]) -> None:
        """Have `hear` called with what another worker tells, one thing at a time, in a thread of its own."""
        threading.Thread(target=self._listen, args=(hear,), name="pdp-peers", daemon=True).start()

    def tell(self, news: bytes) -> None:
        """Tell all others, and return when each of them has dealt with it, or after the patience."""
        # One after the other: there is one file.
        with self._turn:
            self._told += 1
            # Not the id of somebody who had this worker's place before, and of whom others may still have something.
            told = News(id=f"{os.getpid()}-{self._told}", file=str(self._file))
            self._open[told.id] = heard = threading.Event()
            try:
                self._write(news)
                self._say(told)
                if not self._closed and not heard.wait(self._patience):
                    _LOG.warning("not all workers have dealt with a change within %g s; it is made now", self._patience)
            except OSError as error:
                _LOG.warning("the other workers cannot be told of a change before it is made: %s", error.strerror)
            finally:
                del self._open[told.id]
                self._file.unlink(missing_ok=True)

    def receive(self, word: News | Heard) -> None:
        """Take what the supervisor says; never waits."""
        if isinstance(word, News):
            self._incoming.put(word)
        elif heard := self._open.get(word.id):
            heard.set()

    def close(self) -> None:
        """Wait for the others no more."""
        self._closed = True
        for heard in list(self._open.values()):
            heard.set()

    def _write(self, news: bytes) -> None:
        # In one step: somebody whom nobody waits for any more may read just now.
        with replacing(self._file) as file:
            file.write(news)

    def _listen(self, hear: Callable[[bytes], None]) -> None:
        while True:
            told = self._incoming.get()
            try:
                hear(Path(told.file).read_bytes())
            except OSError as error:
                _LOG.warning("what another worker tells cannot be read: %s", error.strerror)
            finally:
                self._say(Heard(id=told.id))
