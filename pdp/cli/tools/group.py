"""`pdp tools`: the commands about the catalogue of a policy folder."""

from __future__ import annotations

import click

from pdp.cli.groups import Group
from pdp.cli.tools.diff import diff
from pdp.cli.tools.importing import import_tools
from pdp.cli.tools.listing import list_tools


@click.group(cls=Group)
def tools() -> None:
    """Import, list and compare the tools that policies are about."""


for command in (import_tools, list_tools, diff):
    tools.add_command(command)
