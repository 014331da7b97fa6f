"""What a server has acknowledged to one client thread, written down before the thread goes on.

A change that was asked for and not acknowledged may have happened or not: such a session may be in either state.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from pdp.client import PDPClientError
from tests.machinery.servers.notes import READ
from tests.machinery.servers.server_process import Callers

NOTE = {"name": "shopping"}

# Which event the record holds for each acknowledged change.
EVENTS = {
    "requested": "session.requested",
    "active": "session.approved",
    "revoked": "session.revoked",
    "ended": "session.ended",
}


@dataclass(slots=True, kw_only=True)
class Entry:
    """One session: the states that were acknowledged, in order, and the one that was asked for last."""

    id: str
    handle: str = field(repr=False)
    acknowledged: list[str]
    attempted: str = ""

    @property
    def possible(self) -> set[str]:
        """Return the states in which the session may be."""
        return {self.acknowledged[-1], self.attempted or self.acknowledged[-1]}


@dataclass(slots=True, kw_only=True)
class Ledger:
    """Everything that was acknowledged to one thread: its sessions, and the decisions with their outcome."""

    entries: list[Entry] = field(default_factory=list)
    decisions: dict[str, bool] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class LostError(Exception):
    """The server no longer answers."""


class Worker:
    """One client thread: it requests, approves, asks, and revokes or ends, until the server is lost.

    `progressed` is told of each acknowledgement. `client_random` is the thread's own source of choices.
    """

    def __init__(self, callers: Callers, *, progressed: Callable[[], None], client_random: random.Random) -> None:
        self.ledger = Ledger()
        self._callers = callers
        self._progressed = progressed
        self._random = client_random

    def run(self, stopping: threading.Event) -> None:
        """Work until the server is lost; that happens before `stopping` is set only when the server failed."""
        try:
            while not stopping.is_set():
                self._one_session()
        except (LostError, PDPClientError) as error:
            if not stopping.is_set():
                self.ledger.wrong.append(f"lost before the kill: {error}")

    def _one_session(self) -> None:
        opened = self._callers.pep.request_session(
            user="alice", agent="coder", purpose="keep notes", tools=("notes/*",), duration=3600.0
        )
        entry = Entry(id=opened.session.session_id, handle=opened.session_handle, acknowledged=["requested"])
        self.ledger.entries.append(entry)
        self._progressed()
        self._change(
            entry,
            "active",
            lambda: self._callers.approver.approve_session(entry.id, request_digest=opened.session.request_digest),
        )
        for _ in range(self._random.randrange(4)):
            self._ask(entry, expected="permit")
        end = self._random.choice(("revoked", "ended", ""))
        if end == "revoked":
            self._change(
                entry, end, lambda: self._callers.approver.revoke_sessions(session_id=entry.id, reason="enough")
            )
            self._ask(entry, expected="session_revoked")
        elif end == "ended":
            self._change(entry, end, lambda: self._callers.pep.end_session(entry.handle))
            self._ask(entry, expected="session_ended")

    def _change(self, entry: Entry, state: str, change: Callable[[], object]) -> None:
        entry.attempted = state
        change()
        entry.acknowledged.append(state)
        self._progressed()

    def _ask(self, entry: Entry, *, expected: str) -> None:
        answer = self._callers.pep.authorize(entry.handle, "notes", READ, NOTE, session_id=entry.id)
        if answer.error:
            raise LostError(answer.error)
        self.ledger.decisions[answer.decision_id] = answer.allowed
        if answer.basis != expected:
            self.ledger.wrong.append(f"{entry.id}: `{answer.basis}` instead of `{expected}`")
        self._progressed()
