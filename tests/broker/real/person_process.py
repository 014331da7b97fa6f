"""Open alice's connection in this process, and print the token: `FOLDER [STEP]`, before which it dies by SIGKILL."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from pdp.broker.oauth import granting, people
from pdp.broker.store.consents import Consents
from pdp.broker.vault import Vault
from pdp.clock import SystemClock
from tests.broker.consented import Site


def main(folder: str, step: str = "") -> None:
    """Open it."""
    # On a busy machine a refresh takes longer than the others, and the broker, wait for it elsewhere.
    people._WAIT_SECONDS, granting.PATIENT_SECONDS = 100.0, 300.0  # type: ignore[misc, attr-defined]  # of this process alone
    if step:
        _STEPS[step]()
    site = Site(Path(folder), SystemClock())
    print(site.open(), flush=True)  # noqa: T201 - read by the test


def die(*_: object, **__: object) -> NoReturn:
    """End at once, as by `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _after(owner: Any, name: str) -> Callable[[], None]:
    """Return what makes a step the last one."""

    def set_() -> None:
        real = getattr(owner, name)
        setattr(owner, name, lambda *given, **more: die(real(*given, **more)))

    return set_


_STEPS = {
    "intent": lambda: setattr(Consents, "begin", die),
    "question": _after(Consents, "begin"),
    "answer": _after(people, "refresh"),
    "result": lambda: setattr(Vault, "put", die),
    "end": _after(Vault, "put"),
}

if __name__ == "__main__":
    main(*sys.argv[1:])
