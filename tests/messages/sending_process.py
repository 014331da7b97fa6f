"""A process of a server that sends messages until it is killed: the file of the store, of the queue, and the URL."""

from __future__ import annotations

import sys
from pathlib import Path

from pdp.clock import SystemClock
from pdp.messages import sender as senders
from pdp.messages.receivers import Form, Receiver
from pdp.messages.sender import Keeping, Sender
from pdp.messages.sqlitequeue import SQLiteMessageQueue
from pdp.sessions.history import MemorySessionHistory
from pdp.sessions.sqlite import SQLiteSessionStore
from tests.machinery.messagereceiver import PATIENT_POST

folder = Path(sys.argv[1])
senders.Post = PATIENT_POST  # type: ignore[attr-defined,assignment]  # in the place of the class
history = MemorySessionHistory(tells=True)
sender = Sender(
    [Receiver(name="on-call", form=Form.JSON, url_file=folder / "on-call.url", secret_file=folder / "on-call.secret")],
    sessions=SQLiteSessionStore(folder / "sessions.db", tells=True),
    requests=history.access,
    open_queue=lambda: SQLiteMessageQueue(folder / "messages.sqlite"),
    lock_path=folder / "messages.lock",
    keeping=Keeping(seconds=604800.0, messages=100),
    clock=SystemClock(),
    link_to=lambda _: "",
    purposes=False,
    every=0.02,
)
with sender:
    sys.stdin.read()
