"""`python -m tests.sessions.postgres.campaign FILE`: check the history of a campaign, and show its figures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.sessions.postgres.campaign.campaign import TERMS
from tests.sessions.replicachecker import violations
from tests.sessions.replicafigures import figures
from tests.sessions.replicahistory import KeptHistory


def main() -> int:
    """Print figures and violations; return 1 if there are any of these."""
    parser = argparse.ArgumentParser(prog="python -m tests.sessions.postgres.campaign", description=__doc__)
    parser.add_argument("file", type=Path, help="the history")
    history = KeptHistory(parser.parse_args().file)
    print(figures(history))  # noqa: T201 - a command
    found = 0
    for one in violations(history, TERMS):
        print(one)  # noqa: T201 - the same
        found += 1
    print(f"{found} violations")  # noqa: T201 - the same
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
