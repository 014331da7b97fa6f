"""A worker's part in the exchange of news: the `Peers` of a worker that has a supervisor."""

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

# What a worker leaves to those that begin later, in the folder of the news. Who ends the workers removes it.
LEFT = "compiled.news"

# Enough for workers that load a large bundle beside their calls, or that have just started.
_PATIENCE_SECONDS = 10.0


class SupervisedPeers:
    """Notifies the other workers through the supervisor, to which `say` sends a word. Safe for threads.

    The news is in `file`, which belongs to this worker, while the others can read it.
    """

    def __init__(self, say: Callable[[Word], None], file: Path, *, patience: float = _PATIENCE_SECONDS) -> None:
        self._say = say
        self._file = file
        self._left = file.with_name(LEFT)
        self._patience = patience
        self._turn = threading.Lock()
        self._count = 0
        self._open: dict[str, threading.Event] = {}
        self._closed = False
        self._incoming: queue.SimpleQueue[News] = queue.SimpleQueue()

    def begin(self, hear: Callable[[bytes], None]) -> None:
        """Call `hear` with the news of other workers, one at a time, on a new thread."""
        threading.Thread(target=self._listen, args=(hear,), name="pdp-peers", daemon=True).start()

    def tell(self, news: bytes) -> None:
        """Notify all others, and return when each of them has handled the news, or after the patience."""
        # One at a time, because there is one file.
        with self._turn:
            self._count += 1
            # Not an id of this worker's predecessor, whose news others may still be handling.
            word = News(id=f"{os.getpid()}-{self._count}", file=str(self._file))
            self._open[word.id] = heard = threading.Event()
            try:
                _write(self._file, news)
                self._say(word)
                if not self._closed and not heard.wait(self._patience):
                    _LOG.warning("not all workers have confirmed a change within %g s; it is made now", self._patience)
            except OSError as error:
                _LOG.warning("the other workers cannot be informed of a change before it is made: %s", error.strerror)
            finally:
                del self._open[word.id]
                self._file.unlink(missing_ok=True)

    def leave(self, news: bytes) -> None:
        """Keep news in one file for all workers that begin later."""
        try:
            with self._turn:
                _write(self._left, news)
        except OSError as error:
            _LOG.warning("the workers that begin later must compile the bundle again: %s", error.strerror)

    def left(self) -> bytes | None:
        """Return what this or another worker has left last, or None."""
        try:
            return self._left.read_bytes()
        except OSError:
            return None

    def receive(self, word: News | Heard) -> None:
        """Handle a word from the supervisor, without waiting."""
        if isinstance(word, News):
            self._incoming.put(word)
        elif heard := self._open.get(word.id):
            heard.set()

    def close(self) -> None:
        """Stop waiting for the others."""
        self._closed = True
        for heard in list(self._open.values()):
            heard.set()

    def _listen(self, hear: Callable[[bytes], None]) -> None:
        while True:
            word = self._incoming.get()
            try:
                hear(Path(word.file).read_bytes())
            except OSError as error:
                _LOG.warning("a message from another worker cannot be read: %s", error.strerror)
            finally:
                self._say(Heard(id=word.id))


def _write(file: Path, news: bytes) -> None:
    # In one step: a worker that is no longer waited for, or one that begins, can be reading now.
    with replacing(file) as new:
        new.write(news)
