"""`pdp serve`."""

from __future__ import annotations

import logging
import signal
import sys
from queue import SimpleQueue
from types import FrameType

import click

from pdp.app import build
from pdp.cli.init import prepare
from pdp.cli.options import with_settings
from pdp.config import Settings, describe

_GRACE_SECONDS = 5.0


@click.command(epilog="Example:  pdp serve --policies-folder policies --server-address 127.0.0.1:0")
@with_settings(*(row.name for row in describe()))
def serve(*, settings: Settings) -> None:
    """Run the server.

    A first start writes tokens and keys, as `pdp init` does. Logs go to stderr. SIGTERM and SIGINT let running
    calls finish; a second one ends the process at once. SIGHUP reads the callers again.
    """
    if prepare(settings):
        click.echo(f"first start: the tokens of all callers are in `{settings.tokens_folder}`", err=True)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stopping = _stop_on_signals()
    app = build(settings)
    signal.signal(signal.SIGHUP, lambda _number, _frame: app.reload_callers())
    app.start()
    try:
        click.echo(f"listening on {app.address}")
        stopping.get()
        click.echo("stopping", err=True)
    finally:
        app.stop(_GRACE_SECONDS)


def _stop_on_signals() -> SimpleQueue[int]:
    """Return what the first SIGTERM or SIGINT is put into; the second one has its usual effect."""
    # A queue of this kind alone may be filled while the same thread waits for it: an event can lock itself up.
    stopping: SimpleQueue[int] = SimpleQueue()

    def stop(number: int, _frame: FrameType | None) -> None:
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, signal.SIG_DFL)
        stopping.put(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return stopping
