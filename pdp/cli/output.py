"""What people and scripts read: tables, plain columns, JSON, and files that are whole."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pdp.escaping import visible, visible_json

_LEAST_CHARACTERS = 6
_SHORT_CHARACTERS = 12
_BLANKS = re.compile(r" {2,}")
# What a reader must not overlook, wherever it is the whole of a cell. Rich leaves colours out for `NO_COLOR`.
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


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a server may watch it, or somebody may press Ctrl-C."""
    target = path.resolve()  # a link stays one
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        if target.exists():
            partial.chmod(target.stat().st_mode)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on a terminal, and elsewhere plain columns that are never wrapped or cut.

    The first column holds what people copy, so it stays on one line where the terminal has room for that.
    """
    console = Console()
    listed = [tuple(map(visible, row)) for row in rows]
    if not console.is_terminal:
        _print_columns([tuple(columns), *listed])
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    longest = max((len(row[0]) for row in listed), default=0)
    table.add_column(columns[0], no_wrap=longest + _LEAST_CHARACTERS * len(columns) <= console.width)
    for place, column in enumerate(columns[1:], start=1):
        # A column of short words is not broken to make room for a long one.
        table.add_column(column, no_wrap=max(map(len, (column, *(row[place] for row in listed)))) <= _SHORT_CHARACTERS)
    for row in listed:
        # No markup: cells are other people's words.
        table.add_row(*(Text(cell, overflow="fold", style=STYLES.get(cell, "")) for cell in row))
    console.print(table)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one a line; empty values are left out.

    On a terminal a long value goes on below its own beginning, so that no value draws a line that looks like a field.
    Runs of blanks, which could push words to where a line breaks, are one blank.
    """
    kept = [(name, _BLANKS.sub(" ", visible(value))) for name, value in fields if value]
    width = max((len(name) for name, _ in kept), default=0) + 2
    console = Console()
    for name, value in kept:
        lines = wrapped(value, console.width - width) if console.is_terminal else [value]
        click.echo(name.ljust(width) + f"\n{' ' * width}".join(lines))


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of at most `width` characters, broken at blanks where that is possible."""
    return textwrap.wrap(text, max(width, _LEAST_CHARACTERS), break_on_hyphens=False) or [""]


@contextmanager
def progress(doing: str) -> Iterator[None]:
    """Show on a terminal what goes on, with a moving mark; what is to be read by a script stays clean."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(visible(doing)):
        yield


def _print_columns(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
