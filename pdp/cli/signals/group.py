"""The table of the commands `pdp signals`."""

from __future__ import annotations

import click

from pdp.cli.groups import Group
from pdp.cli.signals.answering import apply, dismiss, list_
from pdp.cli.signals.doctor import doctor
from pdp.cli.signals.fingerprint import fingerprint
from pdp.cli.signals.serve import serve


@click.group(cls=Group)
def signals() -> None:
    """Take signals that authority must end, such as of a closed account, and revoke what they name."""


for _command in (serve, list_, apply, dismiss, fingerprint, doctor):
    signals.add_command(_command)
