"""`pdp init`, and what a first `pdp serve` does of it."""

from __future__ import annotations

from pathlib import Path

import click

from pdp.cli.options import with_settings
from pdp.config import Settings
from pdp.errors import ConfigurationError
from pdp.record.keys import write_keys
from pdp.server.callersfile import init_callers


@click.command(epilog="Example:  pdp init --data-dir /var/lib/pdp")
@click.option("--development", is_flag=True, help="Callers to try things out with: a server with TLS refuses them.")
@with_settings("data_dir")
def init(*, settings: Settings, development: bool) -> None:
    """Write a token for each role, and the keys of the decision log.

    What is there already stays as it is.
    """
    written = prepare(settings, development=development)
    for path in written:
        click.echo(f"wrote {path}")
    if not written:
        click.echo(f"nothing to do: `{settings.data_dir}` is complete")


def prepare(settings: Settings, *, development: bool = False) -> tuple[Path, ...]:
    """Make sure that the data folder holds callers and the keys, and return what was written. Overwrites nothing."""
    folder = Path(settings.data_dir)
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"`data_dir` must be a folder, and `{folder}` is none")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    written: list[Path] = []
    # Callers that somebody else writes down are not made up here.
    if not settings.callers.file and not settings.callers_file.exists():
        written += [init_callers(folder, development=development), settings.tokens_folder]
    return (*written, *write_keys(folder))
