"""The options that the commands `pdp signals` share."""

from __future__ import annotations

import click

settings_option = click.option(
    "--settings", "file", metavar="FILE", default="signals.yaml", show_default=True, help="The settings."
)
