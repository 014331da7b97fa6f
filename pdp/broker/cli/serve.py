"""`pdp-broker serve`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from pathlib import Path

import click

from pdp.broker.counter import opened_counter
from pdp.broker.opening import opened_checkouts, opened_people, opened_record, opened_vault
from pdp.broker.serving import assembled, serve_until
from pdp.broker.settings import read_settings
from pdp.foundation.isolation import keep_secrets_here
from pdp.telemetry.programs import observing

_LOG = logging.getLogger("pdp.broker")


@click.command(epilog="Example:  pdp-broker serve --settings broker.yaml")
@click.option("--settings", "file", metavar="FILE", default="broker.yaml", show_default=True, help="The settings.")
def serve(*, file: str) -> None:
    """Use secrets for calls that were allowed.

    It runs until SIGTERM or SIGINT. No core file is written, and other processes of this user cannot read its memory;
    what the system does not grant of this is a warning in the log, which goes to stderr.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(in_utc())
    logging.basicConfig(level="INFO", handlers=[handler])
    # It tells of each start and end besides.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # Before anything secret is read.
    for problem in keep_secrets_here():
        _LOG.warning("%s", problem)
    settings = read_settings(Path(file))
    with (
        opened_record(settings.data_dir) as record,
        opened_vault(settings.data_dir, record.event) as vault,
        opened_people(settings.data_dir, vault, record.event) as people,
        opened_checkouts(settings.data_dir) as checkouts,
        assembled(settings, vault, checkouts, record, people=people) as parts,
        opened_counter(settings, vault, people, record, checkouts=checkouts, sweeper=parts.sweeper) as counter,
        observing("pdp-broker", settings.telemetry) as observer,
    ):

        async def run() -> None:
            stopped, loop = asyncio.Event(), asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopped.set)
            await serve_until(stopped, settings, parts, observer=observer, listening=_say, counter=counter)

        asyncio.run(run())


def in_utc() -> logging.Formatter:
    """Return the form of a line of the log, as the server writes it: `2026-01-05T10:00:00.123Z INFO pdp.broker: …`."""
    form = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    return form


def _say(address: str) -> None:
    click.echo(f"listening for {address}")
