"""`pdp signals fingerprint`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from pdp.cli.options import json_option
from pdp.cli.output import print_json
from pdp.cli.signals.options import settings_option
from pdp.errors import PDPError
from pdp.signals.leaks import fingerprint_key, fingerprint_of
from pdp.signals.settings import read_settings

_MOST_BYTES: Final = 64 * 1024


@click.command(epilog="Example:  pdp signals fingerprint < token")
@settings_option
@json_option
def fingerprint(*, file: str, as_json: bool) -> None:
    """Print the fingerprint of a secret, for `leaks` in the settings, so that a report about it is recognized.

    The secret comes from standard input, and is written nowhere. One line break at its end is not part of it.
    """
    settings = read_settings(Path(file))
    if sys.stdin.isatty():
        content = str(click.prompt("secret", hide_input=True, err=True)).encode()
    else:
        content = sys.stdin.buffer.read(_MOST_BYTES + 1)
    secret = content.removesuffix(b"\n").removesuffix(b"\r")
    if not secret or len(content) > _MOST_BYTES:
        raise PDPError(f"the secret must have 1 to {_MOST_BYTES} bytes")
    found = fingerprint_of(secret.decode("utf-8", "surrogateescape"), fingerprint_key(settings.data_dir))
    if as_json:
        print_json({"fingerprint": found})
    else:
        click.echo(found)
