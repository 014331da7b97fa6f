"""`pdp door`: the doors that are processes of their own, by what they speak."""

from __future__ import annotations

import click

from pdp.cli.doors.agentgateway import agentgateway
from pdp.cli.doors.authzen import authzen
from pdp.cli.doors.envoy import envoy
from pdp.cli.groups import Group


@click.group(cls=Group)
def door() -> None:
    """Answer gateways that ask by other protocols, such as AuthZEN."""


door.add_command(agentgateway)
door.add_command(authzen)
door.add_command(envoy)
