"""`pdp-broker init`."""

from __future__ import annotations

from pathlib import Path

import click

from pdp.broker.cli.opened import data_dir_option, json_option
from pdp.broker.opening import make_broker, opened_vault
from pdp.cli.output import print_json


@click.command(epilog="Example:  pdp-broker init --data-dir /var/lib/pdp-broker")
@data_dir_option
@json_option
def init(*, folder: Path, as_json: bool) -> None:
    """Make the folder of a broker: its store and its keys.

    Keys are kept in files, unless `provider.yaml` in the folder names another provider. What exists stays as it is.
    """
    written = make_broker(folder)
    with opened_vault(folder, lambda _: None) as vault:
        vault.check()
    if as_json:
        print_json({"written": [str(path) for path in written]})
        return
    for path in written:
        click.echo(f"wrote {path}")
    if not written:
        click.echo(f"nothing to do: `{folder}` is complete")
