"""`pdp init`, and the part of it that a first `pdp serve` does."""

from __future__ import annotations

from pathlib import Path

import click

from pdp.cli.options import json_option, with_settings
from pdp.clock import SystemClock
from pdp.config.settings import Settings
from pdp.errors import ConfigurationError
from pdp.foundation.ownership import require_own
from pdp.foundation.printable import visible_json
from pdp.identity.callers import read_callers
from pdp.identity.callersfile import digest_in, init_callers
from pdp.record.keys import write_keys
from pdp.serving.localtls import write_local_certificate


@click.command(epilog="Example:  pdp init --data-dir /var/lib/pdp")
@click.option(
    "--development",
    is_flag=True,
    help="Create callers for trying things out; a server that others can reach refuses them.",
)
@json_option
@with_settings("data_dir")
def init(*, settings: Settings, development: bool, as_json: bool) -> None:
    """Write a token for each role, the keys of the record, and a certificate.

    Files that already exist stay as they are.
    """
    written = prepare(settings, development=development)
    if as_json:
        # Not by `print_json`: Rich beside it, which `pdp serve` and its workers would load, draws tables.
        click.echo(visible_json({"written": [str(path) for path in written]}))
        return
    for path in written:
        click.echo(f"wrote {path}")
    if elsewhere := _callers_without_token(settings):
        names = ", ".join(f"`{one}`" for one in elsewhere)
        click.echo(f"`{settings.tokens_folder}` lacks the tokens of {names}: `pdp caller rotate ID` makes a new one")
    elif not written:
        click.echo(f"nothing to do: `{settings.data_dir}` is complete")


def _callers_without_token(settings: Settings) -> list[str]:
    """Return the callers without a token in the data folder: it is elsewhere, or lost."""
    if settings.callers.file:
        return []
    known = read_callers(settings.callers_file, development=True).by_token
    here = {digest_in(path) for path in settings.tokens_folder.glob("*.token")}
    return sorted({one.caller.id for digest, one in known.items() if digest.hex() not in here})


def prepare(settings: Settings, *, development: bool = False) -> tuple[Path, ...]:
    """Ensure that the data folder has callers, keys and a certificate.

    Return the files that were written. Overwrite only a certificate that expires soon.
    """
    folder = Path(settings.data_dir)
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"`data_dir` is not a folder: `{folder}`")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    require_own(folder, "anyone could put files of theirs there")
    written: list[Path] = []
    # A configured file of callers is not created here.
    if not settings.callers.file and not settings.callers_file.exists():
        written += [init_callers(folder, development=development), settings.tokens_folder]
    written += write_keys(folder)
    if settings.makes_certificate:
        written += write_local_certificate(folder, now=SystemClock().now().wall_at)
    return tuple(written)
