"""Groups of commands, and their errors for unknown commands."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click

from pdp.foundation.nearest import hint

# The whole first sentence: the terminal wraps it.
_LINE = 200


class CommandEntry(NamedTuple):
    """The module of a command, and its description in one line."""

    module: str
    summary: str


class Group(click.Group):
    """A group that suggests a similar name for an unknown command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the requested command, or raise in our words."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = hint(args[0], self.list_commands(ctx)) or f"; `{ctx.command_path} --help` lists the commands"
            raise click.UsageError(f"no such command: `{args[0]}`{near}", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands, each with its whole first sentence."""
        rows, names = self.summaries(), self.list_commands(ctx)
        if names:
            with formatter.section("Commands"):
                formatter.write_dl([(name, rows[name]) for name in names])

    def summaries(self) -> dict[str, str]:
        """Return the first sentence of each command's help, by name."""
        return {name: command.get_short_help_str(_LINE) for name, command in self.commands.items()}


class CommandTable(Group):
    """A group with commands that are imported when they are used, by their names in their modules."""

    def __init__(self, *args: Any, entries: Mapping[str, CommandEntry], **extra: Any) -> None:  # noqa: ANN401 - click's own parameters
        super().__init__(*args, **extra)
        self._entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands: the table's, then the group's own."""
        return [*self._entries, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, or return None when there is none with this name."""
        if cmd_name not in self._entries:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(self._entries[cmd_name].module), cmd_name)
        return command

    def summaries(self) -> dict[str, str]:
        """Return the summaries of the table without importing its commands, and those of the group's own."""
        return {name: entry.summary for name, entry in self._entries.items()} | super().summaries()
