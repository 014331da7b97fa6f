"""The command line of the broker: `pdp-broker`, with the exit codes of `pdp`."""

from __future__ import annotations

from pdp.broker.cli.root import root


def main() -> None:
    """Run the command that the process was started with, and exit."""
    root(prog_name="pdp-broker")
