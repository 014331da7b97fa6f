"""`pdp serve`."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pdp.cli.operate.init import prepare
from pdp.cli.operate.logs import is_journal, log_to_stderr
from pdp.cli.operate.signals import STOPPING, receive_signals
from pdp.cli.options import SettingsCommand, with_settings
from pdp.cli.problems import problems_in
from pdp.cli.root import ERROR, error_lines
from pdp.config.reading import describe
from pdp.config.settings import LogSettings, Settings
from pdp.foundation.garbage import collect_later, keep_what_there_is
from pdp.foundation.isolation import keep_memory_private
from pdp.workers.cores import bound, how_many, usable_cores
from pdp.workers.telling import LEFT

if TYPE_CHECKING:
    from pdp.app.server import App

GRACE_SECONDS = 5.0
_LOG = logging.getLogger("pdp.serve")


@click.command(
    cls=SettingsCommand, epilog="Example:  pdp serve --policies-folder policies --server-address 127.0.0.1:0"
)
@with_settings(*(row.name for row in describe()))
def serve(*, settings: Settings) -> None:
    """Run the server.

    Starts one worker for each core, all on one port, and replaces workers that end. The first start writes tokens, keys
    and a certificate, as `pdp init` does. Logs go to stderr. SIGTERM and SIGINT let running calls finish;
    a second one ends everything at once. SIGHUP reads the callers again.
    """
    log_to_stderr(settings.log)
    with _errors_in_the_log(settings.log), problems_in_the_source(settings):
        _serve(settings)


def problems_in_the_source(settings: Settings) -> AbstractContextManager[None]:
    """Name the files in problems of a policy folder with that folder."""
    policies = settings.policies
    return nullcontext() if policies.file or policies.url else problems_in(Path(policies.folder))


@contextmanager
def _errors_in_the_log(log: LogSettings) -> Iterator[None]:
    """Write fatal errors to the server's log if programs read it.

    People get them like any other error.
    """
    try:
        yield
    except Exception as error:
        if log.format != "json" and not is_journal(sys.stderr, os.environ):
            raise
        trace = error if os.environ.get("PDP_DEBUG") == "1" else None
        for line in error_lines(error):
            _LOG.critical("%s", line, exc_info=trace)
        raise click.exceptions.Exit(ERROR) from None


def _serve(settings: Settings) -> None:
    # A start without settings on one's own machine is a trial; a start with a certificate is not.
    if settings.tokens_folder in prepare(settings, development=settings.only_this_machine):
        _LOG.info("first start: the tokens of all callers are in `%s`", settings.tokens_folder)
    received, _ = receive_signals()
    workers = how_many(settings, len(usable_cores()) or os.cpu_count() or 1, bound())
    if workers == 1:
        _serve_alone(settings, received)
    else:
        _serve_together(settings, workers, received)


def obey(app: App, received: int) -> None:
    """Serve until a signal says to stop, and then stop."""
    try:
        while (number := ord(os.read(received, 1))) not in STOPPING:
            if number == signal.SIGHUP:
                app.reload_callers()
    finally:
        app.stop(GRACE_SECONDS)


def _serve_alone(settings: Settings, received: int) -> None:
    collect_later()
    from pdp.app.server import App  # noqa: PLC0415 - a parent of workers has no use for the engine

    keep_memory_private()
    app = App(settings)
    keep_what_there_is()
    app.start()
    click.echo(f"listening on {app.address}")
    obey(app, received)


def _serve_together(settings: Settings, workers: int, received: int) -> None:
    from pdp.app.supervising import supervise  # noqa: PLC0415 - `pdp serve --help` has no use for it

    # A server that was killed can have left it: only what workers of this one have compiled is used.
    left = Path(settings.data_dir) / LEFT
    left.unlink(missing_ok=True)
    supervisor = supervise(settings, count=workers)
    if supervisor.start(until=received):
        click.echo(f"listening on {supervisor.address}")
    try:
        number = None
        while number not in STOPPING:
            if number == signal.SIGHUP:
                supervisor.reload_callers()
            supervisor.tend(until=received)
            number = ord(os.read(received, 1))
        _LOG.info("stopping")
    finally:
        supervisor.stop(GRACE_SECONDS)
        with suppress(OSError):
            left.unlink()
