"""What people and scripts read: tables, plain columns, JSON, and files that are whole."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pdp.escaping import visible, visible_json

_LEAST_CHARACTERS = 6


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
    for column in columns[1:]:
        table.add_column(column)
    for row in listed:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))  # no markup: cells are other people's words
    console.print(table)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one a line; empty values are left out."""
    kept = [(name, visible(value)) for name, value in fields if value]
    width = max((len(name) for name, _ in kept), default=0)
    for name, value in kept:
        click.echo(f"{name.ljust(width)}  {value}")


def _print_columns(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
