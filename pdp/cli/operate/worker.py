"""One worker of `pdp serve`, as its supervisor starts it.

`python -m pdp.cli.operate.worker DESCRIPTOR`, with the job on stdin.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from pdp.cli.operate.logs import log_to_stderr
from pdp.cli.operate.serve import obey, problems_in_the_source
from pdp.cli.operate.signals import STOPPING, receive_signals
from pdp.cli.root import ERROR, error_lines
from pdp.foundation.garbage import collect_later, keep_what_there_is
from pdp.foundation.isolation import keep_memory_private
from pdp.foundation.repeating import Repeater
from pdp.workers.cores import pin
from pdp.workers.process import Job
from pdp.workers.telling import SupervisedPeers
from pdp.workers.words import Alive, Heard, News, Report, Signal, Word, read, written

_BEAT_SECONDS = 1.0
_LOG = logging.getLogger("pdp.worker")


def main() -> None:
    """Do the job from stdin, report to the descriptor, and serve until stopped."""
    report = int(sys.argv[1])
    keep_memory_private()
    collect_later()
    _make_ready()
    with os.fdopen(0, "rb", buffering=0, closefd=False) as stdin:
        line = stdin.readline()
    if not line:
        sys.exit(ERROR)  # the supervisor ended before this worker could begin
    job = Job.read(line)
    # Before there are threads: later threads run on the same cores as this one.
    pin(job.core)
    log_to_stderr(job.settings.log, job.number)
    received, sender = receive_signals()
    saying = threading.Lock()

    def say(word: Word) -> None:
        with saying:
            os.write(report, written(word))

    peers = SupervisedPeers(say, Path(job.settings.data_dir) / f"worker-{job.number}.news")
    threading.Thread(target=_listen, args=(sender, peers), name="pdp-supervisor", daemon=True).start()
    try:
        from pdp.app.server import App  # noqa: PLC0415 - brings gRPC, in this process alone

        with problems_in_the_source(job.settings):
            app = App(job.settings, worker=job.number, control=job.control, peers=peers)
            keep_what_there_is()
            app.start()
    except Exception as error:  # noqa: BLE001 - the supervisor tells whatever went wrong, once for all workers
        if os.environ.get("PDP_DEBUG") == "1":
            _LOG.exception("the worker cannot start")
        say(Report(problems=tuple(error_lines(error))))
        sys.exit(ERROR)
    say(Report())

    def beat() -> None:
        # The supervisor may have ended: then this worker ends soon too.
        with suppress(OSError):
            if app.takes_calls():
                say(Alive())

    Repeater("alive", beat, every=_BEAT_SECONDS).start()
    obey(app, received)


def _make_ready() -> None:
    """Import what is slow to import while there is no job yet.

    An error of an import comes again when the module is used.
    """
    with suppress(ImportError):
        import_module("pdp.app.server")


def _listen(sender: int, peers: SupervisedPeers) -> None:
    """Handle the supervisor's signals like received ones; its end is one to stop.

    After a second one this worker ends at once.
    """
    stopping = False
    with os.fdopen(0, "rb", closefd=False) as stdin:
        for word in map(read, stdin):
            if isinstance(word, Signal):
                stopping = stopping or word.signal in STOPPING
                os.write(sender, bytes([word.signal]))
            elif isinstance(word, News | Heard):
                peers.receive(word)
    if stopping:
        os._exit(ERROR)  # the supervisor got a second signal
    os.write(sender, bytes([signal.SIGTERM]))


if __name__ == "__main__":
    main()
