"""The command line: `pdp`. Exit codes: 0 for yes or done, 1 for no or problems found, 2 for wrong use or an error."""

from __future__ import annotations

import os

from pdp.cli.root import root


def main() -> None:
    """Run the command that the process was started with, and exit."""
    # What this process began with is for the programs that it runs in the place of others.
    environment = dict(os.environ)
    if os.environ.get("PDP_DEBUG") != "1":
        # gRPC would log its own lines about errors that our one line reports.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    root(prog_name="pdp", obj=environment)
