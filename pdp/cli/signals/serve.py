"""`pdp signals serve`."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click

from pdp.cli.operate.logs import log_to_stderr
from pdp.cli.signals.options import settings_option
from pdp.config.settings import LogSettings
from pdp.foundation.isolation import keep_memory_private
from pdp.signals.serving import assembled, opened_record, serve_until
from pdp.signals.settings import read_settings
from pdp.telemetry.programs import observing


@click.command(epilog="Example:  pdp signals serve --settings signals.yaml")
@settings_option
def serve(*, file: str) -> None:
    """Take signals at `/signals/TRANSMITTER`, and revoke whom they name.

    A process of its own, which asks the server as a caller with the role `revoker`. It runs until SIGTERM or SIGINT;
    `GET /health` says whether what came is carried out. Logs go to stderr.
    """
    log_to_stderr(LogSettings(level="warning"))
    keep_memory_private()
    settings = read_settings(Path(file))
    with (
        opened_record(settings.data_dir) as record,
        observing("pdp-signals", settings.telemetry) as observer,
        assembled(settings, record.event, observer=observer) as parts,
    ):

        async def run() -> None:
            stopped, loop = asyncio.Event(), asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopped.set)
            await serve_until(stopped, settings, parts.receiver, listening=_say)

        asyncio.run(run())


def _say(url: str) -> None:
    click.echo(f"listening for signals at {url}")
