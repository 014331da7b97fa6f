"""The command line: `pdp`. Exit codes: 0 for yes or done, 1 for no or problems found, 2 for a wrong use or an error."""

from __future__ import annotations

from pdp.cli.root import root


def main() -> None:
    """Run the command that the process was started with, and exit."""
    root(prog_name="pdp")
