"""`pdp version`."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import click

from pdp import __version__
from pdp.cli.options import json_option
from pdp.cli.output import print_json


@click.command(epilog="Example:  pdp version --json")
@json_option
def version(*, as_json: bool) -> None:
    """Print the version."""
    parts = {"pdp": __version__}
    with suppress(PackageNotFoundError):  # it is part of the extra `server`
        parts["cedarpy"] = version_of("cedarpy")
    parts["python"] = platform.python_version()
    if as_json:
        print_json(parts)
    else:
        click.echo(" · ".join(f"{name} {number}" for name, number in parts.items()))
