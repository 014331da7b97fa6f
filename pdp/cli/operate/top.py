"""`pdp top`: the current activity, from the decision log."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live

from pdp.audit.activity import ActivityWindow
from pdp.audit.follow import Follower
from pdp.audit.segments import segments_of
from pdp.cli.keypress import keys
from pdp.cli.moments import duration
from pdp.cli.operate.topview import shown
from pdp.cli.options import json_option, with_settings
from pdp.cli.output import print_json
from pdp.config.settings import Settings

# The window starts with these; the rest is read while it is watched.
_FIRST_RECORDS = 100_000


@click.command(epilog="Example:  pdp top --window 5m      pdp top --once --json")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(exists=True, file_okay=False))
@click.option("--window", type=duration, default="60s", show_default=True, help="The time that is shown, up to now.")
@click.option("--interval", type=duration, default="1s", show_default=True, help="The time between two updates.")
@click.option(
    "--most",
    type=click.IntRange(1, 100),
    default=10,
    show_default=True,
    help="The number of tools and sessions to list.",
)
@click.option("--once", is_flag=True, help="Print the current activity and exit, as without a terminal.")
@json_option
@with_settings("record.folder")
def top(
    *, settings: Settings, folder: str | None, window: float, interval: float, most: int, once: bool, as_json: bool
) -> None:
    """Watch decisions as they are made.

    Shows decisions per second, outcomes and their bases, the cache's hit rate, the slowest tools, and the sessions
    whose calls are denied; a freeze shows by the calls that it denied. Reads the decision log in DIR, by default the
    one of the settings, and asks no server.
    Press `q` to quit.
    """
    record_folder = Path(folder) if folder else settings.record_folder
    if not segments_of(record_folder):
        raise click.UsageError(f"there is no record in `{record_folder}`; name its folder: pdp top DIR")
    follower = Follower(record_folder)
    seen = ActivityWindow(window)
    seen.add(follower.start()[-_FIRST_RECORDS:])
    console = Console()
    if as_json:
        print_json(asdict(seen.activity(time.time(), most=most)))
    elif once or not console.is_terminal:
        # Only a terminal has a width; elsewhere each line stays whole.
        view = shown(seen.activity(time.time(), most=most), width=console.width)
        console.print(view, soft_wrap=not console.is_terminal)
    else:
        _watch(console, follower, seen, interval, most)


def _watch(console: Console, follower: Follower, seen: ActivityWindow, interval: float, most: int) -> None:
    def view() -> Group:
        return shown(seen.activity(time.time(), most=most), width=console.width)

    with (
        keys() as pressed,
        Live(view(), console=console, screen=True, auto_refresh=False) as live,
        suppress(KeyboardInterrupt),
    ):
        while pressed(interval) not in ("q", "Q"):
            seen.add(follower.poll())
            live.update(view(), refresh=True)
