"""Groups of commands, and how they refuse a command that they do not have."""

from __future__ import annotations

from difflib import get_close_matches

import click


class Group(click.Group):
    """A group that names, for a command that there is none of, one that is spelled like it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was asked for, or raise in our words."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise click.UsageError(f"no such command: `{args[0]}`{hint}", ctx) from error
