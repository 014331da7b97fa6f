"""The output for people and scripts: tables, plain columns, JSON, and complete files."""

from __future__ import annotations

import errno
import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pdp.clock import utc_text
from pdp.foundation import files
from pdp.foundation.findings import Finding
from pdp.foundation.printable import visible, visible_json

_LEAST_CHARACTERS = 6
_SHORT_CHARACTERS = 12
# Between two columns of a table.
_GAP = 3
# Of a time in ISO 8601, without fractions.
_SECONDS = 19
_BLANKS = re.compile(r" {2,}")
# Cells that a reader must not overlook, when they hold nothing else. Rich leaves colours out for `NO_COLOR`.
STYLES: Mapping[str, str] = {
    "destructive": "bold red",
    "mutating": "yellow",
    "deny": "bold red",
    "allow": "green",
    "never": "dim",
    "revoked": "red",
    "requested": "yellow",
    "failed": "bold red",
    "warning": "yellow",
    "error": "bold red",
}


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print a value as indented JSON."""
    click.echo(visible_json(value))


def print_findings(found: Sequence[Finding], *, as_json: bool) -> bool:
    """Print what an examination found; say whether there is no problem."""
    if as_json:
        print_json({"findings": [asdict(one) for one in found]})
    else:
        print_table(("level", "check", "found"), [(one.level, one.check, one.found) for one in found])
    return not any(one.level == "problem" for one in found)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    A server can watch it, and Ctrl-C can interrupt the writing.
    """
    target = path.resolve()  # a link stays a link
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with files.replacing(target, mode=files.USUAL) as file:
        if target.exists():
            os.fchmod(file.fileno(), target.stat().st_mode)
        file.write(content)


@contextmanager
def new_file(path: str) -> Iterator[IO[bytes]]:
    """Open a new file of mode 0600, and remove it when its writing fails."""
    with ExitStack() as opened:
        try:
            file = opened.enter_context(files.new_file(Path(path)))
        except FileExistsError:
            raise click.ClickException(f"`{path}` already exists; remove it, or name a new file") from None
        yield file


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on a terminal, and elsewhere plain columns that are never wrapped or cut."""
    console = Console()
    listed = [tuple(map(visible, row)) for row in rows]
    if console.is_terminal:
        console.print(table(columns, listed, width=console.width))
    else:
        _print_columns([tuple(columns), *listed])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, width: int) -> RenderableType:
    """Return a table for a terminal of `width` characters; make the cells `visible`.

    The cells are printed unchanged. The first column holds values that people copy, so it stays on one line if the
    terminal has room for that, and a column of short words is not broken to make room for a long one. When there is not
    even room for the words, each row is a paragraph.
    """
    cells = [[columns[index], *(row[index] for row in rows)] for index in range(len(columns))]
    if sum(map(_narrowest, cells)) + _GAP * (len(columns) - 1) > width:
        return Group(*(_paragraph(columns, row) for row in rows))
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    longest = max(map(len, cells[0][1:]), default=0)
    drawn.add_column(columns[0], no_wrap=longest + _LEAST_CHARACTERS * len(columns) <= width)
    for column, column_cells in zip(columns[1:], cells[1:], strict=True):
        drawn.add_column(column, no_wrap=max(map(len, column_cells)) <= _SHORT_CHARACTERS)
    for row in rows:
        # No markup: other people write the cells.
        drawn.add_row(*(Text(cell, overflow="fold", style=STYLES.get(cell, "")) for cell in row))
    return drawn


def _narrowest(cells: Sequence[str]) -> int:
    """Return a column's least width: its words fit, except those longer than most."""
    longest = max(map(len, cells))
    if longest <= _SHORT_CHARACTERS:
        return longest
    return min(max((len(word) for cell in cells for word in cell.split()), default=0), 2 * _SHORT_CHARACTERS)


def _paragraph(columns: Sequence[str], row: Sequence[str]) -> RenderableType:
    named = [(column, cell) for column, cell in zip(columns[1:], row[1:], strict=True) if cell]
    rest = Text("  ").join(
        Text.assemble((f"{column} " if column else "", "dim"), (cell, STYLES.get(cell, ""))) for column, cell in named
    )
    return Group(Text(row[0], style="bold"), Padding(rest, (0, 0, 0, 2)))


def paragraphs(text: str, width: int) -> list[str]:
    """Return the lines of a text: visible, with single blanks, wrapped at a width."""
    return [line for part in text.splitlines() if part.strip() for line in wrapped(_one_line(part), width)]


def _one_line(text: str) -> str:
    # A tab becomes a blank; other unprintable characters are escaped.
    return _BLANKS.sub(" ", visible(text.replace("\t", " "))).strip()


def moment_text(at: float) -> str:
    """Return unix seconds in ISO 8601, to the second; empty for 0.0, which is no time."""
    return utc_text(at)[:_SECONDS] + "Z" if at else ""


class Timed(Protocol):
    """A message of the API with fields that hold times."""

    def HasField(self, field_name: Any, /) -> bool:  # noqa: ANN401, N802 - as the messages have it
        """Say whether a field is set."""
        ...


def time_text(message: Timed, field: str) -> str:
    """Return a time in a message in ISO 8601, to the second; empty if there is none."""
    if not message.HasField(field):
        return ""
    moment: datetime = getattr(message, field).ToDatetime(tzinfo=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one a line; empty values are left out.

    On a terminal a long value continues below its own beginning, so that no value draws a line that looks like a field.
    Runs of blanks, which could push words to where a line breaks, are one blank.
    """
    kept = [(visible(name), value) for name, value in fields if value]
    width = max((len(name) for name, _ in kept), default=0) + 2
    console = Console()
    for name, value in kept:
        lines = paragraphs(value, console.width - width) if console.is_terminal else [_BLANKS.sub(" ", visible(value))]
        click.echo(name.ljust(width) + f"\n{' ' * width}".join(lines))


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of at most `width` characters, broken at blanks where that is possible."""
    return textwrap.wrap(text, max(width, _LEAST_CHARACTERS), break_on_hyphens=False) or [""]


@contextmanager
def progress(doing: str) -> Iterator[None]:
    """Show progress on a terminal, with a moving mark; scripts see no output."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(visible(doing)):
        yield


def _print_columns(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
