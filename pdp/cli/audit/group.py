"""`pdp audit`: questions about the record."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from pdp.cli.audit.export import export
from pdp.cli.audit.questions import executed_by, session, show, tail, touched, who_approved
from pdp.cli.audit.reconcile import reconcile_command
from pdp.cli.audit.revoke_plan import revoke_plan
from pdp.cli.groups import Group
from pdp.cli.output import print_json, progress
from pdp.record.anchors import Anchors
from pdp.record.keys import PublicKeys
from pdp.record.segments import Head
from pdp.record.verify import ChainReport, Report
from pdp.record.verify import verify as verify_record


@click.group(cls=Group)
def audit() -> None:
    """Query the record of decisions, and verify that it is intact."""


for command in (tail, show, session, who_approved, executed_by, touched, revoke_plan, reconcile_command, export):
    audit.add_command(command)


@audit.command(
    epilog="Example:  pdp audit verify .pdp/record --public-key .pdp/record-signing.pub.pem",
)
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--public-key",
    "public_keys",
    metavar="FILE",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="The public half of the key that signs the record; repeat the option for each earlier key.",
)
@click.option("--open-end", is_flag=True, help="Accept a chain that is not closed, as in a copy of a record in use.")
@click.option("--missing-start", is_flag=True, help="Accept that the oldest segments are missing.")
@click.option(
    "--known",
    metavar="PATH",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A file of what the record must still hold: earlier `--json` output, or a copy of `record-heads`.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(
    folder: Path,
    public_keys: tuple[Path, ...],
    *,
    open_end: bool,
    missing_start: bool,
    known: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Find what was changed, dropped, inserted, repeated or reordered in a record.

    Needs only the public key. Prints a line `file:line: what` for each finding. Exit code 0: the record is intact.
    1: it is not. 2: it cannot be verified.
    """
    heads = {path: Anchors(path).heads() if path.is_dir() else _heads(path) for path in known}
    keys = PublicKeys.load(public_keys)
    with progress(f"verifying {folder}"):
        report = verify_record(folder, keys, open_end=open_end, missing_start=missing_start, known=heads)
    if as_json:
        print_json(_as_json(report))
    else:
        _print(report)
    sys.exit(1 if report.findings else 0)


def _heads(file: Path) -> dict[str, Head]:
    try:
        chains = json.loads(file.read_bytes())["chains"]
        return {str(one["chain"]): Head(int(one["seq"]), str(one["hash"])) for one in chains}
    except (ValueError, TypeError, KeyError):
        raise click.UsageError(f"`{file}` is not output of `pdp audit verify --json`") from None


def _print(report: Report) -> None:
    for finding in report.findings:
        click.echo(str(finding))
    if report.more_findings:
        click.echo(f"and {report.more_findings} more")
    for chain in report.chains:
        click.echo(
            f"chain {chain.chain}: {chain.records} records in {chain.segments} segments, "
            f"up to record {chain.seq}, {_end(chain)}, {chain.hash}"
        )
    click.echo("the record is not intact" if report.findings else "the record is intact")


def _end(chain: ChainReport) -> str:
    if chain.closed:
        return "closed"
    return (
        "being written, " if chain.live else ""
    ) + f"{chain.unsigned} unsigned since {chain.signed_at or 'the start'}"


def _as_json(report: Report) -> dict[str, object]:
    return {
        "findings": [{"file": str(one.file), "line": one.line, "problem": one.problem} for one in report.findings],
        "more_findings": report.more_findings,
        "chains": [
            {
                "chain": one.chain,
                "segments": one.segments,
                "records": one.records,
                "seq": one.seq,
                "hash": one.hash,
                "unsigned": one.unsigned,
                "signed_at": one.signed_at,
                "closed": one.closed,
                "live": one.live,
            }
            for one in report.chains
        ],
    }
