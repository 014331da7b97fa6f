"""`pdp-broker doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from pdp.broker.cli.opened import json_option
from pdp.broker.examination import examine
from pdp.cli.output import print_findings, progress


@click.command(epilog="Example:  pdp-broker doctor --settings broker.yaml")
@click.option("--settings", "file", metavar="FILE", default="broker.yaml", show_default=True, help="The settings.")
@json_option
@click.pass_context
def doctor(context: click.Context, *, file: str, as_json: bool) -> None:
    """Examine a broker: is everything that it needs present, sound and private?

    Looks at settings, rules, modes of files, store and key provider, versions of secrets against the record,
    connections that need their person, credentials that should have ended and roles of none, the record itself, the
    server with the broker's role, addresses, and what the system grants. Opens no secret. Exit code 1: there is a
    problem; what is only in doubt is a warning. Run it as the broker's user, while the broker runs or before.
    """
    with progress("examining the broker"):
        found = list(examine(Path(file)))
    context.exit(0 if print_findings(found, as_json=as_json) else 1)
