"""Check out a login, and be killed when the role is made and nothing says so yet: `checkout_process FOLDER PORT`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from pdp.broker.store.checkouts import CheckoutStore
from tests.broker.real.postgresserver import database
from tests.broker.tills import till


class Killed(CheckoutStore):
    """Ends the process where it would note that the credential leaves."""

    def hand_out(self, *_: object, **__: object) -> NoReturn:
        """Do what `kill -9` does."""
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("nobody gets here")


def main(folder: str, port: str) -> None:
    """Ask for one login."""
    with till(Path(folder), database(int(port)), secret=b"", storing=Killed) as here:
        here.ask()


if __name__ == "__main__":
    main(*sys.argv[1:])
