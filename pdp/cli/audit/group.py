"""`pdp audit`: questions about the record."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from pdp.audit.notedcheck import NOTHING, Noted, compared
from pdp.cli.audit.export import export
from pdp.cli.audit.questions import executed_by, session, show, tail, touched, who_approved
from pdp.cli.audit.reconcile import reconcile_command
from pdp.cli.audit.revoke_plan import revoke_plan
from pdp.cli.groups import Group
from pdp.cli.output import print_json, progress
from pdp.foundation.counting import counted
from pdp.foundation.printable import visible
from pdp.record.anchors import Anchors
from pdp.record.keys import PublicKeys
from pdp.record.segments import Head, head_written, segments_by_chain
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
    help="The public half of the key that signs the record, or several in a file; repeat the option for earlier keys.",
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
@click.option(
    "--known-postgres",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with a connection string of PostgreSQL: what the servers have noted there, the record must still hold.",
)
@click.option(
    "--replica",
    "replicas",
    metavar="NAME",
    multiple=True,
    help="With --known-postgres: DIR has only the record of this machine; repeat it for others.",
)
@click.option(
    "--broker",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The record of a broker, to verify it too.",
)
@click.option(
    "--broker-public-key",
    "broker_keys",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="The public half of the key that signs the broker's record; repeat it for earlier keys.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(
    folder: Path,
    public_keys: tuple[Path, ...],
    *,
    broker: Path | None,
    broker_keys: tuple[Path, ...],
    open_end: bool,
    missing_start: bool,
    known: tuple[Path, ...],
    known_postgres: Path | None,
    replicas: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find what was changed, dropped, inserted, repeated or reordered in a record, or in those of server and broker.

    Needs only the public key. Prints a line `file:line: what` for each finding. Exit code 0: the record is intact.
    1: it is not. 2: it cannot be verified.
    """
    if (broker is None) != (not broker_keys):
        raise click.UsageError("--broker and --broker-public-key need each other")
    if replicas and known_postgres is None:
        raise click.UsageError("--replica needs --known-postgres")
    server_keys = PublicKeys.load(public_keys)
    noted = _noted(known_postgres, folder, server_keys, replicas) if known_postgres else NOTHING
    heads: Mapping[Path, Mapping[str, Head]] = {
        **{path: Anchors(path).heads() if path.is_dir() else _heads(path) for path in known},
        **noted.known,
    }
    # Each record by its own keys: the broker must not be able to sign for the server.
    records = [(folder, server_keys, _without(heads, broker))]
    if broker is not None:
        records.append((broker, PublicKeys.load(broker_keys), _within(heads, broker)))
    reports = []
    for one, keys, named in records:
        with progress(f"verifying {one}"):
            reports.append(verify_record(one, keys, open_end=open_end, missing_start=missing_start, known=named))
    report = Report(
        chains=tuple(chain for one in reports for chain in one.chains),
        findings=(*(finding for one in reports for finding in one.findings), *noted.findings),
        more_findings=sum(one.more_findings for one in reports),
    )
    if as_json:
        print_json(_as_json(report))
    else:
        _print(report, "record" if broker is None else "records")
    sys.exit(1 if report.findings else 0)


def _noted(file: Path, folder: Path, keys: PublicKeys, replicas: tuple[str, ...]) -> Noted:
    from pdp.sessions.postgresheads import noted_in  # noqa: PLC0415 - an extra brings its driver
    from pdp.starting import conninfo_in  # noqa: PLC0415 - other commands of this group have no need of it

    conninfo = conninfo_in(file)
    return compared(folder, lambda: noted_in(conninfo), keys, replicas=frozenset(replicas))


def _without(heads: Mapping[Path, Mapping[str, Head]], folder: Path | None) -> Mapping[Path, Mapping[str, Head]]:
    """Return what is known of all chains but those in a folder."""
    others = segments_by_chain(folder) if folder else {}
    return {file: {chain: one[chain] for chain in one.keys() - others.keys()} for file, one in heads.items()}


def _within(heads: Mapping[Path, Mapping[str, Head]], folder: Path) -> Mapping[Path, Mapping[str, Head]]:
    """Return what is known of the chains in a folder."""
    own = segments_by_chain(folder)
    return {file: {chain: one[chain] for chain in one.keys() & own.keys()} for file, one in heads.items()}


def _heads(file: Path) -> dict[str, Head]:
    try:
        chains = json.loads(file.read_bytes())["chains"]
        heads = {str(one["chain"]): head_written(f"{one['seq']}:{one['hash']}") for one in chains}
    except (ValueError, TypeError, KeyError, RecursionError):
        heads = {"": None}
    known = {chain: head for chain, head in heads.items() if head is not None}
    if len(known) < len(heads):
        raise click.UsageError(f"`{file}` is not output of `pdp audit verify --json`")
    return known


def _print(report: Report, what: str) -> None:
    for finding in report.findings:
        # The record's own words: whoever changed it wants a reader to see that it is intact.
        click.echo(visible(str(finding)))
    if report.more_findings:
        click.echo(f"and {report.more_findings} more")
    for chain in report.chains:
        click.echo(
            f"chain {chain.chain}: {counted(chain.records, 'record')} in {counted(chain.segments, 'segment')}, "
            f"up to record {chain.seq}, {end_text(chain)}, {chain.hash}"
        )
    verb = "is" if what == "record" else "are"
    click.echo(f"the {what} {verb} {'not ' if report.findings else ''}intact")


def end_text(chain: ChainReport) -> str:
    """Say how a chain ends."""
    if chain.closed:
        return "closed"
    since = chain.signed_at or "the start"
    signed = f"{chain.unsigned} unsigned since {since}" if chain.unsigned else f"all signed at {since}"
    return f"being written, {signed}" if chain.live else signed


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
