"""`pdp audit export`: records for other tools."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import click

from pdp.audit.export import WRITERS
from pdp.audit.values import Filter, Window
from pdp.cli.audit.source import Source, with_source
from pdp.cli.output import new_file
from pdp.cli.window import argument_option, window_options
from pdp.cli.window import who as read_who
from pdp.foundation.counting import counted


@click.command(epilog="Example:  pdp audit export --format parquet --output calls.parquet agent:coder --since 24h")
@click.argument("who", nargs=-1, callback=read_who)
@click.option("--format", "kind", type=click.Choice(list(WRITERS)), default="jsonl", show_default=True)
@click.option("--outcome", type=click.Choice(["allow", "deny"]), help="Only decisions with this outcome.")
@click.option("-o", "--output", metavar="FILE", help="Write to this new file instead of stdout.")
@argument_option
@window_options
@with_source
def export(
    *,
    source: Source,
    who: dict[str, str],
    kind: str,
    outcome: str | None,
    output: str | None,
    arguments: tuple[tuple[str, str], ...],
    window: Window,
) -> None:
    """Export records for other tools, oldest first: as JSON lines, CSV or Parquet.

    WHO is `agent:ID`, `user:ID`, `pep:ID`, `session:ID`, `tool:SERVER/TOOL`, `server:ID`, `resource:ID` or
    `basis:BASIS`; a record must match all of them. In CSV, an apostrophe precedes a text that a spreadsheet would run
    as a formula. Parquet needs the extra `agent-pdp[parquet]`.
    """
    if kind == "parquet" and output is None:
        raise click.UsageError("--format parquet needs --output FILE")
    records = source.records(Filter(outcome=outcome or "", arguments=arguments, window=window, **who))  # type: ignore[arg-type]  # by name
    with _output(output) as out:
        count = WRITERS[kind](records, out)
    click.echo(f"wrote {counted(count, 'record')}", err=True)


@contextmanager
def _output(path: str | None) -> Iterator[IO[bytes]]:
    """Open a new file, or stdout."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with new_file(path) as file:
        yield file
