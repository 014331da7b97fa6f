"""`pdp audit reconcile`: find call tokens that were used and never issued."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from pdp.audit.reconciling import Reconciliation, reconcile
from pdp.cli.moments import moment
from pdp.cli.options import json_option, with_settings
from pdp.cli.output import print_json, print_table, progress
from pdp.cli.root import NO, YES
from pdp.clock import utc_text
from pdp.config.settings import Settings
from pdp.foundation.printable import visible

_MOST = 1_000
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("reconcile", epilog="Example:  pdp audit reconcile broker/record --record .pdp/record --since 7d")
@click.argument("brokers", metavar="BROKER_RECORD...", nargs=-1, required=True, type=_FOLDER)
@click.option("--record", type=_FOLDER, metavar="DIR", help="The folder of the server's record. [record.folder]")
@click.option(
    "--since", "since_at", type=moment, metavar="TIME", help="Only from this time on: a time in UTC, or `2h` ago."
)
@json_option
@with_settings("data_dir")
def reconcile_command(
    *, settings: Settings, brokers: tuple[Path, ...], record: Path | None, since_at: float | None, as_json: bool
) -> None:
    """Find call tokens that were used and never issued.

    Compares the records of brokers with the server's. A token that a broker accepted and the server never issued was
    signed with a stolen key. Verify the records first, with `pdp audit verify`. Exit code 1: there is one, or one that
    was issued for another call, or used more than once.
    """
    server = record or settings.record_folder
    since = "" if since_at is None else utc_text(since_at)
    with progress("comparing the records"):
        found = reconcile(server, brokers, since=since, most=_MOST)
    if as_json:
        print_json(_plain(found))
    else:
        _print(found)
    raise click.exceptions.Exit(NO if found.unmatched else YES)


def _print(found: Reconciliation) -> None:
    if found.unmatched:
        columns = ("token", "problem", "time", "session", "user", "agent", "tool", "connection", "presenter")
        rows = [
            (
                one.use.token_id,
                one.problem,
                one.use.time,
                one.use.session_id,
                one.use.user,
                one.use.agent,
                one.use.action,
                f"{one.use.connection}@{one.use.version}",
                one.use.presenter,
            )
            for one in found.unmatched
        ]
        print_table(columns, rows)
        if found.more:
            click.echo(f"and {found.more} more")
        click.echo()
        if found.unmatched[0].use.time < found.begins:
            begins = visible(found.begins)
            click.echo(f"the record of the server begins at {begins}, so no use before that fits: see `--since`")
    for one in found.issued:
        click.echo(f"{visible(one.audience)}: {one.issued} issued, {one.never_used} of these never used")
    click.echo(f"{len(found.unmatched) + found.more} of {found.uses} uses do not fit to an issue")


def _plain(found: Reconciliation) -> dict[str, object]:
    return {
        "unmatched": [{"problem": one.problem, **asdict(one.use)} for one in found.unmatched],
        "more_unmatched": found.more,
        "uses": found.uses,
        "issued": [asdict(one) for one in found.issued],
        "record_begin_time": found.begins,
    }
