"""`pdp signals doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from pdp.cli.options import json_option
from pdp.cli.output import print_findings, progress
from pdp.cli.root import NO, YES
from pdp.cli.signals.options import settings_option
from pdp.signals.examination import examine


@click.command(epilog="Example:  pdp signals doctor --settings signals.yaml")
@settings_option
@json_option
@click.pass_context
def doctor(context: click.Context, *, file: str, as_json: bool) -> None:
    """Examine a receiver of signals: is everything that it needs present, sound and private?

    Looks at settings, address, record, the server with the role of the receiver, the keys of each transmitter, and
    signals that wait. Revokes nothing. Exit code 1: there is a problem. Run it as the receiver's user.
    """
    with progress("examining the receiver of signals"):
        found = list(examine(Path(file)))
    context.exit(YES if print_findings(found, as_json=as_json) else NO)
