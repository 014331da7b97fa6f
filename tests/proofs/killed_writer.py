"""A process that records decisions on four threads and says each one that is answered, until it is killed."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from pathlib import Path
from typing import cast

from pdp.model import TraceParent
from pdp.record import DecisionLog, SigningKey
from pdp.record.log import Durability
from pdp.testing.decisions import a_decision


def main(folder: str, signing_key: str, durability: str, name: str) -> None:
    """Record decisions named after `name`; write a line `id basis` for each that is answered."""
    log = DecisionLog(
        Path(folder),
        key=b"k" * 32,
        signer=SigningKey.load(Path(signing_key)),
        durability=cast("Durability", durability),
        checkpoint_seconds=0.01,
    )
    log.start()

    def work(thread: int) -> None:
        for number in itertools.count():
            answered = log.decision(a_decision(id=f"dec_{name}_{thread}_{number}"), TraceParent())
            # One call for a whole line: what was said before the kill is never half a line of two threads.
            os.write(1, f"{answered.id} {answered.ruling.basis.value}\n".encode())

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
