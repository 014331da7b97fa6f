"""Machines that send messages on one database; run as a program, one of them until it is killed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from pdp.clock import SystemClock
from pdp.messages import sender as senders
from pdp.messages.postgresqueue import PostgresMessageQueue
from pdp.messages.receivers import Form, Receiver
from pdp.messages.sender import Keeping, Sender
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgreshistory import PostgresSessionHistory
from tests.machinery.messagereceiver import PATIENT_POST
from tests.sessions.postgres.conftest import PATIENT

# With a session in each, nothing is a burst.
TENANTS = tuple(f"tenant-{number}" for number in range(20))
TURN_SECONDS = 2.0


@contextmanager
def machine(receiver: Path, folder: Path, conninfo: str) -> Iterator[tuple[Sender, PostgresSessionStore]]:
    """Run what sends of one machine, with the files of a receiver and a folder of its own; give it and its store."""
    made = Receiver(
        name="on-call",
        form=Form.JSON,
        url_file=receiver / "on-call.url",
        secret_file=receiver / "on-call.secret",
        tenants=frozenset(TENANTS),
    )
    folder.mkdir(exist_ok=True)
    with (
        closing(PostgresSessionStore(conninfo, **PATIENT, tells=True)) as store,
        closing(PostgresSessionHistory(conninfo, **PATIENT, tells=True, beside=store)) as history,
        Sender(
            [made],
            sessions=store,
            requests=history.access,
            open_queue=partial(PostgresMessageQueue, conninfo, beside=store, turn_seconds=TURN_SECONDS),
            lock_path=folder / "messages.lock",
            keeping=Keeping(seconds=604800.0, messages=1000),
            clock=SystemClock(),
            link_to=lambda _: "",
            purposes=False,
            every=0.02,
        ) as sender,
    ):
        yield sender, store


if __name__ == "__main__":
    senders.Post = PATIENT_POST  # type: ignore[attr-defined,assignment]  # in the place of the class
    with machine(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]):
        sys.stdin.read()
