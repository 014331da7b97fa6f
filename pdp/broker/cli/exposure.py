"""`pdp-broker exposure`: who used a secret, for the day on which it may have leaked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from pdp.broker.cli.opened import data_dir_option, json_option
from pdp.broker.exposure import Exposure, Question, Tally, Uses, exposure_of
from pdp.broker.opening import RECORD_FOLDER
from pdp.broker.words import NAME
from pdp.cli.moments import moment
from pdp.cli.output import print_fields, print_json, print_table, progress
from pdp.foundation.counting import counted
from pdp.foundation.printable import visible
from pdp.record.keys import PUBLIC_KEY_FILE, PublicKeys
from pdp.record.secretuses import never_named
from pdp.record.verify import Report

_MOST: Final = 1_000
_MOST_ALLOWED: Final = 1_000_000
_FINDINGS_SHOWN: Final = 10
_VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")


def _named(_: click.Context, parameter: click.Parameter, value: str) -> tuple[str, int]:
    connection, at, version = value.partition("@")
    if not NAME.fullmatch(connection) or (at and not _VERSION.fullmatch(version)):
        raise click.BadParameter(f"`{value}` is not a connection, or one version such as `github@2`", param=parameter)
    return connection, int(version or 0)


@click.command(epilog="Example:  pdp-broker exposure github@2 --since 7d")
@click.argument("named", metavar="CONNECTION[@VERSION]", callback=_named)
@click.option(
    "--since",
    "since_at",
    type=moment,
    metavar="TIME",
    default=None,
    help="Only from this time on: a time in UTC, or `2h` for two hours ago. Without it, from the beginning.",
)
@click.option(
    "--most",
    type=click.IntRange(1, _MOST_ALLOWED),
    default=_MOST,
    show_default=True,
    metavar="N",
    help="The longest a list gets. What is beyond is counted.",
)
@click.option(
    "--record",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="The record of a broker, such as a copy. [record in the folder of the broker]",
)
@click.option(
    "--public-key",
    "public_keys",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="The public half of the key that signs the record; repeat it for earlier keys. [the one in that folder]",
)
@click.option("--open-end", is_flag=True, help="Accept a chain that is not closed, as in a copy of a record in use.")
@data_dir_option
@json_option
@click.pass_context
def exposure(
    context: click.Context,
    *,
    named: tuple[str, int],
    since_at: float | None,
    most: int,
    record: Path | None,
    public_keys: tuple[Path, ...],
    open_end: bool,
    folder: Path,
    as_json: bool,
) -> None:
    """Say which calls, sessions and people used a secret.

    The answer comes from the record of the broker, which is verified first; no secret is opened. Exit code 0: this is
    all. 1: the record is not intact, or does not reach back to that time, so there may have been more. 2: there is no
    answer, as for a connection or a version that the record never names.
    """
    record = record or folder / RECORD_FOLDER
    keys = PublicKeys.load(public_keys or (folder / PUBLIC_KEY_FILE,))
    connection, version = named
    asked = Question(connection=connection, version=version, since_at=since_at or 0.0, most_names=most, most_calls=most)
    with progress(f"reading {record}"):
        found, report = exposure_of(record, keys, asked, open_end=open_end)
    if not found.known:
        raise never_named(record, connection, version)
    if as_json:
        print_json(_plain(asked, found, report))
    else:
        _print(asked, found, report)
    context.exit(1 if report.findings or found.gap else 0)


def _print(asked: Question, found: Exposure, report: Report) -> None:
    uses, modes = found.uses, found.about["modes"].by_value
    print_fields(
        (
            ("connection", asked.connection),
            ("version", str(asked.version or "all")),
            ("since", asked.since or "the beginning"),
            ("uses", str(uses.count)),
            ("modes", ", ".join(f"{mode} {one.count}" for mode, one in modes.items())),
            ("first", uses.first),
            ("last", uses.last),
            ("answers", f"{found.answers}, {counted(found.answer_bytes, 'byte')} handed on"),
        )
    )
    if uses.count:
        click.echo()
        print_table(("what", "which", "uses", "first", "last"), list(_rows(found)))
        click.echo()
        print_table(
            ("decision", "token", "session", "tool", "mode", "version", "time"),
            [
                (one.decision_id, one.token_id, one.session_id, one.action, one.mode, str(one.version), one.time)
                for one in found.calls
            ],
        )
        if found.calls_before:
            click.echo(f"and {counted(found.calls_before, 'use')} before these: see `--most`")
        click.echo()
    for finding in report.findings[:_FINDINGS_SHOWN]:
        click.echo(visible(f"not intact: {finding}"))
    if (more := len(report.findings) - _FINDINGS_SHOWN + report.more_findings) > 0:
        click.echo(f"and {more} more: see `pdp audit verify`")
    if found.gap:
        click.echo(f"the record does not reach back so far: {found.gap}")
    click.echo("there may have been more uses" if report.findings or found.gap else "the record is intact: this is all")


def _rows(found: Exposure) -> Iterator[tuple[str, str, str, str, str]]:
    for name, tally in found.about.items():
        what = name.removesuffix("s")
        for value, uses in tally.by_value.items():
            yield what, value, str(uses.count), uses.first, uses.last
        if tally.others.count:
            yield what, "(others)", str(tally.others.count), tally.others.first, tally.others.last


def _plain(asked: Question, found: Exposure, report: Report) -> dict[str, object]:
    return {
        "connection": asked.connection,
        "version": asked.version or None,
        "since": asked.since,
        **_plain_uses(found.uses),
        **{name: _plain_tally(tally) for name, tally in found.about.items()},
        "answers": found.answers,
        "answer_bytes": found.answer_bytes,
        "calls": [asdict(one) for one in found.calls],
        "calls_left_out": found.calls_before,
        "intact": not report.findings,
        "findings": [str(one) for one in report.findings],
        "more_findings": report.more_findings,
        "gap": found.gap,
    }


def _plain_tally(tally: Tally) -> dict[str, object]:
    named = [{"name": value, **_plain_uses(uses)} for value, uses in tally.by_value.items()]
    return {"named": named, "others": _plain_uses(tally.others)}


def _plain_uses(uses: Uses) -> dict[str, object]:
    return {"uses": uses.count, "first_time": uses.first, "last_time": uses.last}
