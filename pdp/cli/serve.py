"""`pdp serve`."""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType

import click

from pdp.app import build
from pdp.cli.init import prepare
from pdp.cli.options import with_settings
from pdp.config import Settings, describe

_GRACE_SECONDS = 5.0
_STOPPING = (signal.SIGTERM, signal.SIGINT)


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
    received = _receive_signals()
    app = build(settings)
    app.start()
    try:
        click.echo(f"listening on {app.address}")
        while (number := ord(os.read(received, 1))) not in _STOPPING:
            if number == signal.SIGHUP:
                app.reload_callers()
        click.echo("stopping", err=True)
    finally:
        app.stop(_GRACE_SECONDS)


def _receive_signals() -> int:
    """Return a descriptor to read the numbers of signals from; a second SIGTERM or SIGINT has its usual effect.

    Who waits on a lock or an event can miss a signal: when it comes just before the waiting begins, or to another
    thread. What is in a pipe is not missed.
    """
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender)

    def leave_next_to_the_system(_number: int, _frame: FrameType | None) -> None:
        for number in _STOPPING:
            signal.signal(number, signal.SIG_DFL)

    for number in _STOPPING:
        signal.signal(number, leave_next_to_the_system)
    signal.signal(signal.SIGHUP, lambda _number, _frame: None)
    return receiver
